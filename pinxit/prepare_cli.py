"""`pinxit prepare`: a source becomes shards of images, then shards of latents.

The command can be given again at any time: it does what is left, and with the same settings it
makes the same bytes. It ends with 0 when all units that it sees to are done, with 1 and the reasons
when some are not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pinxit.config import UsageError, choice, parse, positive
from pinxit.data.engines import ENGINES, Engine, InlineEngine, get_engine
from pinxit.data.fetch import FetchConfig
from pinxit.data.filters import FilterConfig
from pinxit.data.images import ImageConfig
from pinxit.data.manifest import Manifest, Unfinished
from pinxit.data.preparation import Ended, run_images, run_latents
from pinxit.data.preparation_report import write_report
from pinxit.data.prepare import ImageStage
from pinxit.data.prepare_latents import Encoders, LatentStage
from pinxit.data.schema import Source
from pinxit.data.sources import SOURCES, open_source
from pinxit.prepare_display import watching
from pinxit.train.datasets import named_columns
from pinxit.train.prepared import encoder_identity, text_identity

if TYPE_CHECKING:
    from rich.console import Console

POLL = 10.0
"""Seconds between looks at what other ranks have done."""


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `pinxit prepare`."""

    source: tuple[str, ...] = ()
    """Name of the source, also as a plain word: pinxit prepare coyo --out DIR."""
    out: str | None = None
    """The folder of the prepared dataset."""
    find_duplicates: str | None = None
    """Prepare nothing, but write the list of the whole set's duplicates to this file, to be named
    in filters.duplicates then."""
    dataset_path: str | None = None
    """A file, folder, glob, URL or dataset of the hub, in place of the released one."""
    dataset_revision: str | None = None
    """Commit or branch of a dataset on the hub."""
    columns: tuple[str, ...] = ()
    """Names of columns, where they are unusual: caption=long_caption url=link."""
    unit_rows: int = 10_000
    """Rows of a unit of work, about: what a crash costs at most."""
    limit: int | None = None
    """Rows of the source to look at, rounded up to whole units; none: all."""
    stage: Literal["all", "images", "latents"] = "all"
    """What to do: fetch images, encode those that are there, or one after the other."""
    retry_failed: bool = False
    """Take up the rows again that failed in a way that may heal."""
    engine: str = "local"
    """local (processes), inline, rank (a static share, for Slurm and pods) or ray."""
    address: str | None = None
    """Address of a Ray cluster; none: one on this machine."""
    rank: int | None = None
    """This command's number among `world`; none: as Slurm says."""
    world: int | None = None
    """Commands that share the units."""
    workers: int = 2
    """Units fetched at the same time, each with `images.workers` decoding processes."""
    latent_workers: int = 1
    """Processes that encode, each on all devices it sees; 1 with engine local: this one."""
    image_size: int = 256
    """Side of the images, in pixels."""
    vae: str = "sd"
    """tiny, sd, sdxl, none (keep images alone), a directory or a repository id."""
    store_text: bool = False
    """Also store text embeddings (worth it for T5; CLIP is cheaper to run in each step)."""
    text_encoder: str = "t5"
    """Whose embeddings `store_text` stores; of two joined by +, those of the T5."""
    text_max_tokens: int | None = None
    """Tokens of a caption that are read; none: as many as the text encoder's own default."""
    caption_cleaning: Literal["stock", "light", "none"] = "stock"
    """What is done to captions before they are encoded; the shards keep them as they are."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the encoders."""
    encode_batch: int = 64
    """Images encoded together."""
    filters: FilterConfig = field(default_factory=FilterConfig)
    """Which rows are worth fetching."""
    fetch: FetchConfig = field(default_factory=FetchConfig)
    """How images are fetched."""
    images: ImageConfig = field(default_factory=ImageConfig)
    """How images are decoded and cropped; their size is image_size."""

    def __post_init__(self) -> None:
        choice("engine", self.engine, ENGINES)
        positives = ("unit_rows", "limit", "workers", "latent_workers", "image_size")
        for name in (*positives, "encode_batch", "text_max_tokens"):
            positive(name, getattr(self, name))
        named_columns(self.columns)

    @property
    def name(self) -> str:
        """The source's name."""
        if len(self.source) != 1:
            given = " ".join(self.source) or None
            raise UsageError("source", given, problem="not one name", valid=list(SOURCES))
        choice("source", self.source[0], SOURCES)
        return self.source[0]

    @property
    def folder(self) -> Path:
        """Where to."""
        if self.out is None:
            raise UsageError("out", None, problem="missing", valid="a folder: --out DIR")
        folder = Path(self.out).expanduser()
        if folder.exists() and not folder.is_dir():
            raise UsageError("out", self.out, problem="a file", valid="a folder")
        return folder


@dataclass(frozen=True)
class MakeEncoders:
    """The encoders of the second stage, loaded where they are used."""

    vae: str
    dtype: str
    text_encoder: str | None
    text_max_tokens: int | None
    cleaning: str

    def __call__(self) -> Encoders:
        import jax

        from pinxit.train.mesh import batch_sharding, make_mesh, replicated

        autoencoder, mesh = self.autoencoder(), make_mesh()
        weights = jax.device_put(autoencoder.params, replicated(mesh))

        @jax.jit
        def run(params: Any, images: Any) -> Any:
            return autoencoder.encode(params, images.astype(np.float32) / np.float32(127.5) - 1)

        def encode(images: np.ndarray) -> np.ndarray:
            shared = len(images) % mesh.size == 0
            placed = jax.device_put(images, batch_sharding(mesh) if shared else replicated(mesh))
            return np.asarray(run(weights, placed), np.float32)

        part = self.text_part()
        return Encoders(encode, None if part is None else part[1])

    def autoencoder(self) -> Any:
        """The frozen autoencoder."""
        from pinxit.encoders.autoencoder import load_autoencoder

        return load_autoencoder(self.vae, dtype=self.dtype)

    def text_part(self) -> tuple[int, Any] | None:
        """The text encoder whose embeddings are stored, with its place among joined ones."""
        if self.text_encoder is None:
            return None
        from pinxit.encoders.cleaning import get_cleaner
        from pinxit.encoders.text import load_text_encoder
        from pinxit.train.text import TextColumns

        encoder = load_text_encoder(
            self.text_encoder,
            max_tokens=self.text_max_tokens,
            dtype=self.dtype,
            clean=get_cleaner(self.cleaning),
        )
        columns = TextColumns(encoder)
        place = columns.cached.index(True) if True in columns.cached else 0
        return place, columns.parts[place]

    def identity(self) -> dict[str, Any]:
        """What tells these encoders from others: loads them."""
        from pinxit.encoders.fingerprint import fingerprint

        text, part = None, self.text_part()
        if part is not None:
            text = text_identity(
                name=self.text_encoder or "",
                fingerprint=fingerprint(part[1].params),
                part=part[0],
                max_tokens=part[1].max_tokens,
                cleaning=self.cleaning,
            )
        vae = fingerprint(self.autoencoder().params)
        return encoder_identity(vae=self.vae, vae_fingerprint=vae, text=text)


def prepare(argv: Sequence[str]) -> int:
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
    ended: list[Ended] = []
    if source is not None:
        ended.append(_images(options, source, folder, engine, console))
    encodes = options.stage != "images" and options.vae != "none"
    if encodes and not any(end.exit_code for end in ended):
        _await_images(folder, ended, engine, console)
        ended.append(_latents(options, folder, engine, console))
    failed = [result for end in ended for result in end.failed]
    report = write_report(folder, command=["pinxit", "prepare", *argv], failed=failed)
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
    from pinxit.data.find_duplicates import find_duplicates

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


def _images(
    options: PrepareOptions, source: Source, folder: Path, engine: Engine, console: Console
) -> Ended:
    """The first stage."""
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
    limit = None if options.limit is None else units_for(source, options.limit)
    with watching(console, "rows") as watch:
        return run_images(stage, engine, workers=options.workers, limit=limit, watch=watch)


def units_for(source: Source, rows: int) -> int:
    """How many units hold so many rows, counted from the first."""
    count, known = 1, 0
    while True:
        units = source.units(limit=count)
        if len(units) < count or any(unit.rows is None for unit in units):
            return max(1, len(units))
        known = sum(unit.rows or 0 for unit in units)
        if known >= rows:
            return count
        count += max(1, math.ceil((rows - known) / max(1, known) * count))


def _await_images(folder: Path, ended: list[Ended], engine: Engine, console: Console) -> None:
    """Until the first stage is done by all ranks."""
    if not ended or not ended[-1].waiting or engine.name != "rank":
        return
    console.print("waiting for the images of the other ranks", highlight=False)
    while True:
        with contextlib.suppress(Unfinished):
            Manifest.read(folder)
            return
        time.sleep(POLL)


def _latents(options: PrepareOptions, folder: Path, engine: Engine, console: Console) -> Ended:
    """The second stage. Its first encoders are loaded here, to tell what they are."""
    make = MakeEncoders(
        vae=options.vae,
        dtype=options.encoder_dtype,
        text_encoder=options.text_encoder if options.store_text else None,
        text_max_tokens=options.text_max_tokens,
        cleaning=options.caption_cleaning,
    )
    identity = make.identity()
    if engine.name == "local" and options.latent_workers == 1:
        engine = InlineEngine()
    stage = LatentStage(folder, make, batch_size=options.encode_batch)
    with watching(console, "images") as watch:
        return run_latents(
            stage, engine, identity=identity, workers=options.latent_workers, watch=watch
        )


def _say_how_it_ended(ended: Sequence[Ended], report: Path, folder: Path, console: Console) -> int:
    """What is done, what is not and why; the exit code."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for end in ended:
        say(f"{end.stage}: {end.done} of {end.units} units done")
        for result in end.failed[:10]:
            say(f"  {getattr(result.unit, 'id', result.unit)} failed: {result.reason}")
        if len(end.failed) > 10:
            say(f"  and {len(end.failed) - 10} more")
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


if __name__ == "__main__":
    from pinxit.cli import main

    raise SystemExit(main(["prepare", *sys.argv[1:]]))
