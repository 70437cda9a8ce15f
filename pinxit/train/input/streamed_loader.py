"""Training on what is fetched meanwhile: images become latents in the background.

::

    Stream: attempts -> fetch -> decode | encode in chunks on the device | batches, a few ahead
                                        `------------- one thread ------------------------'

The batches of a streamed run are whatever the web gives, in the order it comes: two runs differ.
What is the same, and exact over a stop, is the order of attempts: each batch knows the position of
the stream behind it, and a checkpoint keeps it, so that a resumed run tries what is left, and no
row is trained on twice in an epoch or lost.

With aspect-ratio buckets a batch holds images of one size. The others wait, encoded, until theirs
is full; what waits when a run stops is fetched again by the one that resumes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

from pinxit.arrays import Autoencoder
from pinxit.devices.transfer import image_encoder
from pinxit.encoders.text_columns import TextColumns
from pinxit.train.input.attempt_order import Attempt, Position
from pinxit.train.input.encode_chunk import CHUNK
from pinxit.train.input.image_stream import Ended, RowImage, Stream

AHEAD = 4
"""Batches that may wait for the training step."""
PATIENCE = 5.0
"""Seconds that closing waits for the background thread, which a slow host may hold up longer."""

RowEncoder = Callable[[Sequence[RowImage]], list[dict[str, np.ndarray] | None]]
"""Images with captions to each row's columns; None for a row whose latents are not finite."""


@dataclass(frozen=True, eq=False)
class EncodedRow:
    """A row that can go into a batch."""

    attempt: Attempt
    columns: dict[str, np.ndarray]
    """The row's arrays by name, without a batch axis: latents or image, and text."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (h, w, c) of the row's latents, or of its image."""
        return self.columns["latents" if "latents" in self.columns else "images"].shape


class StreamedLoader:
    """Batches of a stream, made ahead by a thread."""

    def __init__(
        self,
        stream: Stream,
        encode: RowEncoder,
        *,
        batch_size: int,
        chunk: int = CHUNK,
        ahead: int = AHEAD,
    ) -> None:
        self.stream = stream
        self.encode = encode
        self.batch_size = batch_size
        self.chunk = chunk
        self.ahead = ahead
        self.wait_seconds = 0.0
        """Time that `batches` has waited for data, in all."""
        self.interrupted: Callable[[], bool] = lambda: False
        """Asked while waiting: whether to give up, because the run is to stop."""
        self.ended = ""
        """Why there are no more batches, if it is not that enough were made."""
        self.positions: dict[int, Position] = {}
        """Step to the stream's position behind the batches before it."""
        self._closed = threading.Event()
        self._images: Generator[RowImage, None, None] | None = None

    @property
    def images(self) -> Generator[RowImage, None, None]:
        """The stream's images, begun once."""
        if self._images is None:
            self._images = self.stream.found()
        return self._images

    def position(self, step: int) -> Position:
        """Where a run that resumes at `step` goes on; known of the last two batches."""
        return self.positions[step]

    def batches(self, start: int, stop: int) -> Generator[dict[str, np.ndarray], None, None]:
        """Batches for the steps `start` to `stop - 1`; fewer, and `ended`, if the stream ends.

        Can be called once. Close the generator to end the thread.
        """
        self.positions[start] = self.stream.settle(())
        ready: queue.Queue[Any] = queue.Queue(maxsize=self.ahead)

        def put(item: Any) -> None:
            while not self._closed.is_set():
                try:
                    return ready.put(item, timeout=0.1)
                except queue.Full:
                    continue

        def work() -> None:
            try:
                for batch in self._made(start, stop):
                    put(batch)
            except (Ended, OSError, ValueError) as error:
                put(Ended(str(error)))
            except BaseException as error:  # handed to the consumer, which raises it
                put(error)
            finally:
                self.images.close()

        thread = threading.Thread(target=work, name="pinxit-stream", daemon=True)
        thread.start()
        try:
            for step in range(start, stop):
                item = self._wait(ready)
                if item is None:
                    return
                if isinstance(item, Ended):
                    self.ended = str(item)
                    return
                if isinstance(item, BaseException):
                    raise item
                batch, position = item
                # a checkpoint asks for the step that has just ended; what is older is of no use
                self.positions = {step: self.positions[step], step + 1: position}
                yield batch
        finally:
            self._closed.set()
            thread.join(PATIENCE)

    def _wait(self, ready: queue.Queue[Any]) -> Any:
        """The next item; None when interrupted."""
        begun = time.perf_counter()
        try:
            while True:
                try:
                    return ready.get(timeout=0.2)
                except queue.Empty:
                    if self.interrupted():
                        return None
        finally:
            self.wait_seconds += time.perf_counter() - begun

    def _made(self, start: int, stop: int) -> Iterator[tuple[dict[str, np.ndarray], Position]]:
        """Batches with the positions behind them, until closed."""
        rows: dict[tuple[int, ...], list[EncodedRow]] = {}
        encoded = self._encoded()
        for step in range(start, stop):
            while (shape := self._full(rows)) is None:
                some = next(encoded)
                if some:
                    rows.setdefault(some[0].shape, []).extend(some)
            taken, rows[shape] = rows[shape][: self.batch_size], rows[shape][self.batch_size :]
            batch = {
                name: np.stack([row.columns[name] for row in taken]) for name in taken[0].columns
            }
            first = step * self.batch_size
            index = np.arange(first, first + self.batch_size, dtype=np.int64) % 2**31
            batch["index"] = index.astype(np.int32)
            yield batch, self.stream.settle([row.attempt for row in taken])

    def _full(self, rows: dict[tuple[int, ...], list[EncodedRow]]) -> tuple[int, ...] | None:
        """The first shape that has enough rows for a batch."""
        return next((shape for shape, some in rows.items() if len(some) >= self.batch_size), None)

    def _encoded(self) -> Iterator[list[EncodedRow]]:
        """Chunks of rows of one shape; what cannot be encoded is a failure of the stream."""
        pending: dict[tuple[int, ...], list[RowImage]] = {}
        for found in self._open_images():
            some = pending.setdefault(found.image.shape, [])
            some.append(found)
            if len(some) < self.chunk:
                continue
            chunk, rows = pending.pop(found.image.shape), list[EncodedRow]()
            for one, columns in zip(chunk, self.encode(chunk), strict=True):
                if columns is None:
                    self.stream.fail(one.attempt, "decode_error", "its latents are not finite")
                else:
                    rows.append(EncodedRow(one.attempt, columns))
            yield rows
        raise Ended("closed")

    def _open_images(self) -> Iterator[RowImage]:
        for found in self.images:
            yield found
            if self._closed.is_set():
                return


def make_row_encoder(
    autoencoder: Autoencoder | None, text: TextColumns, *, chunk: int, mesh: Mesh
) -> RowEncoder:
    """Images and captions to a row's columns: ``latents`` (or ``images``), and those of `text`.

    Images are shared among the devices of `mesh`, which `chunk` is a multiple of.
    """
    run = None if autoencoder is None else image_encoder(autoencoder, mesh)

    def encode(found: Sequence[RowImage]) -> list[dict[str, np.ndarray] | None]:
        images = np.stack([one.image for one in found])
        # as many as always, so that there is one program
        filler = np.repeat(images[-1:], chunk - len(images), axis=0)
        latents = None
        if run is not None:
            latents = run(np.concatenate([images, filler]))  # on its way while the text is encoded
        columns = text.whole([one.caption for one in found], chunk=chunk)
        if latents is None:
            arrays, good = {"images": images, **columns}, [True] * len(found)
        else:
            made = np.asarray(latents, np.float32)[: len(found)]
            arrays, good = {"latents": made, **columns}, [bool(np.isfinite(a).all()) for a in made]
        return [
            {name: array[i] for name, array in arrays.items()} if good[i] else None
            for i in range(len(found))
        ]

    return encode
