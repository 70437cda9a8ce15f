"""Several open units in a process: the next begins while stragglers end, and none is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import engine_work  # pyrefly: ignore
import pytest

from pinxit.prepare.engines.assignment import Assignment
from pinxit.prepare.engines.base import DIED, open_units
from pinxit.prepare.engines.local import InlineEngine, LocalEngine

ENGINES = [InlineEngine(), LocalEngine()]
EACH = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
WAITS = {0: (1, 2, 3), 1: (3,)}
"""Unit 0 ends after all others, so that it is open all the time."""


def order(folder: Path) -> list[str]:
    files = [path for path in folder.iterdir() if "-" in path.name]
    return [path.name for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]


def check_stragglers(engine, folder: Path) -> None:
    work = engine_work.Stragglers(folder, WAITS, open_units=3)
    results = list(engine.map(work, range(4), workers=1))
    assert [r.unit for r in results if r.failed] == [] and len(results) == 4
    assert results[-1].unit == 0 and len({r.value for r in results}) == 1
    events = order(folder)
    assert events.index("begun-3") > min(events.index(f"ended-{unit}") for unit in (0, 1, 2))
    assert events.index("begun-3") < events.index("ended-0")


@EACH
def test_a_straggler_does_not_hold_back_the_units_behind_it(engine, tmp_path):
    check_stragglers(engine, tmp_path)


@EACH
def test_units_are_read_one_after_another_and_fail_alone(engine, tmp_path):
    results = {r.unit: r for r in engine.map(engine_work.Ordered(tmp_path), range(9), workers=2)}
    assert {unit: r.reason for unit, r in results.items() if r.failed} == {2: "ValueError: two"}
    assert len(results) == 9


def test_each_worker_gets_a_unit_before_any_gets_a_second_one(tmp_path):
    work = engine_work.Stragglers(tmp_path, {0: (1,), 1: (2, 3)}, open_units=3)
    results = {r.unit: r for r in LocalEngine().map(work, range(4), workers=2)}
    assert not any(r.failed for r in results.values())
    assert results[0].value != results[1].value


def test_a_unit_that_kills_every_worker_fails_alone_whatever_was_open_beside_it(tmp_path):
    work = engine_work.MortalStragglers(tmp_path, {}, open_units=3)
    results = {r.unit: r for r in LocalEngine().map(work, range(3), workers=1)}
    assert [unit for unit, r in results.items() if r.failed] == [0]
    assert results[0].kind == DIED and "SIGKILL" in results[0].reason


def test_closing_the_iterator_ends_open_units(tmp_path):
    work = engine_work.Stragglers(tmp_path, {1: (99,)}, open_units=2)
    results = LocalEngine().map(work, range(9), workers=1)
    next(results)
    results.close()
    assert not (tmp_path / "ended-1").exists()


def test_functions_that_say_nothing_have_one_open_unit():
    assert open_units(engine_work.square) == 1 and open_units(engine_work.Ordered(Path())) == 3


def test_lost_units_are_tried_again_alone():
    started: list[str] = []

    def start() -> str:
        started.append(f"worker {len(started)}")
        return started[-1]

    work = Assignment("abcd", start, workers=1, open_units=2, attempts=2)
    assert list(work.due()) == [("worker 0", 0, "a")]
    work.drained("worker 0", 0)
    assert list(work.due()) == [("worker 0", 1, "b")]
    work.drained("worker 0", 1)
    assert list(work.due()) == [], "two are open"
    assert work.lost("worker 0", "it died") == []
    assert list(work.due()) == [("worker 1", 0, "a")]
    work.drained("worker 1", 0)
    assert list(work.due()) == [], "it is alone"
    assert [r.unit for r in work.lost("worker 1", "it died")] == ["a"]
    assert list(work.due()) == [("worker 2", 1, "b")]
    work.finished("worker 2", 1)
    assert list(work.due()) == [("worker 2", 2, "c")]
    work.drained("worker 2", 2)
    assert list(work.due()) == [("worker 2", 3, "d")]
    for number in (3, 2):
        work.finished("worker 2", number)
    assert work.is_over and work.idle == ["worker 2"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_same_on_ray(ray_engine, tmp_path):
    for name in ("stragglers", "mortal"):
        (tmp_path / name).mkdir()
    sys.path.insert(0, str(Path(engine_work.__file__).parent))
    check_stragglers(ray_engine, tmp_path / "stragglers")
    work = engine_work.MortalStragglers(tmp_path / "mortal", {}, open_units=3)
    results = {r.unit: r for r in ray_engine.map(work, range(3), workers=1)}
    assert [unit for unit, r in results.items() if r.failed] == [0] and results[0].kind == DIED
