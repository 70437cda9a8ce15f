"""All processes take batches of the same sizes, and end after the same one."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinxit.train.input.common_order import (
    AHEAD,
    MESSAGES,
    MOST_AHEAD,
    BatchOrder,
    BatchReport,
    Leader,
    unpack_order,
    unpack_report,
)


def test_a_batch_is_decided_once_all_have_it():
    leader = Leader(2, 10)
    assert leader.note({}) == BatchOrder()
    assert leader.note({0: BatchReport({"a": 3})}) == BatchOrder()
    order = leader.note({0: BatchReport({"a": 3}), 1: BatchReport({"a": 1, "b": 5})})
    assert order.sizes == ("a",) and order.size(0) == "a" and order.size(1) is None
    order = leader.note({0: BatchReport({"a": 3, "b": 4}), 1: BatchReport({"a": 2, "b": 5})})
    assert Counter(order.sizes) == {"a": 2, "b": 4}
    # what all have taken is no longer listed
    order = leader.note(
        {0: BatchReport({"a": 3, "b": 4}, steps=5), 1: BatchReport({"a": 2, "b": 5}, steps=3)}
    )
    assert (order.first, order.stop, order.size(5)) == (3, 6, order.sizes[2])
    assert unpack_order(order.packed()) == order


def test_no_more_batches_are_decided_than_there_are_steps():
    leader = Leader(2, 3)
    order = leader.note({0: BatchReport({"a": 9}), 1: BatchReport({"a": 9})})
    assert order.stop == 3 and leader.decided


@pytest.mark.parametrize(("reason", "ended"), [("no network", "process 1: no network"), ("", "")])
def test_all_end_if_one_ends(reason: str, ended: str):
    leader = Leader(2, 99)
    order = leader.note({0: BatchReport({"a": 2}), 1: BatchReport({"a": 4}, ended=reason)})
    assert (order.stop, order.ended) == (2, ended) and leader.decided
    # nothing is added afterwards, since a process may have seen this order and have ended
    after = leader.note({0: BatchReport({"a": 4}), 1: BatchReport({"a": 4}, ended=reason)})
    assert (after.stop, after.ended) == (2, ended)


def test_a_process_that_ends_before_the_others_report_ends_all():
    assert (
        Leader(3, 99).note({2: BatchReport(ended="no such file")}).ended
        == "process 2: no such file"
    )


def test_more_batches_are_allowed_if_none_have_the_same_size():
    leader, ahead = Leader(2, 99), AHEAD
    while ahead < MOST_AHEAD:
        order = leader.note(
            {0: BatchReport({"a": ahead}, full_at=ahead), 1: BatchReport({"b": ahead})}
        )
        assert order.ahead == ahead and order.ended is None, "process 1 is not full"
        pair = {p: BatchReport({size: ahead}, full_at=ahead) for p, size in enumerate("ab")}
        ahead = leader.note(pair).ahead
        # the processes have not seen it yet
        assert leader.note(pair).ahead == ahead > next(iter(pair.values())).full_at
    order = leader.note({p: BatchReport({s: ahead}, full_at=ahead) for p, s in enumerate("ab")})
    assert order.ended == (
        "the processes have no batch of the same image size among 64 each (process 0: a; process 1:"
        " b)"
    )


def test_messages_of_other_processes_are_said_once():
    said = list[str]()
    leader = Leader(3, 9, said.append)
    report = BatchReport(messages=("waiting", "still waiting"), message_count=2)
    for _ in range(2):
        leader.note({0: report, 1: report})
    later = BatchReport(messages=tuple(map(str, range(MESSAGES))), message_count=MESSAGES + 40)
    leader.note({1: later})
    assert said[:2] == ["process 1: waiting", "process 1: still waiting"]
    assert said[2:] == [f"process 1: {i}" for i in range(MESSAGES)]
    assert unpack_report(later.packed()) == later


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), processes=st.integers(1, 5))
def test_every_process_can_take_what_is_decided(seed: int, processes: int):
    """Reports arrive late; a batch that is in the order is always one that a process has."""
    rng = random.Random(seed)
    leader, batches = Leader(processes, 40), 40
    made = [Counter[str]() for _ in range(processes)]
    taken = [list[str]() for _ in range(processes)]
    reports = dict[int, BatchReport]()
    for _ in range(3_000):
        process = rng.randrange(processes)
        mine = sum(made[process].values()) - len(taken[process])
        order = leader.order
        if mine < order.ahead:
            made[process][rng.choice("aab")] += 1
        if (size := order.size(len(taken[process]))) is not None:
            taken[process].append(size)
            assert Counter(taken[process])[size] <= made[process][size]
        if rng.random() < 0.5:
            full = sum(made[process].values()) - len(taken[process]) >= order.ahead
            reports[process] = BatchReport(
                dict(made[process]), len(taken[process]), order.ahead if full else 0
            )
        leader.note(reports)
        if all(len(sizes) == batches for sizes in taken):
            break
    assert all(sizes == taken[0] and len(sizes) == batches for sizes in taken)
