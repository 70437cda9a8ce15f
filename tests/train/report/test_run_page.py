"""The page of a run: its data, what it shows without scripts, and its script."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pinxit.contact_sheet import cells_of, contact_sheet, save_sheet
from pinxit.train.report.page import STUDIO, RunPage
from pinxit.train.report.page_script import NotJoined, joined
from pinxit.train.report.run_charts import charts_of
from pinxit.train.report.run_view import run_view, summary
from pinxit.train.run_folder import RunFolder

RESULTS: dict[str, Any] = {
    "step": 1500,
    "images": 24_000,
    "train_seconds": 366.0,
    "parameters": 3_840_000,
    "ema": "ema_0.050",
    "validation": {"raw": 0.7, "ema_0.050": 0.6},
    "accuracy": {"prompts/accuracy/mean": 0.812, "prompts/ceiling/mean": 0.99},
    "evaluation": {
        "prompts/accuracy/mean": 0.812,
        "prompts/ceiling/mean": 0.99,
        "validation_loss/raw": 0.7,
        "validation_loss/ema_0.050": 0.6,
        "brightness/mean": 0.25,
        "broken/mean": float("nan"),
    },
    "data": {"rows": {"ok": 90, "http_404": 10}},
    "warnings": [{"kind": "loss_rises", "step": 20, "text": "it rises", "advice": "stop it"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run of 1,500 steps with a sheet, a change and a resume."""
    folder = RunFolder(tmp_path / "demo")
    folder.samples.mkdir(parents=True)
    change = {"step": 40, "updates": 40, "setting": "optimizer.learning_rate", "old": 1, "new": 2}
    config = {"name": "demo", "max_steps": 1500, "batch_size": 16, "changes": [change],
              "optimizer": {"learning_rate": 0.1}}  # fmt: skip
    folder.config.write_text(json.dumps(config))
    (folder.root / "environment.json").write_text(json.dumps({"command": ["pinxit", "train"]}))
    rows = [{"step": s, "loss": 1 / s, "seconds_per_step": 0.5, "loss_by_t": [s, None]}
            for s in range(20, 1501, 20)]  # fmt: skip
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    square = Image.new("RGB", (16, 16), "red")
    sheet = contact_sheet(["a <b>"], {"raw": [[square, square]], "ema_0.05": [[square] * 2]})
    save_sheet(sheet, folder.samples / "step_00000500.png")
    return folder


def data_in(page: str) -> dict[str, Any]:
    """The data inside a page."""
    found = re.search(r'<script type="application/json" id="run-data">(.*?)</script>', page)
    assert found
    return json.loads(found[1])["runs"][0]


def test_the_page_has_all_data_and_shows_figures_without_scripts(folder: RunFolder):
    RunPage(folder).write(finishing=RESULTS)
    page = folder.report.read_text()
    view = data_in(page)
    assert view["state"] == "finished" and view["step"] == 1500 and len(view["axis"]["step"]) == 75
    assert view["curves"]["loss"]["values"][0] == 1 / 20
    assert view["curves"]["loss_by_t/0"]["values"][-1] == 1500
    assert view["axis"]["seconds"][-1] == 750 and view["axis"]["images"][-1] == 24_000
    assert [grid["step"] for grid in view["samples"]] == [500]
    assert view["samples"][0]["src"].startswith("data:image/webp;base64,")
    assert [cell["label"] for cell in view["samples"][0]["cells"]] == ["raw"] * 2 + ["ema_0.05"] * 2
    assert [event["kind"] for event in view["events"]] == ["warning", "change"]
    plain = page[page.index("<noscript>") : page.index("</noscript>")]
    order = ["demo</h1>", "held-out prompt accuracy 0.812", "Warnings", "it rises. Stop it.",
             "Settings that changed during the run", "Held-out prompts", "Validation loss",
             "Outcome of the rows", "the server answered 404", "Command</h2>", "pinxit train",
             "config.json"]  # fmt: skip
    places = [plain.find(words) for words in order]
    assert -1 not in places and places == sorted(places)
    assert "<tr class='best'><td>ema_0.050</td><td>0.6000</td>" in plain.replace('"', "'")
    assert "<h2>Brightness</h2>" in plain and "<td>0.2500</td>" in plain, "an added metric"


def test_no_text_leaves_its_place(folder: RunFolder):
    evil = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>"
    config = json.loads(folder.config.read_text())
    folder.config.write_text(json.dumps({**config, "name": evil, evil: evil}))
    warnings = [{"step": 1, "text": evil, "advice": evil}]
    values = {f"{evil}/mean": 1.0}
    RunPage(folder).write(finishing={**RESULTS, "warnings": warnings, "evaluation": values})
    page = folder.report.read_text()
    assert data_in(page)["name"] == evil and page.count("<script") == 2
    assert "<img" not in page and "<!--" not in page


def test_a_page_is_written_while_the_run_goes_on_and_reads_new_rows_only(folder: RunFolder):
    page = RunPage(folder)
    page.write()
    assert data_in(folder.report.read_text())["step"] == 1500
    with folder.metrics.open("a") as file:
        file.write(json.dumps({"step": 1520, "loss": 0.5}) + "\n")
    page.write(unwritten=[{"step": 1540, "loss": 0.25}])
    view = data_in(folder.report.read_text())
    assert view["curves"]["loss"]["values"][-2:] == [0.5, 0.25]
    assert view["axis"]["seconds"][-3:] == [750, 760, 770], "the pace of the rows before"
    page.write()
    assert data_in(folder.report.read_text())["curves"]["loss"]["values"][-1] == 0.5


def test_damaged_files_leave_out_what_they_have(folder: RunFolder):
    for name in ("environment.json", "results.json", "starts.json"):
        (folder.root / name).write_text('{"a": [')
    (folder.samples / "step_00000600.png").write_bytes(b"no picture")
    folder.metrics.write_text('{"step": 1, "loss": NaN, "x": "text"}\n[]\n{"step": 2, "lo')
    view = run_view(folder)
    assert view["curves"]["loss"]["values"] == [None] and "x" not in view["curves"]
    assert [grid["step"] for grid in view["samples"]] == [500] and view["command"] == ""
    json.dumps(view, allow_nan=False)


@pytest.mark.parametrize(
    "strange",
    [
        {"images": None, "parameters": "many"},
        {"accuracy": ["high"]},
        {"accuracy": {"prompts/accuracy/mean": "high"}},
        {"train_seconds": "long"},
        {"protocol": [1]},
        {"data": [1]},
        {"data": {"rows": {"ok": "all"}}},
        {"data": {"rows": {"of a later version": 3}}},
        {"evaluation": {"a/mean": {}}, "ema": [1]},
        {"warnings": {"step": []}, "validation": 3},
    ],
)
def test_strange_results_leave_out_what_they_have(folder: RunFolder, strange: dict[str, Any]):
    folder.results.write_text(json.dumps({**RESULTS, **strange}))
    view = run_view(folder)
    assert view["state"] == "finished" and len(view["axis"]["step"]) == 75
    json.dumps(view, allow_nan=False)


def test_results_without_figures_are_shown(folder: RunFolder):
    folder.results.write_text('{"step": 1500, "parameters": 5}')
    assert run_view(folder)["summary"] == ""


def test_a_sheet_says_where_its_pictures_are(folder: RunFolder):
    with Image.open(folder.samples / "step_00000500.png") as sheet:
        cells = cells_of(sheet)
        left, top, width, height = cells[3]["box"]
        part = sheet.crop((left, top, left + width, top + height))
    assert len(cells) == 4 and cells[3]["prompt"] == "a <b>" and cells[3]["number"] == 1
    assert part.getcolors() == [(128 * 128, (255, 0, 0))]


def test_values_measured_once_are_in_the_tables_only():
    counts = {"loss": 5, "loss_by_t/0": 5, "loss_by_t/1": 5, "prompts/accuracy/mean": 1,
              "validation_loss/raw": 1, "skipped": 5, "conditioning/gain": 2,
              "conditioning/loss": 2, "own": 3}  # fmt: skip
    charts = charts_of(counts)
    assert [(chart["id"], chart["more"]) for chart in charts] == [
        ("loss", False),
        ("validation_loss", False),
        ("loss_by_t", False),
        ("conditioning", False),
        ("conditioning-1", True),
        ("own", False),
        ("skipped", True),
    ]
    shown = [curve["name"] for chart in charts for curve in chart["curves"]]
    assert sorted(shown) == sorted(set(counts) - {"prompts/accuracy/mean"})


def test_the_script_joins_all_modules_once():
    script = joined(STUDIO / "js" / "runs" / "static_page.js")
    assert script.count("function smoothed(") == 1 and "import " not in script
    assert len(script) < 120_000


@pytest.mark.parametrize("line", ['import x from "./b.js";\n', "export default 1;\n",
                                  'const s = "</script>";\n', 'await import("./b.js");\n',
                                  'import { a } from "./a.js";\n'])  # fmt: skip
def test_modules_of_other_forms_are_refused(tmp_path: Path, line: str):
    (tmp_path / "a.js").write_text(line)
    with pytest.raises(NotJoined):
        joined(tmp_path / "a.js")


def test_the_summary_has_the_main_figures():
    text = summary(RESULTS)
    for words in ("1500 steps", "24000 images", "6.1 minutes of training", "3.84 M parameters",
                  "accuracy 0.812"):  # fmt: skip
        assert words in text


def test_the_lowest_loss_is_named_only_if_losses_were_measured():
    assert "images from ema_0.050 (lowest validation loss)" in summary(RESULTS)
    assert "images from ema_0.050." in summary({**RESULTS, "validation": {}, "accuracy": {}})
