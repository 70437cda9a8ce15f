"""Rows are dealt to any number of processes: each ends once an epoch, whatever is killed when."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_work import FILTERS, ToySource

from pinxit.config import to_json
from pinxit.train.input.attempt_order import Attempt, Attempts
from pinxit.train.input.image_stream import pack_position, unpack_position
from pinxit.train.input.portions import Dealing, Portion, Position, StreamProgress
from pinxit.train.input.streamed import cut_other_logs, outcome_log, unpack_progress


def stored(position: Position, source: ToySource) -> Position:
    """The position as a checkpoint gives it back."""
    packed = json.loads(json.dumps(pack_position(position, source.revision)))
    return unpack_position(packed, source)


class Worker:
    """One of several processes, which tries rows and ends them in any order."""

    def __init__(self, attempts: Attempts, rng: random.Random) -> None:
        self.attempts, self.order, self.rng = attempts, iter(attempts), rng
        self.trying: list[Attempt] = []
        self.ended: list[Attempt] = []

    def work(self) -> None:
        """Ends a row, of which the process tries up to six."""
        while len(self.trying) < 6:
            self.trying.append(next(self.order))
        self.ended.append(self.trying.pop(self.rng.randrange(6)))

    def settled(self) -> tuple[StreamProgress, list[Attempt]]:
        """What a checkpoint contains."""
        ended, self.ended = self.ended, []
        self.attempts.end(ended)
        self.attempts.filtered.clear()
        return self.attempts.progress(counts={"ok": len(ended)}, logged=7), ended


def named(attempts: list[Attempt], units: int) -> Counter[tuple[int, str]]:
    """The attempts by epoch and key."""
    return Counter((a.portion.start.number // units, a.row.key) for a in attempts)


def rows_of(source: ToySource, excluded: set[str]) -> set[str]:
    """The keys that are tried in an epoch."""
    attempts = Attempts(source, FILTERS, excluded=excluded)
    keys = set[str]()
    for attempt in attempts:
        if attempts.epoch:
            return keys
        keys.add(attempt.row.key)
    return keys


parts = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 4, 7]), st.integers(0, 60), st.booleans()),
    min_size=1,
    max_size=5,
)
"""The commands of a run: the number of processes, the rows that they end, and whether they are
killed after the last checkpoint."""


@settings(max_examples=15, deadline=None)
@given(
    runs=parts,
    sizes=st.sampled_from([(40,), (30, 20, 25), (9, 8, 7, 6, 5, 4, 3, 2, 1)]),
    has_images=st.booleans(),
    seed=st.integers(0, 5),
    uneven=st.booleans(),
)
def test_each_row_ends_once_an_epoch(
    runs: list[tuple[int, int, bool]],
    sizes: tuple[int, ...],
    has_images: bool,
    seed: int,
    uneven: bool,
):
    """Whatever the number of processes, their speed, and the moment at which they are killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prepare_work.picture", lambda number: b"")
        patch.setattr("pinxit.train.input.attempt_order.BLOCK", 8)
        source = ToySource(sizes=sizes, has_images=has_images)
        held_out = {next(iter(Attempts(source, FILTERS, seed=seed))).row.key}
        rng = random.Random(seed)
        position, ended = Position(), Counter[tuple[int, str]]()
        for processes, rows, is_killed in runs:
            workers = [
                Worker(
                    Attempts(
                        source,
                        FILTERS,
                        seed=seed,
                        start=position,
                        excluded=held_out,
                        process=process,
                        processes=processes,
                    ),
                    rng,
                )
                for process in range(processes)
            ]
            for _ in range(rows):
                # one process may be much faster than the others
                chosen = workers[0] if uneven and rng.random() < 0.7 else rng.choice(workers)
                chosen.work()
                if rng.random() < 0.1:
                    position = checkpoint(workers, source, ended)
            if not is_killed:
                position = checkpoint(workers, source, ended)
        assert position.counts == ({"ok": ended.total()} if position.counts else {})
        whole = Attempts(source, FILTERS, seed=seed, start=position, excluded=held_out)
        last = 2 + max((epoch for epoch, _ in ended), default=0)
        rest = list[Attempt]()
        for attempt in whole:
            if whole.epoch > last:
                break
            rest.append(attempt)
    found = ended + named(rest, len(sizes))
    expected = rows_of(source, held_out)
    assert found == Counter({(epoch, key): 1 for epoch in range(last + 1) for key in expected})


def checkpoint(
    workers: list[Worker], source: ToySource, ended: Counter[tuple[int, str]]
) -> Position:
    """The position that all processes store together. Adds what has ended before it."""
    pairs = [worker.settled() for worker in workers]
    for _, attempts in pairs:
        ended.update(named(attempts, len(source.sizes)))
    sent = [unpack_progress(json.dumps(to_json(progress))) for progress, _ in pairs]
    # `counts` counts from the start of the command, unlike the test's
    dealing = workers[0].attempts.dealing
    total = {"ok": ended.total()} if ended else {}
    return replace(stored(dealing.merged(sent), source), counts=total)


def test_processes_share_an_epoch_and_no_row():
    source = ToySource(sizes=(10,) * 8)
    found = list[set[str]]()
    for process in range(3):
        attempts, keys = Attempts(source, FILTERS, process=process, processes=3), set[str]()
        for attempt in attempts:
            if attempts.epoch:
                break
            keys.add(attempt.row.key)
        found.append(keys)
    assert not found[0] & found[1] and not found[0] & found[2] and not found[1] & found[2]
    assert set.union(*found) == rows_of(source, set())
    assert max(map(len, found)) < 2 * min(map(len, found))


def test_a_unit_is_cut_if_there_are_more_processes():
    dealing = Dealing(Position(), 3, processes=7)
    assert dealing.shares == 3
    first = [dealing[index] for index in range(10)]
    assert [(portion.number, portion.share) for portion in first] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 0)
    ]  # fmt: skip
    portion = Portion(5, tried=10, waiting=(3, 4, 8), counted=True)
    again = Dealing(Position((portion,), 6), 1, processes=2)
    assert [again[0].waiting, again[1].waiting] == [(4, 8), (3,)]
    assert (again[0].tried, again[0].counted, again[2].number) == (10, True, 6)


def test_what_one_process_has_not_begun_is_listed():
    dealing = Dealing(Position(counts={"ok": 5}, logged={"0": 1, "3": 30}), 10, processes=2)
    fast = StreamProgress(
        begun_count=3, portions=(Portion(4, tried=2),), counts={"ok": 2}, logged=20
    )
    slow = StreamProgress(begun_count=1, portions=(Portion(1, tried=7, waiting=(2,)),), logged=9)
    position = dealing.merged([fast, slow])
    assert [portion.number for portion in position.portions] == [1, 3, 4] and position.next == 5
    assert position.portions[1] == Portion(3) and position.waiting == 1
    assert position.counts == {"ok": 7} and position.logged == {"0": 20, "1": 9, "3": 30}
    assert dealing.merged([StreamProgress(), StreamProgress()]) == Position((), 0, {"ok": 5}, {
        "0": 0, "1": 0, "3": 30
    })  # fmt: skip


def test_filtered_rows_are_counted_once_over_all_processes():
    for sizes in ((75,), (30, 20, 25)):
        source, total = ToySource(sizes=sizes), Counter[str]()
        one = Attempts(source, FILTERS)
        for _ in one:
            if one.epoch:
                break
        for process in range(4):
            attempts = Attempts(source, FILTERS, process=process, processes=4)
            for _ in attempts:
                if attempts.epoch:
                    break
                total += attempts.filtered
                attempts.filtered.clear()
        # the unit in which each of them stops is of the next epoch
        assert set(total) == set(one.filtered)
        assert sum(total.values()) == 17


def test_a_process_without_rows_goes_on_and_a_set_without_rows_ends():
    one_row = replace(FILTERS, min_words=4, blocked_domains=())
    with pytest.raises(ValueError, match="no row is left to train on"):
        next(iter(Attempts(ToySource(), replace(one_row, min_words=9), process=1, processes=3)))
    few = ToySource(sizes=(3, 0, 0, 0))
    found = [
        next(iter(Attempts(few, FILTERS, process=process, processes=4))) for process in range(4)
    ]
    assert all(attempt.row.key.startswith("00000-000/") for attempt in found)


def test_logs_of_processes_that_are_gone_end_with_the_checkpoint(tmp_path: Path):
    for number in (1, 2, 7):
        outcome_log(tmp_path, number).write_text("0123456789")
    (tmp_path / "outcomes-old.jsonl").write_text("mine")
    cut_other_logs(tmp_path, Position(logged={"0": 9, "1": 2, "2": 4}), 2)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    # process 1 cuts its own
    expected = {"outcomes-1.jsonl": 10, "outcomes-2.jsonl": 4, "outcomes-7.jsonl": 0}
    assert sizes == expected | {"outcomes-old.jsonl": 4}
    assert outcome_log(tmp_path, 0).name == "outcomes.jsonl"
