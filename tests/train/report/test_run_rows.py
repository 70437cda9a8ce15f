"""Rows of metrics as curves, and the reader that follows their file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinxit.train.report.metrics_tail import MetricsTail
from pinxit.train.report.run_rows import RunRows, flat, thinned


@given(st.lists(st.none() | st.floats(-1e9, 1e9), min_size=1, max_size=400), st.integers(6, 60))
def test_thinning_keeps_the_ends_and_the_extremes(values, most):
    kept = thinned(range(len(values)), values, most)
    assert len(kept) <= most or len(values) <= most
    assert kept == sorted(set(kept)) and kept[0] == 0 and kept[-1] == len(values) - 1
    known = [value for value in values if value is not None]
    if known:
        shown = [values[i] for i in kept if values[i] is not None]
        assert min(known) in shown and max(known) in shown


def test_time_has_no_pauses_and_ranges_are_exact():
    rows = RunRows(8)
    rows.add({"step": s, "loss": s, "seconds_per_step": 2.0} for s in range(10, 50_001, 10))
    rows.add([{"step": 50_000, "validation_loss/raw": 1.0}])
    assert rows.rows[-1]["seconds"] == 100_000 == rows.rows[-2]["seconds"]
    assert rows.rows[-1]["images"] == 400_000
    whole = rows.curves()
    assert len(whole["curves"]["loss"]["at"]) <= 2_000 and whole["thinned"]
    part = rows.curves(start=1_000, end=2_000)
    assert part["curves"]["loss"]["values"] == list(range(1_000, 2_001, 10))
    assert not part["thinned"] and list(part["curves"]) == ["loss", "seconds_per_step"]


def test_only_finite_numbers_are_values():
    row = {"step": 3, "a": float("inf"), "b": True, "c": "x", "d": [1, float("nan")], "e": 10**400}
    assert flat(row) == {"a": None, "b": None, "d/0": 1, "d/1": None, "e": None}


def lines(*steps: int) -> str:
    return "".join(json.dumps({"step": step}) + "\n" for step in steps)


def test_the_tail_follows_growth_halves_truncation_and_replacement(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)

    def steps() -> tuple[bool, list[int]]:
        again, rows = tail.read()
        return again, [row["step"] for row in rows]

    assert steps() == (False, [])
    path.write_text(lines(1, 2) + '{"step": 3')
    assert steps() == (False, [1, 2])
    with path.open("a") as file:
        file.write(', "loss": 1}\n{"no": "row"}\n\x00\n' + lines(4))
    assert steps() == (False, [3, 4]) and steps() == (False, [])
    path.write_text(lines(1))
    assert steps() == (True, [1]), "truncated in place"
    replaced = tmp_path / "new"
    replaced.write_text(lines(1, 7, 8))
    os.replace(replaced, path)
    assert steps() == (True, [1, 7, 8]), "replaced"
    path.write_text(lines(9, 9, 9, 9, 9))
    assert steps() == (True, [9] * 5), "written anew, longer than before"
    path.unlink()
    assert steps() == (True, []) and steps() == (False, [])


def test_the_tail_follows_no_link(tmp_path: Path):
    (tmp_path / "secret").write_text(lines(1))
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "secret")
    assert MetricsTail(tmp_path / "metrics.jsonl").read() == (False, [])


def test_a_line_without_an_end_does_not_stay_in_memory(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("pinxit.train.report.metrics_tail.LONGEST_LINE", 100)
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    path.write_text("x" * 200)
    assert tail.read() == (False, [])
    with path.open("a") as file:
        file.write("x\n" + lines(5))
    assert [row["step"] for row in tail.read()[1]] == [5]


@pytest.mark.parametrize("text", ["[" * 100_000 + "\n", "\xff\xfe\n", '{"step": -1}\n'])
def test_damaged_lines_are_skipped(tmp_path: Path, text: str):
    (tmp_path / "m").write_text(text + lines(2))
    assert [row["step"] for row in MetricsTail(tmp_path / "m").read()[1]] == [2]
