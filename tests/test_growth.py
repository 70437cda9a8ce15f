"""Work does not grow with everything that is there already: files, listings and rows are counted.

`benchmarks/growth.py` measures the same in seconds.
"""

from __future__ import annotations

import gzip
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pinxit.data.images.image_config import ImageConfig
from pinxit.data.sources.catalogue import open_source
from pinxit.data.sources.tables import open_tables, text_stream
from pinxit.picture_files import save_picture
from pinxit.prepare import images
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.images import ImageStage
from pinxit.prepare.ledger import Ledger, UnitRecord
from pinxit.prepare.stages import run_images
from pinxit.prepare.unreachable_share import SAMPLE, UsualCounts
from pinxit.serve.gallery.folder import Gallery
from pinxit.serve.runs.run_listing import NoSuchRun, RunListing
from pinxit.serve.runs.trainings import Trainings
from pinxit.train.report.run_rows import MOST_POINTS, RunRows
from pinxit.train.report.run_samples import MOST_EMBEDDED, EmbeddedGrids, grid_file, grids
from pinxit.train.report.thinned_rows import MOST_PROFILES, ThinnedRows
from pinxit.train.run_folder import RunFolder

RECIPE = {
    "prompt": "a house",
    "negative_prompt": "",
    "seed": 1,
    "size": [8, 8],
    "model": "tiny",
    "model_hash": "0",
    "version": "0",
    "steps": 4,
    "guidance_scale": 2.0,
    "solver": "euler",
}


def picture(seed: int = 0) -> Image.Image:
    return Image.new("RGB", (8, 8), (seed % 256, 0, 0))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], Counter[str]]:
    """Returns a function that counts the calls of a function from now on."""
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str) -> Counter[str]:
        original = getattr(owner, name)

        def counting(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(owner, name, counting)
        return counts

    return count


def settle(folder: Path) -> None:
    """Makes a folder look as if it had not changed for a while."""
    os.utime(folder, (1, 1))


# --- folders ----------------------------------------------------------------------------------


def test_pictures_are_stored_without_listing_the_others(tmp_path: Path, calls):
    counts = calls(os, "scandir")
    for seed in range(20):
        save_picture(tmp_path, picture(), {**RECIPE, "seed": seed})
    assert counts["scandir"] <= 1
    (tmp_path / "00777-0-of-another-program.png").touch()
    assert save_picture(tmp_path, picture(), RECIPE).name.startswith("00778-")
    assert counts["scandir"] <= 2
    assert save_picture(tmp_path, picture(), RECIPE, number=5).name.startswith("00779-"), "taken"
    assert save_picture(tmp_path, picture(), RECIPE, number=100).name.startswith("00100-")
    (tmp_path / "00779-1-a-house.png").unlink()
    assert save_picture(tmp_path, picture(), RECIPE).name.startswith("00779-"), "listed again"


def test_a_picture_is_found_without_listing_the_others(tmp_path: Path, calls):
    gallery = Gallery(tmp_path)
    names = [save_picture(tmp_path, picture(), {**RECIPE, "seed": i}).name for i in range(20)]
    gallery.entries()
    counts = calls(os, "scandir")
    assert [gallery.entry(name).name for name in names] == names, "the folder has just changed"
    assert counts["scandir"] == 0
    settle(tmp_path)
    gallery.entries()
    assert counts["scandir"] == 1
    pages, before = 0, None
    while before != "end":
        entries, more = gallery.page(3, before=before)
        before, pages = entries[-1].name if more else "end", pages + 1
    assert pages == 7 and gallery.state == gallery.state and counts["scandir"] == 1


def test_a_run_is_found_without_listing_the_others(tmp_path: Path, calls):
    for number in range(20):
        (tmp_path / f"run-{number}").mkdir()
        (tmp_path / f"run-{number}" / "config.json").write_text('{"max_steps": 3}')
    settle(tmp_path)
    listing = RunListing(tmp_path, Trainings(tmp_path, 1))
    counts = calls(os, "scandir")
    assert len({listing.find(f"run-{number}").root for number in range(20)}) == 20
    assert counts["scandir"] == 1
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text('{"max_steps": 3}')
    assert listing.find("new").root.name == "new"
    for name in ("", ".", "..", "run-0/../run-1", "none"):
        with pytest.raises(NoSuchRun):
            listing.find(name)


def test_grids_are_listed_without_looking_at_each(tmp_path: Path, calls):
    folder = RunFolder(tmp_path)
    folder.samples.mkdir()
    for number in range(20):
        (folder.samples / f"step_{number:08d}.png").touch()
    (folder.samples / "step_00000099.png").symlink_to(folder.samples / "step_00000001.png")
    counts = calls(Path, "stat")
    assert [step for step, _ in grids(folder)] == list(range(20))
    assert counts["stat"] <= 4
    listings = calls(os, "scandir")
    assert grid_file(folder, "step_00000003.png") == folder.samples / "step_00000003.png"
    for name in ("step_00000099.png", "../config.json", "final.png", "x.png"):
        assert grid_file(folder, name) is None
    assert listings["scandir"] == 0


# --- preparing --------------------------------------------------------------------------------


def test_a_unit_is_compared_with_others_without_listing_all(tmp_path: Path, calls):
    ledger = Ledger(tmp_path, "images")
    for number in range(SAMPLE + 6):
        ledger.commit(UnitRecord(f"{number:05d}", {}, {"ok": 9, "dns": 1}))
    counts = calls(Ledger, "units")
    usual = UsualCounts()
    for number in range(20):
        others = usual.without(f"{number:05d}", ledger)
        assert others.total() == 10 * (SAMPLE - 1)
    assert counts["units"] == 1


def test_units_of_pictures_look_for_no_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "in").mkdir()
    for number in range(3):
        noise = Image.effect_noise((16, 16), 60).convert("RGB")
        noise.save(tmp_path / "in" / f"{number}.png")
        (tmp_path / "in" / f"{number}.txt").write_text(f"number {number}")
    monkeypatch.setattr(images, "known_hosts", lambda ledger: pytest.fail("hosts were looked for"))
    source = open_source("folder", path=str(tmp_path / "in"), unit_rows=1)
    stage = ImageStage(source, tmp_path / "out", image=ImageConfig(size=16))
    assert run_images(stage, InlineEngine()).done == 3


# --- tables -----------------------------------------------------------------------------------


@pytest.fixture(params=["csv", "csv.gz", "parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A table of 100 rows in one of the forms."""
    path = tmp_path / f"rows.{request.param}"
    write_table(path, "old")
    return path


def write_table(path: Path, mark: str) -> None:
    rows = [(f"http://a/{i}", f"{mark} {i}") for i in range(100)]
    if path.suffix == ".parquet":
        urls, captions = zip(*rows, strict=True)
        pq.write_table(pa.table({"url": urls, "caption": captions}), path)
        return
    text = "url,caption\n" + "".join(f"{url},{caption}\n" for url, caption in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def test_units_in_order_read_a_table_once(table: Path, calls):
    form = "parquet" if table.suffix == ".parquet" else "csv"
    source = open_source(form, path=str(table), unit_rows=7)
    units = source.units()
    kept = calls(open_tables.LastOpened, "_keep")
    owner, name = (text_stream, "open_lines") if form == "csv" else (pq.ParquetFile, "iter_batches")
    begun = calls(owner, name)
    captions = [row.caption for unit in units for row in source.read(unit)]
    assert captions == [f"old {i}" for i in range(100)]
    assert kept["_keep"] == len(units) == 15
    assert begun[name] == 1


def test_units_in_any_order_and_of_a_changed_table_are_right(table: Path):
    form = "parquet" if table.suffix == ".parquet" else "csv"
    source = open_source(form, path=str(table), unit_rows=7)
    units = source.units()
    for seed in range(3):
        for unit in random.Random(seed).sample(units, len(units)):
            begun = source.read(unit)
            first = next(begun)
            begun.close()  # a reader that has enough of the rows
            numbers = [int(row.key[-8:]) for row in source.read(unit)]
            assert numbers[0] == int(first.key[-8:])
            again = [row.caption for row in source.read(unit)]
            assert again == [f"old {number}" for number in numbers]
    list(source.read(units[0]))
    write_table(table, "new")
    os.utime(table, (1, 1))
    assert next(iter(source.read(units[1]))).caption.startswith("new ")


# --- the page of a run ------------------------------------------------------------------------


def rows_of(count: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    return [
        {"step": 10 * n, "loss": rng.random(), "seconds_per_step": 0.5, "loss_by_t": [n, None]}
        | ({"validation_loss/raw": rng.random()} if n % 50 == 0 else {})
        for n in range(1, count + 1)
    ]


def shown(rows: RunRows | ThinnedRows) -> Any:
    return (rows.curves(), rows.profiles(), rows.measured(), rows.steps_by_name, rows.newest,
            rows.latest("loss"), rows.latest("missing"))  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 5, 200])
def test_short_runs_are_shown_exactly(count: int):
    every, thinned = RunRows(8), ThinnedRows(8)
    every.add(rows_of(count))
    thinned.add(rows_of(count))
    assert shown(every) == shown(thinned)


def test_a_page_keeps_few_values_and_the_same_ones_however_often_it_is_written():
    rows = rows_of(30_000)
    once, often = ThinnedRows(8), ThinnedRows(8)
    once.add(rows)
    for start in range(0, len(rows), 2100):
        often.add(rows[start : start + 2100])
        often.copied().add(rows[:3])
        often.curves()
    assert once.curves() == often.curves() and shown(once) == shown(often)
    curve = often.by_name["loss"]
    assert curve.count == 30_000 and len(curve.points) <= MOST_POINTS
    assert len(often._profiles) <= 2 * MOST_PROFILES + 1
    values = often.curves()["curves"]["loss"]["values"]
    losses = [row["loss"] for row in rows]
    assert (values[0], values[-1]) == (losses[0], losses[-1])
    assert (min(values), max(values)) == (min(losses), max(losses))
    assert len(often.curves()["curves"]["validation_loss/raw"]["values"]) == 600, "all of them"


def test_grids_are_converted_once_or_twice_and_few_stay_in_memory(tmp_path: Path, calls):
    folder = RunFolder(tmp_path)
    folder.samples.mkdir()
    embedded = EmbeddedGrids()
    counts = calls(EmbeddedGrids, "_described")
    for number in range(200):
        picture(number).save(folder.samples / f"step_{number:08d}.png")
        listed = embedded.all(grids(folder))
        steps = [grid["step"] for grid in listed]
        assert steps[0] == 0 and steps[-1] == number and len(steps) <= MOST_EMBEDDED
        assert len(embedded._known) == len(listed)
    assert steps == [*range(0, 200, 8), 199]
    assert counts["_described"] <= 2 * 200
    fresh = EmbeddedGrids().all(grids(folder))
    assert [grid["step"] for grid in fresh] == steps
