"""Units that share a download stay with one worker and with one rank, and none is lost."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinxit.data.row import Unit
from pinxit.prepare.engines.handing_out import HandingOut, runs_of
from pinxit.prepare.engines.ranks import SLACK, RankEngine

RUNS = st.lists(st.integers(1, 12), min_size=1, max_size=20)


def units_in(sizes: list[int], rows: int | None = 10) -> list[Unit]:
    """Runs of these numbers of units."""
    pairs = [(run, part) for run, size in enumerate(sizes) for part in range(size)]
    return [Unit(f"{run:03d}-{part:03d}", "p", part, rows, group=f"g{run}") for run, part in pairs]


def names(waiting: HandingOut, worker: object, count: int) -> list[str]:
    return [waiting.next(worker).id for _ in range(count)]


def test_a_worker_gets_its_run_then_a_new_one_then_half_of_the_longest():
    waiting = HandingOut(units_in([3, 6, 1]))
    assert len(waiting) == 10 and names(waiting, "a", 1) == ["000-000"]
    assert names(waiting, "b", 1) == ["001-000"]
    assert names(waiting, "a", 3) == ["000-001", "000-002", "002-000"]
    assert names(waiting, "a", 2) == ["001-003", "001-004"]  # the later half of five units
    assert names(waiting, "b", 2) == ["001-001", "001-002"]
    assert names(waiting, "b", 1) == ["001-005"] and not waiting and len(waiting) == 0
    with pytest.raises(IndexError):
        waiting.next("a")


def test_units_without_a_group_come_in_their_order():
    waiting = HandingOut(["x", "y", "z"])
    assert [waiting.next(worker) for worker in (1, 2, 1)] == ["x", "y", "z"]
    assert runs_of(["x", "y"]) == [["x"], ["y"]] and runs_of([]) == []


def test_the_run_of_a_dead_worker_comes_first():
    waiting = HandingOut(units_in([3, 2]))
    assert names(waiting, "a", 1) == ["000-000"]
    waiting.leave("a")
    waiting.leave("a")
    assert len(waiting) == 4
    assert names(waiting, "b", 4) == ["000-001", "000-002", "001-000", "001-001"] and not waiting


@settings(deadline=None)
@given(RUNS, st.integers(1, 6), st.integers(0, 1000))
def test_every_unit_once_whatever_the_workers_do(sizes, workers, seed):
    rng, units = random.Random(seed), units_in(sizes)
    waiting, order = HandingOut(units), []
    while waiting:
        assert len(waiting) == len(units) - len(order)
        worker = rng.randrange(workers)
        order.append(waiting.next(worker))
        if rng.random() < 0.1:
            waiting.leave(worker)
    assert Counter(unit.id for unit in order) == Counter(unit.id for unit in units)


@settings(deadline=None)
@given(RUNS, st.integers(1, 9), st.sampled_from([10, None]))
def test_shares_are_whole_balanced_and_cut_few_runs(sizes, world, rows):
    units = units_in(sizes, rows)
    shares = [RankEngine(rank, world).share(units) for rank in range(world)]
    assert sorted(unit.id for share in shares for unit in share) == [unit.id for unit in units]
    assert all([unit.id for unit in share] == sorted(unit.id for unit in share) for share in shares)
    mean = len(units) / world
    if any(unit.group == other.group for unit, other in itertools.pairwise(units)):
        assert all(abs(len(share) - mean) <= max(*sizes, 1) for share in shares)
        assert all(len(share) <= (1 + SLACK) * mean + 1 for share in shares)
    readers = sum(len({unit.group for unit in share}) for share in shares)
    assert readers <= len(sizes) + 2 * world


def test_many_runs_are_never_cut_and_a_larger_limit_moves_few_units():
    units = units_in([50] * 200)
    shares = [RankEngine(rank, 8).share(units) for rank in range(8)]
    assert sum(len({unit.group for unit in share}) for share in shares) == 200
    assert {len(share) for share in shares} == {1250}
    before = {u.id: rank for rank in range(8) for u in RankEngine(rank, 8).share(units[:5000])}
    after = {unit.id: rank for rank, share in enumerate(shares) for unit in share}
    assert sum(after[name] != rank for name, rank in before.items()) <= 8 * 50


def test_one_run_is_cut_into_contiguous_pieces():
    units = units_in([100])
    shares = [RankEngine(rank, 8).share(units) for rank in range(8)]
    assert [unit for share in shares for unit in share] == units
    assert max(map(len, shares)) <= 14
