"""Training on a source whose images are fetched and encoded while the run trains."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from pinxit.arrays import Example
from pinxit.config import UsageError
from pinxit.data.outcome import is_dropped
from pinxit.data.row import Source
from pinxit.progress import counted
from pinxit.train.build import Parts, check_sizes, text_columns_for
from pinxit.train.display import Display
from pinxit.train.input.attempt_order import Position
from pinxit.train.input.encode_chunk import CHUNK, chunk_size
from pinxit.train.input.feed import Feed
from pinxit.train.input.held_out_rows import HeldOut
from pinxit.train.input.image_stream import Stream, pack_position, unpack_position
from pinxit.train.input.streamed_loader import StreamedLoader, make_row_encoder
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import TrainConfig


class StreamedFeed(Feed):
    """Images that are fetched while the run trains on them."""

    def __init__(
        self,
        config: TrainConfig,
        parts: Parts,
        folder: RunFolder,
        display: Display,
        *,
        source: Source,
        position: Any = None,
    ) -> None:
        """Opens the stream; `position` is what a checkpoint stores. Raises for a source that has
        changed since."""
        self.display = display
        self.source = source
        self.wanted = config.evaluation.images
        """Rows to hold out."""
        self.reserved = HeldOut(folder.root / "heldout")
        if config.images.bucketed:
            announce_sizes(config, parts, display)
        self.stream = Stream(
            source,
            filters=config.filters,
            fetch=config.fetch,
            images=config.images,
            seed=config.seed,
            start=start_position(source, self.reserved, position),
            excluded=self.reserved.keys,
            log=folder.root / "outcomes.jsonl",
            say=display.say,
        )
        self.duplicates = check_duplicates(self.stream, position)
        chunk = encode_chunk(config, parts)
        self.text = text_columns_for(config, parts)
        autoencoder = parts.autoencoder if config.encodes_ahead else None
        encode = make_row_encoder(autoencoder, self.text, chunk=chunk, mesh=parts.mesh)
        self.loader = self._loader = StreamedLoader(
            self.stream, encode, batch_size=config.batch_size, chunk=chunk
        )
        self.text_columns = self.text.whole([""], chunk=chunk)

    def begin(self) -> None:
        """Fetches the held-out rows, unless an earlier part of the run has done so."""
        if self.wanted and not self.reserved.kept:
            images = islice(self._loader.images, self.wanted)
            tracked = self.display.track(
                images, f"fetching {counted(self.wanted, 'held-out row')}", self.wanted, unit="row"
            )
            self.reserved.hold_out(tracked, self.stream)

    def watch(self, interrupted: Callable[[], bool]) -> None:
        """Cancels waiting for a batch once `interrupted` returns True."""
        self._loader.interrupted = interrupted

    def held_out(self) -> list[Example]:
        """Returns the first good rows of the stream, which are never trained on."""
        return self.reserved.examples(self.wanted)

    def position(self, step: int) -> dict[str, Any]:
        """Returns the stream's position behind the batches before `step`."""
        packed = pack_position(self._loader.position(step), self.source.revision)
        return {**packed, "duplicates": self.duplicates}

    def figures(self) -> dict[str, float]:
        """Returns which shares of the rows are filtered out and give an image."""
        return shares(self.stream)

    def results(self) -> dict[str, Any]:
        """Returns the source's revision, the rows by status, and the units left unread."""
        return {
            "revision": self.source.revision,
            "rows": dict(self.stream.counts),
            "unreadable_units": dict(self.stream.attempts.unreadable),
        }

    def ended(self) -> str:
        """Returns why the stream gives no more images, or ""."""
        return self._loader.ended


def announce_sizes(config: TrainConfig, parts: Parts, display: Display) -> None:
    """Lists the image sizes of a run with buckets. Raises unless all are cut into whole tokens."""
    sizes = config.images.targets
    check_sizes(sizes, parts)
    listed = ", ".join(f"{width} x {height}" for width, height in sizes)
    display.say(f"{len(sizes)} image sizes, the step compiles once for each: {listed}")


def check_duplicates(stream: Stream, position: Any) -> str | None:
    """Returns the hash of the list of duplicates. Raises unless it is the position's."""
    listed = stream.attempts.duplicates.sha256
    if isinstance(position, dict) and position.get("duplicates") != listed:
        raise UsageError(
            "resume: the list of duplicates (filters.duplicates) is not the one that the run was "
            "begun with; give that one back, or another --name"
        )
    return listed


def encode_chunk(config: TrainConfig, parts: Parts) -> int:
    """Returns how many images are encoded together: a multiple of the number of devices."""
    devices = parts.mesh.size
    chunk = min(CHUNK, config.batch_size, chunk_size(config.image_size) * devices)
    return -(-chunk // devices) * devices


def start_position(source: Source, held_out: HeldOut, position: Any) -> Position:
    """Returns where a stream begins: at the checkpoint's position, or behind the held-out rows."""
    if position is None:
        return held_out.start(source.revision)
    if not isinstance(position, dict):
        raise UsageError("resume", position, problem="no position of a stream")
    return unpack_position(position, source.revision)


def shares(stream: Stream) -> dict[str, float]:
    """Returns how many rows were tried, the share of them that gave an image, and the share of the
    rows read that was filtered out."""
    counts, attempts = dict(stream.counts), stream.attempts  # another thread adds meanwhile
    tried = sum(n for status, n in counts.items() if not is_dropped(status))
    return {
        "rows_tried": tried,
        "alive_share": counts.get("ok", 0) / tried if tried else 0.0,
        "filtered_share": attempts.dropped / attempts.read if attempts.read else 0.0,
    }
