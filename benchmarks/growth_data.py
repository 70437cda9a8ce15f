"""Axes of `benchmarks/growth.py`: datasets as their rows, files and units grow."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from growth_axes import Act, Axis, Extras, doubling, record

BATCH, UNIT_ROWS = 32, 1000


# --- prepared datasets ------------------------------------------------------------------------


def make_prepared(folder: Path, size: int) -> None:
    """Writes a prepared dataset of small pictures, in units of `UNIT_ROWS` rows."""
    import numpy as np

    from pinxit.data.images.decode import encode_image
    from pinxit.data.prepared.shards import pack, write_shard
    from pinxit.prepare.gather import gather
    from pinxit.prepare.ledger import Ledger, UnitRecord

    ledger = Ledger(folder, "images")
    ledger.begin({"source": {"name": "growth"}, "image": {"size": 8}, "filters": {}})
    jpeg = np.frombuffer(encode_image(np.zeros((8, 8, 3), np.uint8)), np.uint8)
    units = [f"{number:05d}-000" for number in range(max(1, size // UNIT_ROWS))]
    rows = min(size, UNIT_ROWS)
    for unit in units:
        about = {"caption": "a picture", "original": [8, 8], "crop": [0, 0, 8, 8]}
        records = (
            pack({"jpeg": jpeg}, {"key": f"{unit}/{row:08d}", **about}) for row in range(rows)
        )
        info = write_shard(ledger.path("images", unit), records)
        measured = {"shapes": {"8x8x3": rows}}
        ledger.commit(UnitRecord(unit, {"images": info}, {"ok": rows}, measured=measured))
    gather(folder, units, "images").write(folder)


def open_prepared(folder: Path, size: int) -> Act:
    from pinxit.data.loader import Loader
    from pinxit.data.prepared.prepared_rows import PreparedRows

    def act() -> Extras:
        rows = PreparedRows(folder, kind="images")
        rows.hold_out(size // 100)
        loader = Loader(rows, batch_size=BATCH, count=len(rows.buckets[0]))
        loader.batch(0)
        return record(rows=len(rows))

    return act


def resume_prepared(folder: Path, size: int) -> Act:
    """Takes the last batches of an epoch, as a run that was stopped there and is resumed."""
    from pinxit.data.loader import Loader
    from pinxit.data.prepared.prepared_rows import PreparedRows

    rows = PreparedRows(folder, kind="images")
    loader = Loader(rows, batch_size=BATCH)
    rows.verify_all(workers=1)

    def act() -> None:
        last = len(rows) // BATCH
        for _ in loader.batches(last - 4, last + 4):
            pass

    return act


def shuffle(folder: Path, size: int) -> Act:
    import numpy as np

    from pinxit.data.loader import ArrayRows, Loader

    def act() -> None:
        loader = Loader(ArrayRows({"x": np.zeros((size, 1), np.uint8)}), batch_size=BATCH)
        for step in range(size // BATCH):
            loader.row_numbers(step)

    return act


# --- sources ----------------------------------------------------------------------------------


def make_folder(folder: Path, size: int) -> None:
    """Writes `size` files that look like pictures by their names, each with a caption."""
    for number in range(size):
        inside = folder / f"{number // 1000:04d}"
        inside.mkdir(exist_ok=True)
        (inside / f"{number:07d}.jpg").touch()
        (inside / f"{number:07d}.txt").touch()


def list_pictures(folder: Path, size: int) -> Act:
    from pinxit.data.sources.catalogue import open_source

    def act() -> Extras:
        return record(units=len(open_source("folder", path=str(folder)).units()))

    return act


def _rows(size: int) -> Iterator[tuple[str, str]]:
    return ((f"http://host{i % 997}.example/{i}.jpg", f"picture number {i}") for i in range(size))


def make_csv(folder: Path, size: int, *, zipped: bool = False) -> None:
    path = folder / ("rows.csv.gz" if zipped else "rows.csv")
    opened: Any = partial(gzip.open, compresslevel=1) if zipped else open
    with opened(path, "wt") as file:
        file.write("url,caption\n")
        file.writelines(f"{url},{caption}\n" for url, caption in _rows(size))


def make_parquet(folder: Path, size: int, *, groups: int = 1) -> None:
    """Writes one file, with row groups of equal size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    urls, captions = zip(*_rows(size), strict=True)
    table = pa.table({"url": urls, "caption": captions})
    pq.write_table(table, folder / "rows.parquet", row_group_size=max(1, size // groups))


def list_table(folder: Path, size: int, *, name: str) -> Act:
    from pinxit.data.sources.catalogue import open_source

    def act() -> Extras:
        return record(units=len(open_source(name, path=str(folder), unit_rows=UNIT_ROWS).units()))

    return act


def read_table(folder: Path, size: int, *, name: str) -> Act:
    """Reads all units, one after the other, as one worker does."""
    from pinxit.data.sources.catalogue import open_source

    source = open_source(name, path=str(folder), unit_rows=UNIT_ROWS)
    units = source.units()

    def act() -> Extras:
        return record(rows=sum(1 for unit in units for _ in source.read(unit)))

    return act


def duplicates(folder: Path, size: int) -> Act:
    from pinxit.data.filters.duplicate_list import DuplicateList
    from pinxit.data.filters.row_filter import FilterConfig
    from pinxit.data.sources.catalogue import open_source
    from pinxit.prepare.engines.local import InlineEngine
    from pinxit.prepare.find_duplicates import find_duplicates

    source = open_source("parquet", path=str(folder), unit_rows=UNIT_ROWS)

    def act() -> None:
        path = folder / f"list-{os.getpid()}"
        find_duplicates(path, source, FilterConfig(), InlineEngine())
        DuplicateList(path)

    return act


# --- preparing --------------------------------------------------------------------------------


def make_pictures(folder: Path, size: int) -> None:
    from PIL import Image

    (folder / "pictures").mkdir()
    for number in range(size):
        picture = Image.effect_noise((16, 16), 60).convert("RGB")
        picture.save(folder / "pictures" / f"{number:06d}.png")
        (folder / "pictures" / f"{number:06d}.txt").write_text(f"noise number {number}")


def prepare_units(folder: Path, size: int, *, again: bool = False) -> Act:
    """Prepares units of one picture each, or runs the same command again."""
    from pinxit.data.images.image_config import ImageConfig
    from pinxit.data.sources.catalogue import open_source
    from pinxit.prepare.engines.local import InlineEngine
    from pinxit.prepare.images import ImageStage
    from pinxit.prepare.report import write_preparation_report
    from pinxit.prepare.stages import run_images

    source = open_source("folder", path=str(folder / "pictures"), unit_rows=1)

    def run(out: Path) -> Extras:
        stage = ImageStage(source, out, image=ImageConfig(size=16))
        result = run_images(stage, InlineEngine())
        write_preparation_report(out)
        return record(done=result.done)

    if again:
        run(folder / "out")
        return lambda: run(folder / "out")
    return lambda: run(folder / f"out-{os.getpid()}")


def totals(folder: Path, size: int) -> Act:
    """Adds up the records for the studio: once when all are new, and 50 times while nothing is."""
    from pinxit.serve.datasets.unit_totals import UnitTotals

    def act() -> Extras:
        of_dataset = UnitTotals(folder)
        for _ in range(50):
            of_dataset.refresh(seconds=60)
        return record(units=len(of_dataset.entries))

    return act


def make_records(folder: Path, size: int) -> None:
    """Writes the commit records of `size` units, without their shards."""
    import json
    from dataclasses import asdict

    from pinxit.data.prepared.shards import ShardInfo
    from pinxit.prepare.ledger import Ledger, UnitRecord

    Ledger(folder, "images").begin({"source": {"name": "growth"}})
    (folder / "units" / "images").mkdir(parents=True)
    for number in range(size):
        unit = f"{number:06d}-000"
        info = ShardInfo(f"{unit}.array_record", 1000, 100, "0" * 64)
        record_ = UnitRecord(unit, {"images": info}, {"ok": 1000, "http_404": 30})
        path = folder / "units" / "images" / f"{unit}.json"
        path.write_text(json.dumps(asdict(record_)))


# --- evaluation -------------------------------------------------------------------------------


def make_features(folder: Path, size: int) -> None:
    import numpy as np

    from pinxit.evaluate.feature_store import FeatureStore

    for name in ("drawn", "real"):
        store = FeatureStore(folder / name, width=64)
        rng = np.random.default_rng(len(name))
        for start in range(0, size, 64):
            rows = rng.normal(size=(min(64, size - start), 64)).astype(np.float32)
            store.append(rows, name="growth")


def measure_features(folder: Path, size: int, *, pairs: bool) -> Act:
    """Computes the Fréchet distance and that of kernels, or the figures that compare all pairs."""
    from pinxit.evaluate.distances.frechet import frechet_distance
    from pinxit.evaluate.distances.kernel import gaussian_mmd, kernel_distance
    from pinxit.evaluate.distances.precision_recall import precision_recall
    from pinxit.evaluate.distances.statistics import statistics_of
    from pinxit.evaluate.feature_store import FeatureStore

    def act() -> None:
        drawn, real = (FeatureStore(folder / name, width=64) for name in ("drawn", "real"))
        if pairs:
            precision_recall(drawn, real)
            gaussian_mmd(drawn, real)
        else:
            frechet_distance(statistics_of(drawn), statistics_of(real))
            kernel_distance(drawn, real, subsets=4, size=256)

    return act


PAIRS = "precision, recall and CMMD compare every picture with every other, by their definitions"
PARTITION = "a partition of at most 4 million rows is sorted in memory, and larger lists have more"
TABLES = doubling(16_000, 256_000)

DATA = (
    Axis("prepared rows: open, first batch", "data", doubling(4_000, 256_000, 4), open_prepared,
         make_prepared, because=""),
    Axis("prepared rows: end of an epoch", "data", doubling(4_000, 256_000, 4), resume_prepared,
         make_prepared),
    Axis("rows of an epoch, shuffled", "data", doubling(16_000, 256_000), shuffle),
    Axis("folder of pictures: list", "data", doubling(2_000, 32_000), list_pictures, make_folder),
    Axis("CSV of URLs: list", "data", doubling(64_000, 1_024_000), partial(list_table, name="csv"),
         make_csv),
    Axis("CSV of URLs: read", "data", TABLES, partial(read_table, name="csv"), make_csv),
    Axis("gzipped CSV: read", "data", TABLES, partial(read_table, name="csv"),
         partial(make_csv, zipped=True)),
    Axis("parquet, one row group: read", "data", TABLES, partial(read_table, name="parquet"),
         make_parquet, because="memory is the same from 64,000 to 256,000 rows"),
    Axis("parquet, groups of 100: read", "data", TABLES, partial(read_table, name="parquet"),
         lambda folder, size: make_parquet(folder, size, groups=size // 100)),
    Axis("list of duplicates", "data", TABLES, duplicates,
         lambda folder, size: make_parquet(folder, size, groups=size // 1000), because=PARTITION),
    Axis("prepare: units", "data", doubling(16, 256), prepare_units, make_pictures),
    Axis("prepare again: finished units", "data", doubling(32, 512),
         partial(prepare_units, again=True), make_pictures),
    Axis("studio: units of a dataset", "data", doubling(500, 8_000), totals, make_records),
    Axis("pictures: Fréchet and kernel distances", "data", doubling(1_000, 16_000),
         partial(measure_features, pairs=False), make_features),
    Axis("pictures: precision, recall, CMMD", "data", doubling(500, 8_000),
         partial(measure_features, pairs=True), make_features, because=PAIRS, repeats=1),
)  # fmt: skip
