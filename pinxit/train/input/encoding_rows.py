"""Rows whose images are encoded while the run already trains on those that are ready.

Encoding the demo's 16,000 pictures takes two CPU cores about a minute, but a step needs only 16 of
them. A thread encodes the images in the order in which the first epoch reads them, a chunk at a
time, and sooner those that a batch waits for. While the first step is compiled, which uses all
cores, it encodes only the first batch. Chunks are fixed by that order, not by what is read,
so a row has the same bytes in a resumed run and in one that reads other rows first.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, Int, UInt8

from pinxit.arrays import Example
from pinxit.config import UsageError
from pinxit.data.image_column import LATENTS
from pinxit.train.datasets import Dataset

SECONDS_TO_END = 20.0
"""The time that `EncodingRows.close` waits for the chunk that is being encoded."""

EncodeImages = Callable[[UInt8[np.ndarray, "b hi wi 3"]], Float[np.ndarray, "b h w c"]]
"""A function from images to latents."""


class EncodingRows:
    """Rows in memory, as `ArrayRows`, whose latents a thread computes."""

    def __init__(
        self,
        examples: Dataset,
        captions: Sequence[str],
        columns: Mapping[str, np.ndarray],
        encode: EncodeImages,
        *,
        shape: tuple[int, ...],
        order: Int[np.ndarray, " n"],
        chunk: int,
        completed: Callable[[np.ndarray], None] = lambda latents: None,
    ) -> None:
        """Prepares the rows; `begin` starts the thread.

        `captions` and `columns` have all rows. `shape` is that of a row's latents. `order` lists
        all rows as the first epoch reads them, of which `chunk` are encoded together. `completed`
        receives all latents, in the thread, after the last chunk.
        """
        self.columns = dict(columns)
        self._examples, self._captions, self._encode = examples, captions, encode
        self._latents = np.zeros((len(examples), *shape), np.float32)
        self._chunks = [order[start : start + chunk] for start in range(0, len(order), chunk)]
        self._chunk_of = np.empty(len(order), np.int64)
        for number, rows in enumerate(self._chunks):
            self._chunk_of[rows] = number
        self._completed = completed
        self._ready = np.zeros(len(self._chunks), bool)
        self._begun = np.zeros(len(self._chunks), bool)
        self._awaited: list[int] = []
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._closed = False
        self._ahead = True
        self._thread = threading.Thread(target=self._work, name="pinxit-encoding", daemon=True)

    def begin(self, *, first: Int[np.ndarray, " b"] | None = None) -> None:
        """Starts encoding: all rows, or those that are read `first`, and what else is read until
        `go_ahead` is called."""
        self._ahead = first is None
        self._awaited = [] if first is None else np.unique(self._chunk_of[first]).tolist()
        atexit.register(self.close)
        self._thread.start()

    def go_ahead(self) -> None:
        """Lets rows be encoded that nothing waits for."""
        with self._changed:
            self._ahead = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stops encoding after the current chunk. Rows that are not ready cannot be read then."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(SECONDS_TO_END)
        atexit.unregister(self.close)

    def __len__(self) -> int:
        return len(self._latents)

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns the shape and dtype of a row's arrays."""
        arrays = {LATENTS: self._latents, **self.columns}
        return {name: (array.shape[1:], array.dtype) for name, array in arrays.items()}

    def take(self, rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """Returns the arrays at these rows, once their images are encoded.

        Raises the error that ended the thread, if there was one.
        """
        numbers = np.unique(self._chunk_of[rows])
        with self._changed:
            self._awaited = [int(n) for n in numbers if not self._begun[n]]
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._ready[numbers].all() or self._error is not None or self._closed
            )
            if not self._ready[numbers].all():
                raise self._error or RuntimeError("encoding was stopped before these rows")
        return {
            LATENTS: self._latents[rows],
            **{name: column[rows] for name, column in self.columns.items()},
        }

    def _work(self) -> None:
        """Encodes all chunks. Threads draw the images of the next chunk meanwhile."""
        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                following, number = None, -1
                while following is not None or self._wait():
                    if following is None:
                        following = self._submitted(pool, self._next(number))
                        continue
                    number, futures = following
                    following = self._submitted(pool, self._next(number))
                    self._finish(number, [future.result() for future in futures])
            if self._ready.all():
                self._completed(self._latents)
        except BaseException as error:  # handed to the reader, which raises it
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _wait(self) -> bool:
        """Waits until there is a chunk to encode. Returns whether there is one."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._begun.all() or self._ahead or self._missed()
            )
            return not self._closed and not self._begun.all()

    def _missed(self) -> list[int]:
        """Returns the chunks that a batch waits for and that have not been begun."""
        return [number for number in self._awaited if not self._begun[number]]

    def _next(self, last: int) -> int | None:
        """Returns a chunk that a batch waits for, else the next one after `last`, if any is left
        to encode now."""
        with self._changed:
            awaited = self._missed()
            if self._closed or self._begun.all() or not (self._ahead or awaited):
                return None
            count = len(self._chunks)
            following = ((last + 1 + i) % count for i in range(count))
            number = awaited[0] if awaited else next(n for n in following if not self._begun[n])
            self._begun[number] = True
            return number

    def _submitted(
        self, pool: ThreadPoolExecutor, number: int | None
    ) -> tuple[int, list[Future[Example]]] | None:
        """Returns a chunk and its images, which the pool draws."""
        if number is None:
            return None
        rows = self._chunks[number]
        return number, [pool.submit(self._examples.__getitem__, int(row)) for row in rows]

    def _finish(self, number: int, examples: list[Example]) -> None:
        """Encodes a chunk, and lets readers have it."""
        rows = self._chunks[number]
        for row, example in zip(rows, examples, strict=True):
            if example.caption != self._captions[row]:
                raise UsageError(
                    f"row {row}: the dataset's method caption() returns {self._captions[row]!r}, "
                    f"but the row has the caption {example.caption!r}"
                )
        self._latents[rows] = self._encode(np.stack([example.image for example in examples]))
        with self._changed:
            self._ready[number] = True
            self._changed.notify_all()
