"""The order of attempts: the same for the same seed, and no row lost or tried twice over kills."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from prepare_work import FILTERS, ToySource

from pinxit.config import UsageError
from pinxit.data.row import Row, Unit
from pinxit.train.input.attempt_order import BLOCK, TRIES, Attempt, Attempts
from pinxit.train.input.image_stream import pack_position, unpack_position
from pinxit.train.input.portions import Portion, Position


def first(attempts: Attempts, count: int) -> list[Attempt]:
    return list(itertools.islice(attempts, count))


def keys(attempts: list[Attempt]) -> list[str]:
    return [attempt.row.key for attempt in attempts]


def stored(position: Position) -> Position:
    """The position as a checkpoint gives it back."""
    source = ToySource()
    return unpack_position(json.loads(json.dumps(pack_position(position, source.revision))), source)


KEPT = 58
"""Rows of the toys that pass the filters: of 75, 11 have a watermark and 6 others one word."""


def test_the_order_follows_from_the_seed_and_the_epoch():
    one, two = (keys(first(Attempts(ToySource(), FILTERS, seed=3), 200)) for _ in range(2))
    assert one == two
    assert one != keys(first(Attempts(ToySource(), FILTERS, seed=4), 200))
    per_epoch = len(set(one))
    assert per_epoch == KEPT
    epochs = [one[i : i + per_epoch] for i in range(0, 2 * per_epoch, per_epoch)]
    assert set(epochs[0]) == set(epochs[1]) and epochs[0] != epochs[1]
    units = [key.partition("/")[0] for key in epochs[0]]
    assert [unit for unit, _ in itertools.groupby(units)] == list(dict.fromkeys(units))
    assert epochs[0] != sorted(epochs[0])


@pytest.mark.parametrize("has_images", [False, True])
def test_rows_that_bear_images_are_shuffled_in_blocks(has_images: bool):
    source = ToySource(sizes=(2 * BLOCK,), has_images=has_images)
    one = keys(first(Attempts(source, replace(FILTERS, max_watermark=None)), 200))
    last = max(int(key.partition("/")[2]) for key in one)
    assert (last < BLOCK * 12 / 10) == has_images  # a twelfth has one word


@pytest.mark.parametrize("seed", range(4))
def test_each_row_ends_once_an_epoch_over_ten_kills(seed: int):
    """Attempts end in any order; what ended since the last batch is lost in a kill, and made again.

    All that ended, and what is left from the last position on, are the order, each once.
    """
    rng = random.Random(seed)
    position, ended = Position(), Counter[str]()
    for _ in range(10):
        attempts = Attempts(ToySource(), FILTERS, seed=seed, start=position)
        order, flying, unsaved = iter(attempts), list[Attempt](), list[Attempt]()
        for _ in range(rng.randrange(5, 30)):
            while len(flying) < 12:
                flying.append(next(order))
            rng.shuffle(flying)
            unsaved.append(flying.pop())
            if rng.random() < 0.3:  # a batch
                attempts.end(unsaved)
                ended.update(keys(unsaved))
                unsaved.clear()
                position = stored(attempts.position(counts={"ok": 1}, logged=0))
    count = ended.total()
    assert 40 < count < 3.7 * KEPT and position.waiting
    rest = first(Attempts(ToySource(), FILTERS, seed=seed, start=position), 4 * KEPT - count)
    whole = first(Attempts(ToySource(), FILTERS, seed=seed), 4 * KEPT)
    assert ended + Counter(keys(rest)) == Counter(keys(whole))


def test_rows_that_wait_for_long_are_not_lost_over_kills():
    """One attempt in five waits for many others, as those of a rare size do, and a process is
    killed before it has made again all that its predecessor left waiting."""
    position, ended = Position(), Counter[str]()
    rng = random.Random(1)
    for round_ in range(14):
        attempts = Attempts(ToySource(), FILTERS, start=position)
        some = first(attempts, 2 + 10 * (round_ % 2))
        done = [attempt for attempt in some if rng.random() < 0.8]
        attempts.end(done)
        ended.update(keys(done))
        position = stored(attempts.position(counts={}, logged=0))
    rest = first(Attempts(ToySource(), FILTERS, start=position), 3 * KEPT - ended.total())
    whole = first(Attempts(ToySource(), FILTERS), 3 * KEPT)
    assert ended + Counter(keys(rest)) == Counter(keys(whole))


def test_filtered_rows_are_counted_once():
    attempts = Attempts(ToySource(), FILTERS)
    taken = first(attempts, 30)
    attempts.end(taken)
    once = Counter(attempts.filtered)
    position = attempts.position(counts=dict(once), logged=0)
    assert once and any(portion.counted for portion in position.portions)
    again = Attempts(ToySource(), FILTERS, start=position)
    first(again, 200)
    more = Attempts(ToySource(), FILTERS)
    first(more, 230)
    assert once + again.filtered == more.filtered


def test_excluded_rows_are_passed_over_in_every_epoch():
    some = keys(first(Attempts(ToySource(), FILTERS), 10))
    others = keys(first(Attempts(ToySource(), FILTERS, excluded=some), 300))
    assert not set(some) & set(others) and len(set(others)) + 10 == KEPT


def test_nothing_left_ends_with_the_counts():
    strict = replace(FILTERS, min_words=9)
    with pytest.raises(ValueError, match=r"toy: no row is left.*filtered_words 6\d"):
        first(Attempts(ToySource(), strict), 1)
    everything = keys(first(Attempts(ToySource(), FILTERS), KEPT))
    with pytest.raises(ValueError, match=r"held out: 58"):
        first(Attempts(ToySource(), FILTERS, excluded=everything), 1)
    with pytest.raises(ValueError, match="without rows"):
        Attempts(ToySource(sizes=()), FILTERS)


@dataclass(frozen=True)
class Shaky(ToySource):
    """Breaks off in the middle of a unit, for a time."""

    failures: list[int] = None  # type: ignore[assignment]

    def read(self, unit: Unit) -> Iterator[Row]:
        for number, row in enumerate(super().read(unit)):
            if number == 7 and self.failures[0] > 0:
                self.failures[0] -= 1
                raise OSError("the disk of the hub is on holiday")
            yield row


def test_a_unit_that_breaks_off_is_read_on():
    pauses: list[float] = []
    shaky = Shaky(failures=[TRIES - 1])
    found = keys(first(Attempts(shaky, FILTERS, sleep=pauses.append), KEPT))
    assert found == keys(first(Attempts(ToySource(), FILTERS), KEPT)) and len(pauses) == TRIES - 1
    with pytest.raises(ValueError, match=r"unit \d{5}-000 cannot be read: the disk"):
        first(Attempts(Shaky(failures=[99]), FILTERS, sleep=pauses.append), 1)
    assert len(pauses) == 4 * (TRIES - 1)


@dataclass(frozen=True)
class Torn(ToySource):
    """Some units are damaged from a row on: by unit."""

    sizes: tuple[int, ...] = (30, 20, 25, 40, 35, 30, 20, 60)
    torn: dict[str, int] = field(default_factory=dict)
    kind: type[Exception] = ValueError

    def read(self, unit: Unit) -> Iterator[Row]:
        for number, row in enumerate(super().read(unit)):
            if number >= self.torn.get(unit.id, 10**9):
                raise self.kind(f"{unit.id} is damaged")
            yield row


@pytest.mark.parametrize("kind", [ValueError, OSError])
def test_a_damaged_unit_is_left_and_said(kind: type[Exception]):
    said: list[str] = []
    torn = Torn(torn={"00001-000": 7, "00003-000": 0}, kind=kind)
    attempts = Attempts(torn, FILTERS, sleep=lambda seconds: None, say=said.append)
    whole = keys(first(Attempts(Torn(), FILTERS), 300))
    per_epoch = len(set(whole))
    good = [key for key in whole[:per_epoch] if key.partition("/")[0] not in torn.torn]
    found = keys(first(attempts, 2 * len(good)))
    assert found[: len(good)] == good and set(found[len(good) :]) == set(good)
    assert len(said) == 2 and all("is damaged" in line for line in said)
    assert set(attempts.unreadable) == set(torn.torn)


def test_many_units_in_a_row_that_cannot_be_read_end_the_stream():
    torn = Torn(sizes=(9,) * 12, torn={f"{i:05d}-000": 0 for i in range(12)})
    said: list[str] = []
    with pytest.raises(
        ValueError, match=r"toy: 5 consecutive units cannot be read. The last is 000"
    ):
        first(Attempts(torn, FILTERS, say=said.append), 1)
    assert len(said) == 4
    torn = Torn(sizes=(9,) * 12, torn=torn.torn, kind=OSError)
    with pytest.raises(OSError, match=r"5 consecutive units"):
        first(Attempts(torn, FILTERS, sleep=lambda seconds: None), 1)


@pytest.mark.parametrize("has_images", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_units_that_break_and_heal_between_kills_shift_nobody(
    seed: int, has_images: bool, monkeypatch: pytest.MonkeyPatch
):
    """Whatever can be read in each process: no row ends twice, and those of whole units all do."""
    monkeypatch.setattr("prepare_work.picture", lambda number: b"")
    monkeypatch.setattr("pinxit.train.input.attempt_order.BLOCK", 8)
    rng = random.Random(seed)
    units = [unit.id for unit in Torn().units()]
    always = set(rng.sample(units, 4))  # are never damaged
    position, ended = Position(), Counter[str]()
    per_epoch = len(set(keys(first(Attempts(Torn(), FILTERS), 300))))
    for _ in range(25):
        broken = [unit for unit in units if unit not in always and rng.random() < 0.5]
        torn = {unit: rng.choice((0, 9, 17)) for unit in broken}
        source = Torn(torn=torn, has_images=has_images)
        attempts = Attempts(source, FILTERS, seed=seed, start=position)
        flying, unsaved = list[Attempt](), list[Attempt]()
        for attempt in itertools.islice(attempts, rng.randrange(20, 90)):
            if attempts.epoch:
                break
            flying.append(attempt)
            while len(flying) > 12:
                unsaved.append(flying.pop(rng.randrange(len(flying))))
            if rng.random() < 0.2:  # a batch
                attempts.end(unsaved)
                ended.update(keys(unsaved))
                unsaved.clear()
                position = stored(attempts.position(counts={}, logged=0))
    attempts = Attempts(Torn(has_images=has_images), FILTERS, seed=seed, start=position)
    for attempt in attempts:
        if attempts.epoch:
            break
        ended[attempt.row.key] += 1
    assert max(ended.values()) == 1 and per_epoch > len(ended) > per_epoch // 2
    needed = [key for key in keys(first(Attempts(Torn(), FILTERS), 300)) if key[:9] in always]
    assert set(needed) <= set(ended)


def test_another_revision_is_refused():
    packed = pack_position(Position(), "files-1")
    with pytest.raises(
        ValueError, match=r"resume: the run was started on revision files-1 .* is revision files-2"
    ):
        unpack_position(packed, ToySource(revision="files-2"))


@pytest.mark.parametrize("name", ["portions", "next", "counts", "logged"])
def test_a_position_that_lacks_a_field_is_refused(name: str):
    """Without it a resumed run would train on other rows, and not say so."""
    packed = pack_position(Position(), "1")
    assert unpack_position(packed, ToySource()) == Position()
    del packed[name]
    with pytest.raises(UsageError, match=rf"resume: {name} is missing in the checkpoint"):
        unpack_position(packed, ToySource())


OLDER = {
    "epoch": 1,
    "unit": 1,
    "row": 7,
    "tried": 9,
    "waiting": [0, 2, 5],
    "opened": 5,
    "yielded": [12, 4, 9],
    "counts": {"ok": 20},
    "logged": 123,
    "revision": "1",
}
"""A position of version 1.9: of the rows 7 to 11 of the fifth unit, 7 and 9 wait, and so does row
0 of the sixth. The seventh follows, of which older versions had looked at 9 rows."""


@pytest.mark.parametrize("name", ["yielded", "given"])
def test_a_position_of_an_older_version_is_read(name: str):
    """Older versions numbered the attempts of all units one after the other."""
    packed = {("yielded" if key == name else key): value for key, value in OLDER.items()}
    position = unpack_position(packed, ToySource())
    assert position.counts == {"ok": 20} and position.logged == {"0": 123}
    assert position.next == 7 and position.portions == (
        Portion(4, tried=12, waiting=(7, 9), whole=True, counted=True),
        Portion(5, tried=4, waiting=(0,), whole=True),
        Portion(6, tried=9, waiting=tuple(range(9))),
    )
    del packed["waiting"]
    with pytest.raises(UsageError, match="resume: waiting is missing in the checkpoint"):
        unpack_position(packed, ToySource())


def test_if_nothing_passes_each_reason_has_an_example():
    source = ToySource((3, 2))
    with pytest.raises(UsageError, match=r"filtered: filtered_side 5, such as http://") as error:
        next(iter(Attempts(source, replace(FILTERS, min_side=4_000))))
    assert "no row is left to train on" in str(error.value)
