"""Batches of one shape each, from rows of several: aspect-ratio buckets.

A bucket is a run of rows of one shape. Each has an order of its own: epoch after epoch, a new
permutation of its rows. Its batch ``k`` holds the samples ``k * batch_size`` and following of that
order, so that what does not fill a batch at the end of an epoch begins the first batch of the
next one: nothing is dropped, nothing comes twice.

Which bucket a step takes follows from the step. In epoch ``e`` a bucket of ``n`` rows gives its
batches from ``floor(e n / batch_size)`` to ``floor((e + 1) n / batch_size) - 1``, as many as there
are rows for, and the batches of all buckets are shuffled together. After each epoch fewer than a
batch of each bucket's rows wait for the next, however many epochs have gone. All of it is
arithmetic on (seed, step): no state, and no table that grows with the dataset.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Int

from pinxit.config import UsageError
from pinxit.data.loader import Loader, Rows
from pinxit.data.prepared.row_layout import Bucket


class Schedule:
    """The buckets' turns: from a step to a bucket and the number of its batch."""

    def __init__(self, counts: Sequence[int], *, batch_size: int, seed: int) -> None:
        """Plans batches of buckets with `counts` rows each, together at least one."""
        self.counts = tuple(counts)
        self.batch_size = batch_size
        self.seed = seed
        self._epoch: tuple[int, grain.MapDataset | None] = (-1, None)

    def before(self, epoch: int) -> list[int]:
        """Returns the batches that each bucket has given before an epoch begins."""
        return [epoch * count // self.batch_size for count in self.counts]

    def epoch(self, step: int) -> int:
        """Returns the epoch that a step is in; one too small for a single batch has no steps."""
        rows, buckets = sum(self.counts), len(self.counts)
        low = step * self.batch_size // rows
        high = (step + buckets) * self.batch_size // rows + 1
        epochs = range(low, high + 1)
        return low + bisect.bisect_right(epochs, step, key=lambda e: sum(self.before(e))) - 1

    def turn(self, step: int) -> tuple[int, int]:
        """Returns the bucket that step `step` takes, and which of its batches."""
        epoch = self.epoch(step)
        starts, stops = self.before(epoch), self.before(epoch + 1)
        ends = list(itertools.accumulate(b - a for a, b in zip(starts, stops, strict=True)))
        place = self._shuffled(epoch, ends[-1])[step - sum(starts)]
        assert place is not None  # nothing is filtered
        bucket = bisect.bisect_right(ends, place)
        return bucket, stops[bucket] - ends[bucket] + place

    def _shuffled(self, epoch: int, count: int) -> grain.MapDataset:
        """Returns the epoch's batches in their order."""
        known, order = self._epoch
        if order is None or known != epoch:
            order = grain.MapDataset.range(count).shuffle(seed=derived(self.seed, 0, epoch))
            self._epoch = epoch, order
        return order


class BucketedLoader(Loader):
    """Shuffled batches of `rows`, each from one of `buckets`, addressed by step."""

    def __init__(
        self,
        rows: Rows,
        *,
        buckets: Sequence[Bucket],
        batch_size: int,
        seed: int = 0,
        part: Int[np.ndarray, " p"] | None = None,
    ) -> None:
        """Takes `part` as `Loader` does. Refuses a dataset whose buckets are all empty."""
        super().__init__(rows, batch_size=batch_size, seed=seed, part=part)
        self.buckets = tuple(bucket for bucket in buckets if len(bucket))
        if not self.buckets:
            raise UsageError("buckets: none of them has a row")
        counts = [len(bucket) for bucket in self.buckets]
        self.schedule = Schedule(counts, batch_size=batch_size, seed=seed)
        self._orders = [
            grain.MapDataset.range(count).seed(derived(seed, 1, number)).shuffle().repeat()
            for number, count in enumerate(counts)
        ]

    def row_numbers(self, step: int) -> Int[np.ndarray, " b"]:
        """Returns which rows this reader's part of batch `step` holds."""
        bucket, batch = self.schedule.turn(step)
        order, first = self._orders[bucket], batch * self.batch_size
        places = [order[first + int(i)] for i in self.part]
        return np.asarray(places, np.int64) + self.buckets[bucket].start


def derived(*numbers: int) -> int:
    """Returns a 32-bit seed that follows from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
