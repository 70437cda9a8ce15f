"""Batches of one shape each: every row once an epoch, from the step alone, for any readers."""

from collections import Counter

import numpy as np
import prepared_toys as toys  # pyrefly: ignore
import pytest

from pinxit.data.bucketed_loader import BucketedLoader, Schedule
from pinxit.data.loader import ArrayRows
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.data.prepared.row_layout import Bucket

COUNTS = (23, 5, 9, 1)
"""The last two have fewer rows than a batch, or hardly more."""
BATCH = 8
ROWS = sum(COUNTS)
EPOCHS = 2 * BATCH
"""After so many every bucket has given whole batches only: none of its rows waits."""


def buckets() -> list[Bucket]:
    edges = np.cumsum((0, *COUNTS)).tolist()
    return [Bucket((i + 1, 1, 1), edges[i], edges[i + 1]) for i in range(len(COUNTS))]


def loader(**more) -> BucketedLoader:
    rows = ArrayRows({"number": np.arange(ROWS)})
    return BucketedLoader(rows, buckets=buckets(), batch_size=BATCH, **more)


def bucket_of(number: int) -> int:
    return int(np.searchsorted(np.cumsum(COUNTS), number, side="right"))


def test_a_batch_is_of_one_bucket_and_buckets_come_mixed():
    turns = []
    for step in range(60):
        [turn] = {bucket_of(number) for number in loader(seed=1).row_numbers(step).tolist()}
        turns.append(turn)
    assert set(turns) == {0, 1, 2, 3}
    assert turns != sorted(turns) and turns[:20] != turns[20:40]


@pytest.mark.parametrize("seed", [0, 7])
def test_every_row_comes_once_an_epoch_and_none_is_dropped(seed: int):
    one = loader(seed=seed)
    steps = sum(one.schedule.before(EPOCHS))
    assert steps * BATCH == EPOCHS * ROWS
    seen = Counter(np.concatenate([one.row_numbers(step) for step in range(steps)]).tolist())
    assert seen == dict.fromkeys(range(ROWS), EPOCHS)


def test_after_any_epoch_less_than_a_batch_of_a_bucket_waits():
    one, seen, step = loader(seed=3), Counter[int](), 0
    for epoch in range(1, 12):
        while step < sum(one.schedule.before(epoch)):
            assert one.schedule.epoch(step) == epoch - 1
            seen.update(one.row_numbers(step).tolist())
            step += 1
        for number, bucket in enumerate(buckets()):
            given = [seen[row] for row in range(bucket.start, bucket.stop)]
            assert 0 <= epoch * COUNTS[number] - sum(given) < BATCH
            assert max(given) - min(given) <= 1  # its own epochs: each row once before one twice


def test_epochs_differ_and_seeds_differ():
    first = [loader(seed=1).row_numbers(step).tolist() for step in range(8)]
    assert first != [loader(seed=2).row_numbers(step).tolist() for step in range(8)]
    assert first == [loader(seed=1).row_numbers(step).tolist() for step in range(8)]


def test_the_schedule_is_arithmetic_at_any_size():
    """A step of a run on 700 million rows is found at once, and steps follow one another."""
    schedule = Schedule([500_000_000, 199_999_999, 3], batch_size=256, seed=0)
    for step in (0, 10**6, 10**9, 5 * 10**11):
        turns = [schedule.turn(step + i) for i in range(200)]
        assert len(set(turns)) == 200 and {bucket for bucket, _ in turns} == {0, 1}
        share = sum(bucket == 0 for bucket, _ in turns) / 200
        assert 0.55 < share < 0.87  # 5 of 7
        batches = np.array([batch for bucket, batch in turns if bucket == 0])
        if step > 10**8:
            assert abs(batches / step / 5 * 7 - 1).max() < 0.01


def test_resuming_at_every_step_reads_what_is_left():
    full = list(loader(seed=5).batches(0, 12))
    for start in range(12):
        for one, other in zip(loader(seed=5).batches(start, 12), full[start:], strict=True):
            np.testing.assert_array_equal(one["number"], other["number"])
            np.testing.assert_array_equal(one["index"], other["index"])
    index = np.concatenate([batch["index"] for batch in full])
    np.testing.assert_array_equal(index, np.arange(12 * BATCH))


@pytest.mark.parametrize("readers", [1, 2, 4, 8])
def test_readers_share_the_same_batches(readers: int):
    whole = loader(seed=4)
    parts = [loader(seed=4, part=np.arange(r, BATCH, readers)) for r in range(readers)]
    for step in range(12):
        batch = whole.batch(step)
        for reader, part in enumerate(parts):
            mine = part.batch(step)
            for name in batch:
                np.testing.assert_array_equal(mine[name], batch[name][reader::readers])


def test_three_epochs_across_ten_kills():
    """A new process knows the step and nothing else; it had read ahead when it was killed."""
    total = sum(loader().schedule.before(3))
    stops = np.sort(np.random.default_rng(2).choice(np.arange(1, total), 10, replace=False))
    seen: list[int] = []
    for start, stop in zip([0, *stops], [*stops, total], strict=True):
        batches = loader(seed=7).batches(int(start), total)
        for _ in range(start, stop):
            seen += next(batches)["number"].tolist()
        batches.close()
    whole = [loader(seed=7).row_numbers(step) for step in range(total)]
    assert seen == np.concatenate(whole).tolist()


def test_prepared_rows_of_several_shapes(tmp_path):
    toys.latent_dataset(tmp_path, (9, 6, 8), wide=(1, 2, 5, 11, 12, 22))
    rows = PreparedRows(tmp_path, columns=toys.numbers)
    assert [(b.shape, len(b)) for b in rows.buckets] == [((2, 2, 3), 17), ((2, 4, 3), 6)]
    one = BucketedLoader(rows, buckets=rows.buckets, batch_size=2, seed=1)
    steps = sum(one.schedule.before(2))
    batches = [one.batch(step) for step in range(steps)]
    assert {batch["latents"].shape for batch in batches} == {(2, 2, 2, 3), (2, 2, 4, 3)}
    seen = Counter(np.concatenate([batch["number"] for batch in batches]).tolist())
    assert seen == dict.fromkeys(range(23), 2)
    for batch in batches:
        wide = batch["latents"].shape[2] == 4
        assert all((number in (1, 2, 5, 11, 12, 22)) == wide for number in batch["number"])


def test_empty_buckets_are_left_out():
    rows = ArrayRows({"number": np.arange(4)})
    one = BucketedLoader(
        rows, buckets=[Bucket(None, 0, 0), Bucket(None, 0, 4)], batch_size=2, seed=0
    )
    assert len(one.buckets) == 1 and set(one.row_numbers(0)) < set(range(4))
    with pytest.raises(ValueError, match="buckets: all of them are empty"):
        BucketedLoader(rows, buckets=[Bucket(None, 2, 2)], batch_size=2)
