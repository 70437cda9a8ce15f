"""A source, a web and a stage for the tests of preparation; workers import them by name."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pinxit.data.fetch.fetcher import Fetched
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import Decoded, ImageConfig, decode, encode_image
from pinxit.data.row import Row, Unit
from pinxit.prepare.images import ImageStage, prepare_images
from pinxit.prepare.ledger import UnitRecord

IMAGE = ImageConfig(size=16, crop="random")
FILTERS = FilterConfig(
    min_side=10, max_watermark=0.5, min_aesthetic=None, min_clip_similarity=None, min_words=2
)
KINDS = ("good", "good", "good", "404", "timeout", "good", "html", "corrupt", "500", "good")


def picture(number: int) -> bytes:
    """A JPEG of 24 x 20 pixels, another for every number."""
    rng = np.random.default_rng(number)
    return encode_image(
        np.kron(rng.integers(0, 256, (5, 6, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    )


class Listed(dict[str, str]):
    """Statuses by key, as a list of duplicates."""

    sha256 = "of the list"


@dataclass(frozen=True)
class ToySource:
    """Rows whose URL says what will become of them; every 7th has a watermark."""

    sizes: tuple[int, ...] = (30, 20, 25)
    has_images: bool = False
    name: str = "toy"
    revision: str | None = "1"
    kinds: tuple[str, ...] = KINDS
    unit_rows: None = None
    columns: None = None
    unused: tuple[str, ...] = ()

    def units(self, *, limit: int | None = None) -> list[Unit]:
        return [Unit(f"{i:05d}-000", "toys", i, n) for i, n in enumerate(self.sizes)][:limit]

    def read(self, unit: Unit) -> Iterator[Row]:
        start = sum(self.sizes[: unit.part])
        for row in range(self.sizes[unit.part]):
            number = start + row
            url = f"http://host{number % 40}.test/{self.kinds[number % len(self.kinds)]}/{number}"
            yield Row(
                key=f"{unit.id}/{row:08d}",
                url=None if self.has_images else url,
                caption=f"picture number {number}" if number % 11 else "one",
                width=24,
                height=20,
                scores={"watermark": 0.9 if number % 7 == 3 else 0.1},
                image=picture(number) if self.has_images else None,
                origin=url if self.has_images else None,
            )

    def count(self, unit: Unit) -> int:
        return sum(1 for _ in self.read(unit))


@dataclass
class ToyWeb:
    """Answers in an order of its own; `healed` gives what failed for a time."""

    seed: int = 0
    healed: bool = False
    offline: bool = False
    asked: list[str] = field(default_factory=list)

    def answer(self, url: str) -> Fetched:
        kind, number = url.split("/")[-2:]
        data = picture(int(number))
        if self.offline:
            return Fetched("dns", None, reached=False)
        if kind == "good" or (self.healed and kind in ("timeout", "500")):
            return Fetched("ok", data)
        bodies = {"html": b"<html>gone", "corrupt": data[: len(data) // 3]}
        if kind in bodies:
            return Fetched("ok", bodies[kind])
        if kind == "timeout":
            return Fetched("timeout", None, "as it was told", reached=False)
        return Fetched(f"http_{kind}", None, "as it was told")

    def __call__(self, items: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, Fetched]]:
        mixed = list(items)
        random.Random(self.seed).shuffle(mixed)
        for key, url in mixed:
            self.asked.append(url)
            yield key, self.answer(url)


def decode_here(items: Iterable[tuple[Any, bytes]]) -> Iterator[tuple[Any, Decoded]]:
    for key, data in items:
        yield key, decode(data, IMAGE, key=str(key))


@dataclass
class ToyStage(ImageStage):
    """An `ImageStage` on the toy web, slow enough to be killed, that logs what it begins."""

    pause: float = 0.0
    log: Path | None = None
    web: ToyWeb = field(default_factory=ToyWeb)
    open_units: int = 1

    def __call__(self, unit: Unit) -> UnitRecord:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(json.dumps(unit.id) + "\n")

        def slowly(items):
            for item in decode_here(items):
                time.sleep(self.pause)
                yield item

        return prepare_images(
            unit,
            self.source,
            self.out,
            filters=self.filters,
            fetch=self.web,
            decode=slowly,
            retry=self.retry,
            previews=self.previews,
        )


def stage(out: Path, **more: Any) -> ToyStage:
    """The toy stage with the toys' settings."""
    return ToyStage(
        **{
            "source": ToySource(),
            "filters": FILTERS,
            "image": IMAGE,
            "out": out,
            "outage_hours": 0,
        }
        | more
    )


def main(out: Path, log: Path, engine: str, workers: int, pause: float) -> int:
    """Both stages, as a command: run again and again, it ends with everything done."""
    import prepared_toys as toys

    from pinxit.prepare.both_stages import run_latents
    from pinxit.prepare.engines.choose import get_engine
    from pinxit.prepare.latents import LatentStage
    from pinxit.prepare.stages import run_images

    work = stage(out, pause=pause, log=log, source=ToySource((12,) * 8))
    ended = run_images(work, get_engine(engine), workers=workers)
    if ended.exit_code:
        return 1
    latents = LatentStage(out, toys.toy_encoders_with_text, batch_size=4)
    identity = {"autoencoder": "means"}
    return run_latents(latents, get_engine(engine), identity=identity, workers=workers).exit_code


if __name__ == "__main__":
    where, log, engine, workers, pause = sys.argv[1:]
    sys.exit(main(Path(where), Path(log), engine, int(workers), float(pause)))
