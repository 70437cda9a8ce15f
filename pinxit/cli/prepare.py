"""`pinxit prepare`: a source becomes shards of images, then shards of latents.

The command can be given again at any time: it does what is left, and with the same settings it
makes the same bytes. It ends with 0 when all units that it sees to are done, with 1 and the reasons
when some are not.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pinxit.cli.arguments import parse
from pinxit.cli.prepare_progress import watching
from pinxit.config import UsageError
from pinxit.data.row import Source, Unit
from pinxit.data.sources.catalogue import SOURCES, open_source
from pinxit.data.sources.columns import named_columns
from pinxit.prepare.encoders import (
    MakeEncoders,
    check_devices,
    check_divisible,
    check_dtype,
    check_text,
    encodes_here,
)
from pinxit.prepare.engines.base import Engine
from pinxit.prepare.engines.choose import get_engine, in_this_process
from pinxit.prepare.images import ImageStage
from pinxit.prepare.latents import LatentStage
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.options import PrepareOptions
from pinxit.prepare.rank_signals import await_units, begin, give_up
from pinxit.prepare.report import write_preparation_report
from pinxit.prepare.row_limit import units_for
from pinxit.prepare.stages import StageResult, can_skip, run_images, run_latents

if TYPE_CHECKING:
    from rich.console import Console


def prepare_command(argv: Sequence[str]) -> int:
    """Prepares a dataset; the exit code."""
    options = parse(
        PrepareOptions,
        argv,
        aliases={"revision": "dataset_revision"},
        prog="pinxit prepare",
        description="Makes a dataset to train on: pinxit prepare coyo --out DIR. Sources: "
        f"{', '.join(SOURCES)}.",
        positional="source",
    )
    from rich.console import Console

    console = Console(stderr=True)
    try:
        return _prepare(options, argv, console)
    except OSError as error:  # a full disk, a folder that cannot be written, a source out of reach
        console.print(f"stopped: {error}", highlight=False, markup=False, soft_wrap=True)
        return 1


def _prepare(options: PrepareOptions, argv: Sequence[str], console: Console) -> int:
    """Both stages and the report."""
    if options.find_duplicates is not None:
        return _find_duplicates(options, options.find_duplicates, console)
    folder = options.folder
    source = None if options.stage == "latents" else _source(options)
    engine = get_engine(
        options.engine, address=options.address, rank=options.rank, world=options.world
    )
    if options.encodes:
        check_devices(engine, options.latent_workers)
        if encodes_here(engine, options.latent_workers):
            check_dtype(options.encoder_dtype)
        _check_sizes(options, folder)
        if options.store_text:
            check_text(options.text_encoder)
    ended: list[StageResult] = []
    if source is not None:
        images = _images(options, source, folder, engine, console)
        if options.encodes and not images.exit_code:
            images = _await_images(images, folder, engine, console)
        ended.append(images)
    if options.encodes and not any(end.exit_code for end in ended):
        ended.append(_latents(options, folder, engine, console))
    failed = [result for end in ended for result in end.failed]
    report = write_preparation_report(folder, command=["pinxit", "prepare", *argv], failed=failed)
    return _say_how_it_ended(ended, report, folder, console)


def _source(options: PrepareOptions) -> Source:
    return open_source(
        options.name,
        path=options.dataset_path,
        revision=options.dataset_revision,
        columns=named_columns(options.columns),
        unit_rows=options.unit_rows,
    )


def _find_duplicates(options: PrepareOptions, path: str, console: Console) -> int:
    """The list of duplicates."""
    from pinxit.prepare.find_duplicates import find_duplicates

    if options.engine == "rank":
        problem = "of no use here: the passes follow one another"
        raise UsageError("engine", "rank", problem=problem, valid="local, inline, ray")
    source, file = _source(options), Path(path).expanduser()
    with watching(console, "rows") as watch:
        counts = find_duplicates(
            file,
            source,
            dataclasses.replace(options.filters, duplicates=None),
            get_engine(options.engine, address=options.address),
            workers=options.workers,
            limit=None if options.limit is None else units_for(source, options.limit),
            watch=watch,
        )
    rows, left = sum(counts.values()), counts.get("ok", 0)
    doubled = " and ".join(
        f"{counts.get(f'filtered_{kind}', 0):,} by {name}"
        for kind, name in (("url", "URL"), ("phash", "perceptual hash"))
    )
    console.print(
        f"{file}: of {rows:,} rows {left:,} are left; {doubled} are duplicates\n"
        f"use it: --filters.duplicates {file}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0


def _check_sizes(options: PrepareOptions, folder: Path) -> None:
    """Raises unless the autoencoder is there and takes the images."""
    if options.stage == "latents":
        made = (Ledger(folder, "images").identity() or {}).get("image", {})
        side = made.get("size", options.image_size)
        sizes = [(width, height) for width, height in made.get("buckets") or [(side, side)]]
        check_divisible(options.vae, sizes, field="out", value=str(folder))
        return
    image = dataclasses.replace(options.images, size=options.image_size)
    field = "image_size"
    if image.bucketed:
        field = "images.buckets" if image.buckets else "images.bucket_step"
    value = image.buckets or image.bucket_step or image.size
    check_divisible(options.vae, image.targets, field=field, value=value)


def _images(
    options: PrepareOptions, source: Source, folder: Path, engine: Engine, console: Console
) -> StageResult:
    """The first stage. What ends it before its end is told to the other ranks."""
    begin(folder, engine)
    try:
        ended = _run_images(options, source, folder, engine, console)
    except OSError as error:
        give_up(folder, engine, str(error))
        raise
    if ended.exit_code:
        count = len(ended.failed)
        give_up(folder, engine, ended.stopped or f"{count} units failed")
    return ended


def _run_images(
    options: PrepareOptions, source: Source, folder: Path, engine: Engine, console: Console
) -> StageResult:
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
    )
    ledger = Ledger(folder, "images")

    def counted(unit: Unit) -> int | None:
        record = ledger.read(unit.id)
        return None if record is None else sum(record.counts.values())

    limit = None
    if options.limit is not None:
        limit = units_for(source, options.limit, known=counted)
    with watching(console, "rows") as watch:
        return run_images(
            stage,
            engine,
            workers=options.workers,
            limit=limit,
            skip_failed=options.skip_failed,
            watch=watch,
        )


def _await_images(
    images: StageResult, folder: Path, engine: Engine, console: Console
) -> StageResult:
    """Until the first stage is done by all ranks; stopped where that will not be."""
    if not images.waiting or engine.name != "rank":
        return images
    console.print("waiting for the images of the other ranks", highlight=False)
    return dataclasses.replace(images, stopped=await_units(folder, images.ids))


def _latents(
    options: PrepareOptions, folder: Path, engine: Engine, console: Console
) -> StageResult:
    """The second stage. Its first encoders are loaded here, to tell what they are."""
    make = MakeEncoders(
        vae=options.vae,
        dtype=options.encoder_dtype,
        text_encoder=options.text_encoder if options.store_text else None,
        text_max_tokens=options.text_max_tokens,
        cleaning=options.caption_cleaning,
    )
    loaded = make.load()
    identity = loaded.identity()
    here = encodes_here(engine, options.latent_workers)
    stage = LatentStage(folder, loaded.ready if here else make, batch_size=options.encode_batch)
    del loaded
    with watching(console, "images") as watch:
        return run_latents(
            stage,
            in_this_process(engine) if here else engine,
            identity=identity,
            workers=options.latent_workers,
            watch=watch,
        )


def _say_how_it_ended(
    ended: Sequence[StageResult], report: Path, folder: Path, console: Console
) -> int:
    """What is done, what is not and why; the exit code."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for end in ended:
        say(f"{end.stage}: {end.done} of {end.units} units done")
        for word, results in (("failed", end.failed), ("left out", end.skipped)):
            for result in results[:10]:
                say(f"  {getattr(result.unit, 'id', result.unit)} {word}: {result.reason}")
            if len(results) > 10:
                say(f"  and {len(results) - 10} more")
        if end.stage == "images" and not end.stopped and any(map(can_skip, end.failed)):
            say("  if that is so every time, --skip_failed 1 leaves them out and does the rest")
        if end.stopped:
            say(f"stopped: {end.stopped}")
    if not any(end.exit_code for end in ended) and ended and ended[-1].manifest is not None:
        say(f"done: {ended[-1].manifest.kept:,} images of {ended[-1].manifest.rows:,} rows")
        whole = ended[-1].manifest.latents is not None
        then = f"pinxit train --dataset_path {folder}"
        say(f"train on it: {then}" if whole else f"on its pixels: {then} --use_stable_vae 0")
    elif ended and ended[-1].waiting:
        say(f"not yet whole: {ended[-1].waiting}; give the same command again to go on")
    say(f"report: {report}")
    return max((end.exit_code for end in ended), default=0)
