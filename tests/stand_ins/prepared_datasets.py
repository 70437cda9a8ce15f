"""A folder of prepared datasets for the tests of the studio: finished, running, damaged ones."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prepare_work as work
import prepared_toys as toys

from pinxit.data.row import Row, Unit
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.report import write_preparation_report
from pinxit.prepare.stages import run_images

SCRIPT = "<script>window.hacked=1</script><img src=x onerror=window.hacked=2>"
LONG = "very " * 40_000
COMMAND = ("pinxit", "prepare", "toy", "--out", SCRIPT)
SIZES = (40, 30, 50)


class StrangeSource(work.ToySource):
    """The toy source with captions, addresses and scores from strangers."""

    def read(self, unit: Unit) -> Iterator[Row]:
        for row in super().read(unit):
            number = int((row.url or "").rpartition("/")[2])
            caption = row.caption
            if number == 5:
                caption = f"{SCRIPT} caption"
            if number == 9:
                caption = LONG
            url = f"javascript:alert(1)//x/good/{number}" if number == 1 else row.url
            scores = {**row.scores, "aesthetic": 4.0 + number % 10 / 5}
            yield dataclasses.replace(row, caption=caption, url=url, scores=scores)


def make_datasets(root: Path) -> Path:
    """Makes datasets called web, running, damaged and evil below ``root/data``, and a run."""
    data = root / "data"
    web = data / "web"
    stage = work.stage(web, source=StrangeSource(SIZES), web=work.ToyWeb(), previews=3)
    assert run_images(stage, InlineEngine()).exit_code == 0
    write_preparation_report(web, command=COMMAND)
    shutil.copytree(web, data / "running")
    (data / "running" / "manifest.json").unlink()
    shutil.copytree(web, data / "damaged")
    damage(data / "damaged")
    shutil.copytree(web, data / "evil")
    lie(data / "evil", {"images": "../../secret.txt"})
    (data / "secret.txt").write_text("secret")
    (data / "broken").mkdir()
    (data / "broken" / "images.json").write_text("{")
    run = root / "runs" / "first"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"dataset_path": str(web)}))
    return data


def damage(root: Path) -> None:
    """Cuts the images of the first unit and the outcomes of the second, and damages a record."""
    first, second, third = sorted(path.stem for path in (root / "outcomes").glob("*.parquet"))
    (root / "images" / f"{first}.array_record").write_bytes(b"cut")
    path = root / "outcomes" / f"{second}.parquet"
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    toys.rewrite_records(
        root, lambda record: json.dumps(record)[: -1 if record["unit"] == third else None]
    )


def lie(root: Path, names: dict[str, str]) -> None:
    """Changes the names of files in the records, as a stranger could."""

    def changed(record: dict[str, Any]) -> str:
        for folder, name in names.items():
            record["files"][folder]["name"] = name
        return json.dumps(record)

    toys.rewrite_records(root, changed)


def add_unit(root: Path, source: Path) -> None:
    """Adds the last unit of the dataset `source` under another name, as a worker would."""
    ledger, other = Ledger(root, "images"), Ledger(source, "images")
    record = other.records()[-1]
    unit = "09999-000"
    files = {}
    for folder, info in record.files.items():
        path = ledger.path(folder, unit)
        shutil.copyfile(source / folder / info.name, path)
        files[folder] = dataclasses.replace(info, name=path.name)
    ledger.commit(dataclasses.replace(record, unit=unit, files=files))
