"""The table of speed: its form, what is stored between parts, the page and the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import speed_table
from PIL import Image
from speed_picture import draw, ratios
from speed_table import BEGIN, END, HERE, NAMES, PAGE, ROWS, Row, lines_of, measure_rows, table

KNOWN = {"model": "AMD EPYC", "cores": 2, "instructions": ["AVX2", "AVX-512"]}
KEY = speed_table.key_of(KNOWN, {"jax": "0.10.2", "torch": "2.13.0"})


def side(wall: float, cpu: float = 2.0, peak: float = 100.0) -> dict[str, float]:
    """Figures of a side."""
    return {"wall": wall, "cpu": cpu, "peak": 7 * peak, "running": peak}


def result(**changes: Any) -> dict[str, Any]:
    """A result of a training row."""
    tasks = {
        "sampling": {"pinxit": side(2.5), "torch eager": side(5.0), "torch compiled": side(3.0)},
        "training step": {
            "pinxit": {**side(0.1), "compiling": 123.4},
            "torch eager": side(0.15, cpu=3.0, peak=50.0),
            "torch compiled": {"failure": "no compiler"},
        },
    }
    limits = {"cores": 0.08, "own": {"jax": 0.09}}
    whole = {"tasks": tasks, "about": "tiny, batch 16", "processor": KNOWN, "limits": limits}
    return {**whole, "date": "2026-11-29", **changes}


def test_a_row_has_a_line_for_each_task():
    sampling, training = lines_of(result())
    assert sampling == (
        "| sampling: tiny, batch 16 | 2.5 s | 2.00 | 1.20 | 1.00 | 1.00 | 1.00 | 1.00 | 100 |  |  |"
    )
    assert training == (
        "| training step: tiny, batch 16 | 100 ms | 1.50 | failed | 1.50 | failed | 0.50 | failed "
        "| 100 | 123 | 80% |"
    )


def test_a_capped_row_says_so():
    capped = result(processor={**KNOWN, "instructions": ["AVX2"]})
    assert "tiny, batch 16, AVX2 only |" in lines_of(capped)[0]


def test_our_own_failure_leaves_the_line():
    tasks = {"sampling": {"pinxit": {"failure": "out of memory"}, "torch eager": side(1.0)}}
    (line,) = lines_of(result(tasks=tasks))
    assert line.startswith("| sampling: tiny, batch 16 | failed |  |")


def test_the_table_names_processor_date_failures_and_missing_rows():
    lines = table({KEY: {"tiny": result(), "small": result(date="2026-12-01")}})
    text = "\n".join(lines)
    assert lines[0] == (
        "**AMD EPYC, 2 cores, AVX2, AVX-512; jax 0.10.2, torch 2.13.0**; "
        "measured 2026-11-29 to 2026-12-01"
    )
    cells = [line.count("|") for line in lines if line.startswith("|")]
    assert len(cells) == 2 + 4 and len(set(cells)) == 1
    assert "- training step, torch compiled: no compiler" in text
    assert "Not measured here: base, pixels" in text
    assert table({}) == []


def test_results_are_kept_between_parts(tmp_path, monkeypatch):
    script = tmp_path / "stand_in.py"
    script.write_text(
        "import json, sys\n"
        "assert sys.argv[1] == 'good', 'no such row'\n"
        f"open(sys.argv[3], 'w').write(json.dumps({result()!r}))\n"
    )
    monkeypatch.setattr(speed_table, "HERE", tmp_path)
    path = tmp_path / "results.json"
    measure_rows([Row("tiny", "stand_in.py", ("good",), 1.0)], path, KEY)
    measure_rows([Row("small", "stand_in.py", ("bad",), 1.0)], path, KEY)
    measure_rows([Row("base", "stand_in.py", ("good",), 1.0)], path, "another machine")
    stored = json.loads(path.read_text())
    assert {key: set(rows) for key, rows in stored.items()} == {
        KEY: {"tiny"},
        "another machine": {"base"},
    }
    assert stored[KEY]["tiny"]["tasks"] == result()["tasks"]
    assert not list(tmp_path.glob("*.partial"))


def test_the_page_and_the_picture_are_written(tmp_path, monkeypatch, capsys):
    page = tmp_path / "speed.md"
    page.write_text(f"before\n{BEGIN}old\n{END}\nafter\n")
    results = tmp_path / "results.json"
    results.write_text(json.dumps({KEY: {"tiny": result()}}))
    monkeypatch.setattr(speed_table, "PAGE", page)
    monkeypatch.setattr(speed_table, "PICTURE", tmp_path / "speed.png")
    monkeypatch.setattr(
        "sys.argv", ["speed_table.py", "--only", "none", "--write", "--results", str(results)]
    )
    speed_table.main()
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| training step: tiny, batch 16 | 100 ms |" in text
    assert capsys.readouterr().out.startswith("**AMD EPYC")
    with Image.open(tmp_path / "speed.png") as picture:
        shown = json.loads(picture.text["Description"])
    assert shown == [[KEY, [list(pair) for pair in ratios({"tiny": result()}, NAMES)]]]


def test_the_picture_skips_what_has_no_ratio(tmp_path):
    failed = {"sampling": {"pinxit": {"failure": "x"}, "torch eager": side(1.0)}}
    rows = {"tiny": result(), "small": result(tasks=failed)}
    (part,) = draw({KEY: rows, "no figures": {}}, NAMES, tmp_path / "speed.png")
    assert [label for label, _ in part[1]] == ["tiny: sampling", "tiny: training step"]
    assert part[1][1][1] == {"eager": pytest.approx(1.5)}


def test_the_name_of_a_processor_is_not_cut_off(tmp_path):
    sets = ["AVX2", "AVX-512", "AVX512-BF16", "AMX"]
    known = KNOWN | {"model": "Intel(R) Xeon(R) Processor", "instructions": sets}
    key = speed_table.key_of(known, {"jax": "0.10.2", "torch": "2.13.0+cpu"})
    tasks = {"image to image, 12 of 20 steps": result()["tasks"]["sampling"]}
    draw({key: {"pictures-small": result(tasks=tasks)}}, NAMES, tmp_path / "speed.png")
    with Image.open(tmp_path / "speed.png") as picture:
        grey = picture.convert("L")
    margins = [(0, 0, 3, grey.height), (grey.width - 3, 0, grey.width, grey.height)]
    assert all(grey.crop(box).getextrema() == (255, 255) for box in margins)


def test_every_row_calls_a_script_that_exists_and_the_page_names_it():
    text = PAGE.read_text()
    for row in ROWS:
        assert (HERE / row.script).is_file() and f"`{row.name}`" in text
    assert len(set(NAMES)) == len(ROWS)
    assert BEGIN in text and END in text
    assert sum(row.minutes for row in ROWS) < 32


def test_all_words_of_rows_are_options(monkeypatch):
    """Each script accepts the words of its rows, which a run of half an hour would find late."""
    import importlib

    for row in ROWS:
        monkeypatch.setattr("sys.argv", [row.script, *row.words])
        module = importlib.import_module(Path(row.script).stem)
        assert module.arguments().side is None
