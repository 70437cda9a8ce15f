"""Batches of images that are fetched, decoded and encoded in the background.

::

    Stream: attempts -> fetch -> decode | encode in chunks on the device | batches, a few ahead
                                        `------------- one thread ------------------------'

A batch contains the images that arrive first, so two runs have different batches. The order of
attempts is the same, also after a stop. Each batch comes with the progress of the stream after it,
from which a checkpoint's position follows. A resumed run therefore tries the remaining rows, and no
row is lost or trained on twice in an epoch.

With aspect-ratio buckets a batch contains images of one size. Encoded images of other sizes wait
until their batch is full. If the run stops before that, the resumed run fetches them again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from pinxit.arrays import Autoencoder
from pinxit.config import UsageError
from pinxit.data.image_column import image_column, images_in
from pinxit.data.read_ahead import read_ahead
from pinxit.devices.transfer import image_encoder
from pinxit.encoders.text_columns import TextColumns
from pinxit.fixed_batches import batches_by_shape, padded
from pinxit.train.input.attempt_order import Attempt
from pinxit.train.input.encode_chunk import CHUNK
from pinxit.train.input.image_stream import RowImage, Stream
from pinxit.train.input.outage import Ended
from pinxit.train.input.portions import StreamProgress

AHEAD = 4
"""Number of batches that are made ahead of the training step."""
PATIENCE = 5.0
"""Longest time, in seconds, that closing waits for the thread, which a slow host may delay."""

RowEncoder = Callable[[Sequence[RowImage]], list[dict[str, np.ndarray] | None]]
"""Maps images with captions to each row's columns, or to None if its latents are not finite."""


@dataclass(frozen=True, eq=False)
class EncodedRow:
    """A row that is ready for a batch."""

    attempt: Attempt
    columns: dict[str, np.ndarray]
    """Arrays of the row by name, without a batch axis: latents or image, and text."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (h, w, c) of the row's latents, or of its image."""
        return images_in(self.columns)[1].shape


class StreamedLoader:
    """Batches of a stream, which a thread makes ahead of time."""

    def __init__(
        self,
        stream: Stream,
        encode: RowEncoder,
        *,
        batch_size: int,
        chunk: int = CHUNK,
        ahead: int = AHEAD,
    ) -> None:
        self.encode = encode
        self.batch_size = batch_size
        self.chunk = chunk
        self.ahead = ahead
        self.wait_seconds = 0.0
        """Total time that `batches` has waited for data, in seconds."""
        self.interrupted: Callable[[], bool] = lambda: False
        """Called while waiting for data. Returns True if the run should stop, which cancels
        waiting."""
        self.ended = ""
        """The reason why the stream ended early, or an empty string."""
        self._progress: dict[int, StreamProgress] = {}
        """Maps a step to the stream's progress after the batches before that step."""
        self._closed = threading.Event()
        self.use(stream)

    def use(self, stream: Stream) -> None:
        """Takes the images of another stream, before the first batch."""
        self.stream = stream
        stream.outage.stopping = self._closed.is_set
        self._images: Generator[RowImage, None, None] | None = None

    @property
    def images(self) -> Generator[RowImage, None, None]:
        """The stream's images. The stream is started once."""
        if self._images is None:
            self._images = self.stream.row_images()
        return self._images

    def progress(self, step: int) -> StreamProgress:
        """Returns the stream's progress after the batches before `step`. It is known for the last
        two batches."""
        return self._progress[step]

    def batches(self, start: int, stop: int) -> Generator[dict[str, np.ndarray], None, None]:
        """Yields the batches of steps `start` to `stop - 1`, or fewer if the stream ends early,
        which sets `ended`.

        Can be called once. Closing the generator ends the thread.
        """
        self._progress[start] = self.stream.settle(())
        ahead = read_ahead(
            self._closing_images(start, stop),
            ahead=self.ahead,
            name="pinxit-stream",
            waited=self._waited,
            interrupted=lambda: self.interrupted(),
            closed=self._closed,
            patience=PATIENCE,
        )
        with closing(ahead):
            try:
                # `range` first: after the last batch, closing the images is not waited for
                for step, (batch, progress) in zip(range(start, stop), ahead, strict=False):
                    # a checkpoint asks for the step that has just ended; older ones are not needed
                    self._progress = {step: self._progress[step], step + 1: progress}
                    yield batch
            except Ended as ended:
                self.ended = str(ended)

    def figures(self) -> dict[str, int]:
        """Returns numbers of rows since the start (see `Stream.figures`)."""
        return self.stream.figures()

    def unreadable(self) -> dict[str, str]:
        """Returns the error of each unit that could not be read completely."""
        return dict(self.stream.attempts.unreadable)

    def _waited(self, seconds: float) -> None:
        """Counts time spent waiting for data."""
        self.wait_seconds += seconds

    def _closing_images(
        self, start: int, stop: int
    ) -> Generator[tuple[dict[str, np.ndarray], StreamProgress], None, None]:
        """Yields batches with the progress after them, then closes the images. Raises `Ended` for
        errors of the data."""
        try:
            yield from self._batches(start, stop)
        except (OSError, UsageError) as error:
            raise Ended(str(error)) from error
        finally:
            self.images.close()

    def _batches(
        self, start: int, stop: int
    ) -> Iterator[tuple[dict[str, np.ndarray], StreamProgress]]:
        """Yields batches with the progress after them, until closed."""
        rows: dict[tuple[int, ...], list[EncodedRow]] = {}
        encoded = self._encoded()
        for step in range(start, stop):
            while (shape := self._full(rows)) is None:
                chunk = next(encoded)
                if chunk:
                    rows.setdefault(chunk[0].shape, []).extend(chunk)
            batch_rows, rows[shape] = rows[shape][: self.batch_size], rows[shape][self.batch_size :]
            batch = stacked(batch_rows, step * self.batch_size + np.arange(self.batch_size))
            yield batch, self.stream.settle([row.attempt for row in batch_rows])

    def _full(self, rows: dict[tuple[int, ...], list[EncodedRow]]) -> tuple[int, ...] | None:
        """Returns the first shape that has enough rows for a batch."""
        return next(
            (shape for shape, waiting in rows.items() if len(waiting) >= self.batch_size), None
        )

    def _encoded(self) -> Iterator[list[EncodedRow]]:
        """Yields chunks of encoded rows of one shape. Rows whose latents are not finite fail."""
        chunks = batches_by_shape(
            self._open_images(), self.chunk, shape=lambda image: image.image.shape
        )
        for chunk in chunks:
            rows = list[EncodedRow]()
            for image, columns in zip(chunk, self.encode(chunk), strict=True):
                if columns is None:
                    self.stream.fail(image.attempt, "decode_error", "its latents are not finite")
                else:
                    rows.append(EncodedRow(image.attempt, columns))
            yield rows

    def _open_images(self) -> Iterator[RowImage]:
        """Yields the stream's images. Raises `Ended` once the loader is closed."""
        for image in self.images:
            yield image
            if self._closed.is_set():
                break
        raise Ended("closed")


def stacked(rows: Sequence[EncodedRow], numbers: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
    """Returns a batch of rows of one shape. `numbers` counts the samples of the whole run."""
    batch = {name: np.stack([row.columns[name] for row in rows]) for name in rows[0].columns}
    return batch | {"index": (numbers % 2**31).astype(np.int32)}


def make_row_encoder(
    autoencoder: Autoencoder | None, text: TextColumns, *, chunk: int, mesh: Mesh
) -> RowEncoder:
    """Makes the function that turns images and captions into each row's columns: the one of images,
    and those of `text`.

    Images are distributed over the devices of `mesh`, whose number divides `chunk`.
    """
    run = None if autoencoder is None else image_encoder(autoencoder, mesh)

    def encode(rows: Sequence[RowImage]) -> list[dict[str, np.ndarray] | None]:
        images = np.stack([row.image for row in rows])
        # the device computes latents while the text is encoded
        latents = None if run is None else run(padded(images, chunk))
        columns = text.whole([row.caption for row in rows], chunk=chunk)
        if latents is not None:
            images = np.asarray(latents, np.float32)[: len(rows)]
        columns = {image_column(run is not None): images, **columns}
        finite = [run is None or bool(np.isfinite(image).all()) for image in images]
        return [
            {name: column[i] for name, column in columns.items()} if finite[i] else None
            for i in range(len(rows))
        ]

    return encode
