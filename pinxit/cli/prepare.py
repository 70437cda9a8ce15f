"""`pinxit prepare`: converts a source to shards of images, then to shards of latents.

The command can be run again at any time. It does the remaining work, and the same settings give the
same bytes. Its exit code is 0 if all of its units are done. Otherwise it is 1, and the reasons are
printed. A dataset of which nothing was kept is a failure, too.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinxit.cli.arguments import parse
from pinxit.cli.habits import PREPARE_HABITS
from pinxit.cli.prepare_ending import any_failed, finished_manifest, print_ending, print_unused
from pinxit.cli.prepare_progress import COUNTED, watching
from pinxit.cli.stopping import stoppable
from pinxit.config import UsageError
from pinxit.data.filters.resolve import chosen_line, is_web, resolved_filters
from pinxit.data.row import Source, Unit
from pinxit.data.sources.catalogue import SOURCES, open_source
from pinxit.data.sources.columns import named_columns
from pinxit.devices.hardware import check_encoder_dtype
from pinxit.extras import check_data_extra
from pinxit.prepare.both_stages import EncodeSettings, encode_finished, run_both
from pinxit.prepare.encoders import (
    MakeEncoders,
    check_devices,
    check_divisible,
    check_text,
    encodes_here,
)
from pinxit.prepare.engines.base import Engine
from pinxit.prepare.engines.choose import get_engine, in_this_process
from pinxit.prepare.image_totals import image_totals
from pinxit.prepare.images import ImageStage
from pinxit.prepare.latents import LatentStage
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.options import PrepareOptions
from pinxit.prepare.report import write_preparation_report
from pinxit.prepare.retry_advice import retry_advice
from pinxit.prepare.row_limit import units_for
from pinxit.prepare.stages import StageResult, run_images

if TYPE_CHECKING:
    from rich.console import Console


def prepare_command(argv: Sequence[str]) -> int:
    """Prepares a dataset, and returns the exit code."""
    options = parse(
        PrepareOptions,
        argv,
        aliases={"revision": "dataset_revision"},
        prog="pinxit prepare",
        description="Prepares a dataset for training: pinxit prepare coyo --out DIR. Sources: "
        f"{', '.join(SOURCES)}.",
        positional="source",
        habits=PREPARE_HABITS,
    )
    check_data_extra("pinxit prepare")
    from rich.console import Console

    console = Console(stderr=True)
    try:
        with stoppable("the same command continues"):
            return _prepare(options, argv, console)
    except OSError as error:  # a full disk, a read-only folder, an unreachable source
        console.print(f"stopped: {error}", highlight=False, markup=False, soft_wrap=True)
        return 1


def _prepare(options: PrepareOptions, argv: Sequence[str], console: Console) -> int:
    """Runs the requested stages and writes the report."""
    if options.find_duplicates is not None:
        return _find_duplicates(options, options.find_duplicates, console)
    folder = options.folder
    source = None if options.stage == "latents" else _source(options)
    if source is not None:
        print_unused(source.unused, console)
    engine = get_engine(
        options.engine, address=options.address, rank=options.rank, world=options.world
    )
    if options.encodes:
        check_devices(engine, options.latent_workers)
        if encodes_here(engine, options.latent_workers):
            check_encoder_dtype(options.encoder_dtype)
        _check_sizes(options, folder)
        if options.store_text:
            check_text(options.text_encoder)
    results: list[StageResult] = []
    if source is None:
        if not _has_no_images(folder):
            results.append(_latents(options, folder, engine, console))
    else:
        results += _run(options, source, folder, engine, console)
    return _end(options, argv, results, engine, console)


def _end(
    options: PrepareOptions,
    argv: Sequence[str],
    results: Sequence[StageResult],
    engine: Engine,
    console: Console,
) -> int:
    """Writes the report, prints the end of the command, and returns the exit code.

    Of several ranks, the last one writes the report, and those in which a unit failed.
    """
    folder, ledger = options.folder, Ledger(options.folder, "images")
    report = None
    if results and results[-1].waiting and engine.name == "rank" and not any_failed(results):
        totals = image_totals(ledger.each(engine.share(results[0].ids)))
    else:
        everything = totals = image_totals(ledger.each())
        manifest = results[-1].manifest if results else finished_manifest(folder)
        ids = {*results[0].ids} if results else {*manifest.units} if manifest else set[str]()
        if not ids.issuperset(ledger.log.units()):  # a limit was lowered
            totals = image_totals(ledger.each(ids))
        report = write_preparation_report(
            folder,
            command=["pinxit", "prepare", *argv],
            failed=[failure for result in results for failure in result.failed],
            totals=everything,
            manifest=manifest,
        )
    code = print_ending(results, totals, report, folder, console)
    if options.stage != "latents" and (advice := retry_advice(totals.counts, argv)):
        console.print(advice, highlight=False, markup=False, soft_wrap=True)
    return code


def _has_no_images(folder: Path) -> bool:
    """Returns whether the first stage is finished and kept nothing: no encoder is needed then."""
    manifest = finished_manifest(folder)
    return manifest is not None and not manifest.kept


def _source(options: PrepareOptions) -> Source:
    return open_source(
        options.name,
        path=options.dataset_path,
        revision=options.dataset_revision,
        columns=named_columns(options.columns),
        unit_rows=options.unit_rows,
        text_encoding=options.text_encoding,
    )


def _find_duplicates(options: PrepareOptions, path: str, console: Console) -> int:
    """Writes the list of duplicates to `path`, and returns the exit code."""
    from pinxit.prepare.find_duplicates import find_duplicates

    if options.engine == "rank":
        problem = "not supported here, because each pass needs all results of the previous one"
        raise UsageError("engine", "rank", problem=problem, valid="local, inline, ray")
    source, file = _source(options), Path(path).expanduser()
    targets = dataclasses.replace(options.images, size=options.image_size).targets
    filters = resolved_filters(options.filters, web=is_web(source), targets=targets)
    with watching(console, COUNTED) as watch:
        counts = find_duplicates(
            file,
            source,
            dataclasses.replace(filters, duplicates=None),
            get_engine(options.engine, address=options.address),
            workers=options.workers,
            limit=None if options.limit is None else units_for(source, options.limit),
            skip_failed=options.skip_failed,
            watch=watch,
            say=lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True),
        )
    rows, remaining = sum(counts.values()), counts.get("ok", 0)
    duplicates = " and ".join(
        f"{counts.get(f'filtered_{kind}', 0):,} by {name}"
        for kind, name in (("url", "URL"), ("phash", "perceptual hash"))
    )
    console.print(
        f"{file}: {remaining:,} of {rows:,} rows remain; {duplicates} are duplicates\n"
        f"to use the list: --filters.duplicates {file}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0


def _check_sizes(options: PrepareOptions, folder: Path) -> None:
    """Raises unless the autoencoder exists and accepts the size of the images."""
    if options.stage == "latents":
        stored = (Ledger(folder, "images").identity() or {}).get("image", {})
        side = stored.get("size", options.image_size)
        sizes = [(width, height) for width, height in stored.get("buckets") or [(side, side)]]
        check_divisible(options.vae, sizes, field="out", value=str(folder))
        return
    image = dataclasses.replace(options.images, size=options.image_size)
    field = "image_size"
    if image.bucketed:
        field = "images.buckets" if image.buckets else "images.bucket_step"
    value = image.buckets or image.bucket_step or image.size
    check_divisible(options.vae, image.targets, field=field, value=value)


def _run(
    options: PrepareOptions, source: Source, folder: Path, engine: Engine, console: Console
) -> list[StageResult]:
    """Runs the first stage, and the second one beside it if both are requested."""
    cores = max(1, (os.cpu_count() or 1) // options.workers)
    stage = ImageStage(
        source,
        folder,
        filters=options.filters,
        fetch=options.fetch,
        image=dataclasses.replace(
            options.images,
            size=options.image_size,
            workers=options.images.workers or cores,
        ),
        retry=options.retry_failed,
        outage_hours=options.outage_hours,
        previews=options.previews,
    )
    if line := chosen_line(options.filters, stage.filters, web=is_web(source)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    ledger = Ledger(folder, "images")

    def counted(unit: Unit) -> int | None:
        rows = [sum(record.counts.values()) for record in ledger.parsed([unit.id])]
        return rows[0] if rows else None

    limit = None
    if options.limit is not None:
        ledger.log.refresh()
        limit = units_for(source, options.limit, known=counted)
    with watching(console, COUNTED) as watch:
        more = {
            "workers": options.workers,
            "limit": limit,
            "skip_failed": options.skip_failed,
            "verify": options.verify,
            "watch": watch,
        }
        if not options.encodes:
            return [run_images(stage, engine, **more)]
        return run_both(stage, engine, _encode_settings(options, folder, engine), **more)


def _latents(
    options: PrepareOptions, folder: Path, engine: Engine, console: Console
) -> StageResult:
    """Runs the second stage over the images that another command has prepared."""
    with watching(console, COUNTED) as watch:
        return encode_finished(
            folder,
            _encode_settings(options, folder, engine),
            follow=options.follow,
            verify=options.verify,
            watch=watch,
            say=lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True),
        )


def _encode_settings(options: PrepareOptions, folder: Path, engine: Engine) -> EncodeSettings:
    """Returns how the second stage is run: in this process, or in processes of the engine."""
    here = encodes_here(engine, options.latent_workers)

    def make() -> tuple[LatentStage, dict[str, Any]]:
        """Loads the encoders here first, to determine their identity."""
        settings = MakeEncoders(
            vae=options.vae,
            dtype=options.encoder_dtype,
            text_encoder=options.text_encoder if options.store_text else None,
            text_max_tokens=options.text_max_tokens,
            cleaning=options.caption_cleaning,
        )
        loaded = settings.load()
        encoders = loaded.ready if here else settings
        return LatentStage(folder, encoders, batch_size=options.encode_batch), loaded.identity()

    return EncodeSettings(make, in_this_process(engine) if here else engine, options.latent_workers)
