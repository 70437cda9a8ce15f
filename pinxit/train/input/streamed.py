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
from pinxit.train.input.encode_chunk import stream_chunk
from pinxit.train.input.feed import Feed
from pinxit.train.input.held_out_rows import HeldOut
from pinxit.train.input.image_stream import Stream, pack_position, unpack_position
from pinxit.train.input.outage import Outage
from pinxit.train.input.streamed_loader import StreamedLoader, make_row_encoder
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import TrainConfig


class StreamedFeed(Feed):
    """Batches of images that are fetched while the run trains."""

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
        """Opens the stream. `position` is the one stored in a checkpoint. Raises if the source has
        changed since then."""
        self.display = display
        self.source = source
        self.held_out_count = config.evaluation.images
        """Number of rows to hold out."""
        self.reserved = HeldOut(folder.held_out)
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
            outage=Outage(hours=config.outage_hours, say=display.say),
        )
        self.duplicates = check_duplicates(self.stream, position)
        chunk = stream_chunk(config.image_size, config.batch_size, devices=parts.mesh.size)
        self.text = text_columns_for(config, parts)
        autoencoder = parts.autoencoder if config.encodes_ahead else None
        encode = make_row_encoder(autoencoder, self.text, chunk=chunk, mesh=parts.mesh)
        self.loader = self._loader = StreamedLoader(
            self.stream, encode, batch_size=config.batch_size, chunk=chunk
        )
        self.text_columns = self.text.whole([""], chunk=chunk)

    def begin(self) -> None:
        """Fetches the held-out rows, unless an earlier part of the run has done so."""
        if self.held_out_count and not self.reserved.complete:
            images = islice(self._loader.images, self.held_out_count)
            tracked = self.display.track(
                images,
                f"fetching {counted(self.held_out_count, 'held-out row')}",
                self.held_out_count,
                unit="row",
            )
            self.reserved.hold_out(tracked, self.stream)

    def watch(self, interrupted: Callable[[], bool]) -> None:
        """Cancels waiting for a batch once `interrupted` returns True."""
        self._loader.interrupted = interrupted

    def held_out(self) -> list[Example]:
        """Returns the first usable rows of the stream, which are never trained on."""
        return self.reserved.examples(self.held_out_count)

    def position(self, step: int) -> dict[str, Any]:
        """Returns the stream's position after the batches before `step`."""
        packed = pack_position(self._loader.position(step), self.source.revision)
        return {**packed, "duplicates": self.duplicates}

    def figures(self) -> dict[str, float]:
        """Returns the shares of rows that are filtered out and that yield an image."""
        return shares(self.stream)

    def results(self) -> dict[str, Any]:
        """Returns the source's revision, the rows by status, the units that could not be read, and
        the lines about what the source does not read."""
        return {
            "revision": self.source.revision,
            "rows": dict(self.stream.counts),
            "unreadable_units": dict(self.stream.attempts.unreadable),
            "not_read": list(self.source.unused),
        }

    def ended(self) -> str:
        """Returns why the stream has no more images, or ""."""
        return self._loader.ended


def announce_sizes(config: TrainConfig, parts: Parts, display: Display) -> None:
    """Displays the image sizes of a run with buckets. Raises unless all divide into whole
    tokens."""
    sizes = config.images.targets
    check_sizes(sizes, parts)
    listed = ", ".join(f"{width} x {height}" for width, height in sizes)
    display.say(f"{len(sizes)} image sizes (the step compiles once for each): {listed}")


def check_duplicates(stream: Stream, position: Any) -> str | None:
    """Returns the hash of the list of duplicates. Raises if the position has another one."""
    listed = stream.attempts.duplicates.sha256
    if isinstance(position, dict) and position.get("duplicates") != listed:
        raise UsageError(
            "resume: the list of duplicates (filters.duplicates) has changed since the run was "
            "started. Restore the original list, or start a new run with --name"
        )
    return listed


def start_position(source: Source, held_out: HeldOut, position: Any) -> Position:
    """Returns the start of a stream: the checkpoint's position, or the one after the held-out
    rows."""
    if position is None:
        return held_out.start(source.revision)
    if not isinstance(position, dict):
        raise UsageError("resume", position, problem="not a position in a stream")
    return unpack_position(position, source.revision)


def shares(stream: Stream) -> dict[str, float]:
    """Returns the number of attempted rows, the share of them that yielded an image, and the share
    of the rows read that was filtered out."""
    counts, attempts = (
        dict(stream.counts),
        stream.attempts,
    )  # copied, because another thread adds to it
    tried = sum(n for status, n in counts.items() if not is_dropped(status))
    return {
        "rows_tried": tried,
        "alive_share": counts.get("ok", 0) / tried if tried else 0.0,
        "filtered_share": attempts.dropped / attempts.read if attempts.read else 0.0,
    }
