"""Sides run alone and in turns, and their medians are taken per task; a failed side is named."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from process_turns import (
    FIGURES,
    by_task,
    forget_peak,
    measure,
    medians,
    new_cache,
    peak_memory,
    peaks_while_compiling,
    print_table,
    run_side,
    take_turns,
)

RECORD = """
import json, sys, pathlib
log = pathlib.Path(sys.argv[1]); side = sys.argv[2]
log.open("a").write(side + "\\n")
turn = log.read_text().splitlines().count(side)
print("a line that is no answer")
figures = dict(zip(("wall", "cpu", "peak", "running"), json.loads(sys.argv[2 + turn])))
print(json.dumps({"tasks": {"draw": figures}}))
"""
QUIET = {"environment": dict(os.environ), "say": lambda line: None}


def stand_in(log: Path, side: str, *turns: list[float]) -> list[str]:
    """A command that notes its turn, and answers with the figures of that turn."""
    return [sys.executable, "-c", RECORD, str(log), side, *map(json.dumps, turns)]


def test_sides_take_turns_and_medians_are_per_figure(tmp_path):
    log = tmp_path / "log"
    commands = {
        "ours": stand_in(log, "ours", [1, 9, 5, 4], [3, 7, 6, 4], [2, 8, 100, 4]),
        "torch": stand_in(log, "torch", [4, 4, 4, 4], [6, 4, 4, 4], [500, 4, 4, 4]),
    }
    answers = take_turns(commands, rounds=3, **QUIET)
    assert log.read_text().split() == ["ours", "torch"] * 3
    assert medians(answers["ours"]) == {
        "tasks": {"draw": {"wall": 2, "cpu": 8, "peak": 6, "running": 4}},
        "rounds": 3,
    }
    assert medians(answers["torch"])["tasks"]["draw"]["wall"] == 6


def test_the_peak_while_compiling_comes_before_the_turns_with_a_new_cache(tmp_path):
    ours = (
        "import json, os, pathlib; cache = pathlib.Path(os.environ['JAX_COMPILATION_CACHE_DIR']); "
        "new = not cache.exists(); cache.mkdir(exist_ok=True); "
        "figures = dict(wall=1, cpu=1, running=1, peak=3 if new else 2); "
        "print(json.dumps({'tasks': {'draw': figures}}))"
    )
    commands = {"ours": [sys.executable, "-c", ours]}
    environment = new_cache({**os.environ, "JAX_COMPILATION_CACHE_DIR": "old"}, tmp_path)
    lines: list[str] = []
    peaks = peaks_while_compiling(commands, "ours", environment, say=lines.append)
    assert peaks == {"ours": {"draw": 3}} and lines == ["  compiling: draw 3 MiB"]
    assert peaks_while_compiling({}, "ours", environment) == {}
    answers = take_turns(commands, rounds=1, environment=environment, say=lines.append)
    tasks = by_task({"ours": medians(answers["ours"])}, compiling=peaks)
    assert tasks["draw"]["ours"] == {"wall": 1, "cpu": 1, "peak": 2, "running": 1, "compiling": 3}


def test_a_failed_side_is_named_and_the_others_go_on(tmp_path):
    log = tmp_path / "log"
    script = f"open({str(log)!r}, 'a').write('bad\\n'); raise ValueError('no such network')"
    commands = {
        "bad": [sys.executable, "-c", script],
        "ours": stand_in(log, "ours", [1] * 4, [1] * 4),
    }
    lines: list[str] = []
    answers = take_turns(commands, rounds=2, environment=dict(os.environ), say=lines.append)
    assert log.read_text().split() == ["bad", "ours", "ours"], "a failed side has no more turns"
    assert medians(answers["bad"]) == {"failure": "ValueError: no such network"}
    assert medians(answers["ours"])["rounds"] == 2
    assert "bad, round 1 of 2: failed: ValueError: no such network" in lines[0]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import time; time.sleep(60)", "it took more than 0.3 seconds"),
        ("import os; os.kill(os.getpid(), 9)", "it was ended by signal 9"),
        ("raise SystemExit(3)", "exit code 3"),
        ("print('words')", "its last line is not JSON"),
        ("pass", "its last line is not JSON"),
    ],
)
def test_each_way_to_fail_has_its_reason(script, reason):
    limit = 0.3 if "sleep" in script else 60
    answer = run_side([sys.executable, "-c", script], os.environ, limit)
    assert answer == {"failure": reason}


def test_calls_are_measured_after_those_that_warm():
    calls: list[int] = []
    figures = measure(lambda: calls.append(1), seconds=0, least=4, warming=2)
    assert len(calls) == 6 and figures["calls"] == 4
    assert set(FIGURES) < set(figures) and figures["wall"] >= 0
    assert figures["peak"] >= figures["running"] > 1


def test_the_peak_is_seen_and_forgotten():
    before = peak_memory()
    block = bytearray(200 << 20)
    assert peak_memory() - before > 100
    del block
    forget_peak()
    assert peak_memory() < before + 100


def test_figures_are_regrouped_by_task():
    one = dict.fromkeys(FIGURES, 1.0)
    sides = {
        "ours": {"tasks": {"train": one, "draw": one}, "rounds": 1},
        "torch": {"tasks": {"train": one}, "rounds": 1},
        "compiled": {"failure": "why"},
    }
    tasks = by_task(sides, ["encode"])
    assert set(tasks) == {"encode", "train", "draw"}
    assert tasks["draw"] == {"ours": one, "compiled": {"failure": "why"}}
    assert tasks["train"] == {"ours": one, "torch": one, "compiled": {"failure": "why"}}
    assert tasks["encode"] == {"compiled": {"failure": "why"}}


def test_the_printed_table_has_ratios_and_failures(capsys):
    mine, other = dict.fromkeys(FIGURES, 2.0), dict.fromkeys(FIGURES, 3.0)
    print_table({"train": {"ours": mine, "torch": other, "compiled": {"failure": "why"}}}, "ours")
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == "| train | torch | 3.0000 | 3.0000 | 3 | 3 | 1.50, 1.50, 1.50, 1.50 |"
    assert lines[4].startswith("| train | compiled | failed: why |")
    assert len({line.count("|") for line in lines}) == 1
