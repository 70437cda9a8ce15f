"""Engines give the same results, survive single failures, and leave no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import engine_work  # pyrefly: ignore
import psutil
import pytest

from pinxit.config import UsageError
from pinxit.prepare.engines.base import DIED
from pinxit.prepare.engines.choose import get_engine
from pinxit.prepare.engines.local import InlineEngine, LocalEngine
from pinxit.prepare.engines.ranks import RankEngine

ENGINES = [InlineEngine(), LocalEngine(), RankEngine(0, 1)]


def children() -> list[psutil.Process]:
    # Python's resource tracker belongs to the interpreter and stays.
    found = psutil.Process().children(recursive=True)
    return [p for p in found if "resource_tracker" not in " ".join(p.cmdline())]


def wait_until(condition, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_every_unit_once_whatever_the_engine(engine):
    results = list(engine.map(engine_work.square, range(9), workers=2))
    assert sorted((r.unit, r.value) for r in results) == [(i, i * i) for i in range(9)]
    assert not any(r.failed for r in results) and all(r.seconds >= 0 for r in results)
    assert list(engine.map(engine_work.square, [], workers=2)) == []
    assert children() == []


@pytest.mark.parametrize("engine", ENGINES[:2], ids=lambda engine: engine.name)
def test_a_failure_is_a_result_with_its_reason_and_the_run_goes_on(engine):
    results = {r.unit: r for r in engine.map(engine_work.picky, range(6), workers=2)}
    assert [i for i in range(6) if not results[i].failed] == [0, 1, 2, 5]
    assert (results[3].kind, results[3].reason) == ("ValueError", "ValueError: three is")
    assert results[4].reason == "OSError" and "raise OSError" in results[4].trace


def test_work_is_spread_over_processes_that_are_not_this_one(tmp_path):
    work = engine_work.Together(tmp_path)
    pids = {r.value for r in LocalEngine().map(work, range(8), workers=2)}
    assert len(pids) == 2 and os.getpid() not in pids


def test_a_worker_that_dies_is_replaced_and_its_unit_done(tmp_path):
    work = engine_work.Mortal(tmp_path, deadly=(1, 3), times=1)
    results = list(LocalEngine().map(work, range(5), workers=2))
    assert sorted(r.value for r in results) == list(range(5))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_unit_that_kills_every_worker_fails_alone(tmp_path):
    work = engine_work.Mortal(tmp_path, deadly=(1,), times=99)
    results = {r.unit: r for r in LocalEngine().map(work, range(4), workers=1)}
    assert [i for i in results if results[i].failed] == [1]
    assert results[1].kind == DIED and "SIGKILL" in results[1].reason
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("engine", ENGINES[:2], ids=lambda engine: engine.name)
def test_the_function_is_closed_once_per_worker(engine, tmp_path):
    list(engine.map(engine_work.Closing(tmp_path / "log"), range(3), workers=1))
    assert (tmp_path / "log").read_text().split() == ["unit", "unit", "unit", "closed"]


def test_closing_the_iterator_ends_busy_workers(tmp_path):
    work = engine_work.Mortal(tmp_path, deadly=(), times=0)
    results = LocalEngine().map(work, range(1000), workers=2)
    next(results)
    results.close()
    assert children() == []


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    code = f"import engine_work; engine_work.orphan({str(tmp_path)!r})"
    environ = {**os.environ, "PYTHONPATH": f"{Path(engine_work.__file__).parent}:{Path.cwd()}"}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environ)
    assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 60)
    pids = [int(path.name.partition("-")[2]) for path in tmp_path.iterdir()]
    parent.send_signal(signal.SIGKILL)
    parent.wait()

    def alive(pid: int) -> bool:
        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE

    assert wait_until(lambda: not any(alive(pid) for pid in pids))


def test_shares_are_disjoint_complete_and_in_order(monkeypatch):
    units = [f"u{i}" for i in range(10)]
    shares = [RankEngine(rank, 4).share(units) for rank in range(4)]
    assert shares[1] == ["u1", "u5", "u9"]
    assert sorted(unit for share in shares for unit in share) == units
    monkeypatch.setenv("SLURM_PROCID", "2")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert get_engine("rank").share(units) == shares[2]
    assert get_engine("local").share(units) == get_engine("inline").share(units) == units


def test_wrong_settings_are_named(monkeypatch):
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(
        UsageError, match="engine: 'rat' is unknown; valid: local, inline, rank, ray"
    ):
        get_engine("rat")
    with pytest.raises(UsageError, match="rank: none is missing, and SLURM_PROCID is not set"):
        get_engine("rank")
    with pytest.raises(UsageError, match="rank: 4 is impossible; valid: 0 to 3"):
        get_engine("rank", rank=4, world=4)
    with pytest.raises(UsageError, match="address: 'auto' is not used"):
        get_engine("local", address="auto")
    with pytest.raises(UsageError, match="rank: 0 is not used"):
        get_engine("local", rank=0)
    with pytest.raises(UsageError, match="workers: 0"):
        list(LocalEngine().map(engine_work.square, [1], workers=0))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_gives_the_same_and_survives_the_same(ray_engine, tmp_path):
    results = list(ray_engine.map(engine_work.square, range(9), workers=2))
    assert sorted((r.unit, r.value) for r in results) == [(i, i * i) for i in range(9)]
    found = {r.unit: r for r in ray_engine.map(engine_work.picky, range(6), workers=2)}
    assert found[3].reason == "ValueError: three is" and sum(r.failed for r in found.values()) == 2
    once = engine_work.Mortal(tmp_path, deadly=(1,), times=1)
    assert sorted(r.value for r in ray_engine.map(once, range(4), workers=2)) == [0, 1, 2, 3]
    (tmp_path / "always").mkdir()
    always = engine_work.Mortal(tmp_path / "always", deadly=(1,), times=99)
    last = {r.unit: r for r in ray_engine.map(always, range(3), workers=1)}
    assert [i for i in last if last[i].failed] == [1] and last[1].kind == DIED
