"""Training on a source whose images are fetched and encoded while the run trains.

In a run of several processes, each fetches and encodes the images of its own part of the batches.
Process 0 alone fetches the held-out rows, before the others begin. All keep logs of outcomes:
``outcomes.jsonl`` is that of process 0, ``outcomes-1.jsonl`` that of process 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import jax

from pinxit.arrays import Example
from pinxit.config import UsageError, from_json, to_json
from pinxit.data.row import Source
from pinxit.devices.mesh import check_own_rows, local_mesh, local_rows
from pinxit.devices.processes import alone, collected, is_first, several
from pinxit.progress import counted
from pinxit.train.build import Parts, check_sizes, text_columns_for
from pinxit.train.display import Display
from pinxit.train.input.common_loader import CommonLoader
from pinxit.train.input.encode_chunk import stream_chunk
from pinxit.train.input.feed import Feed
from pinxit.train.input.held_out_rows import HeldOut
from pinxit.train.input.image_stream import (
    Stream,
    cut_log,
    pack_position,
    tried,
    unpack_position,
)
from pinxit.train.input.outage import Outage
from pinxit.train.input.portions import Position, StreamProgress
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
        changed since then. All processes must call it."""
        self.config = config
        self.display = display
        self.source = source
        self.root = folder.root
        self.held_out_count = config.evaluation.images
        """Number of rows to hold out."""
        self.reserved = HeldOut(folder.held_out)
        if several():
            check_own_rows(parts.mesh, config.batch_size, data="streamed data")
            self.reserved.record = alone(lambda: self.reserved.record)
        if config.images.bucketed:
            announce_sizes(config, parts, display)
        self.start = start_position(source, self.reserved, position)
        """The position at which the processes of this command start."""
        self.text = text_columns_for(config, parts)
        self.stream = self._open_stream()
        self.duplicates = check_duplicates(self.stream, position)
        self.loader = self._loader = self._make_loader(parts)
        self._saves = 0
        self._counts: Mapping[str, int] = self.start.counts
        """Number of rows by status at the last checkpoint, over all processes."""

    def _open_stream(self, *, alone: bool = False) -> Stream:
        """Opens the rows of this process, or with `alone` those of all processes."""
        config = self.config
        return Stream(
            self.source,
            filters=config.filters,
            fetch=config.fetch,
            images=config.images,
            seed=config.seed,
            start=self.start,
            excluded=self.reserved.keys,
            process=0 if alone else jax.process_index(),
            processes=1 if alone else jax.process_count(),
            log=outcome_log(self.root, jax.process_index()),
            say=self._say,
            outage=Outage(hours=config.outage_hours, say=self._say),
        )

    def _say(self, text: str) -> None:
        """Displays a message of this process, which process 0 does for the others."""
        if is_first():
            self.display.say(text)
        else:
            assert isinstance(self._loader, CommonLoader)
            self._loader.tell(text)

    def _make_loader(self, parts: Parts) -> StreamedLoader:
        """Makes the loader, whose images are encoded on the devices of this process."""
        config = self.config
        mesh = local_mesh() if several() else parts.mesh
        rows = local_rows(parts.mesh, config.batch_size)
        chunk = stream_chunk(config.image_size, len(rows), devices=mesh.size)
        autoencoder = parts.autoencoder if config.encodes_ahead else None
        encode = make_row_encoder(autoencoder, self.text, chunk=chunk, mesh=mesh)
        self.text_columns = self.text.whole([""], chunk=chunk)
        if not several():
            return StreamedLoader(self.stream, encode, batch_size=config.batch_size, chunk=chunk)
        return CommonLoader(
            self.stream,
            encode,
            batch_size=config.batch_size,
            rows=rows,
            chunk=chunk,
            process=jax.process_index(),
            processes=jax.process_count(),
            say=self.display.say,
        )

    def begin(self, step: int) -> None:
        """Fetches the held-out rows, unless an earlier part of the run has done so."""
        self.root.mkdir(parents=True, exist_ok=True)  # the processes may have folders of their own
        if is_first():
            cut_other_logs(self.root, self.start, jax.process_count())
        if not self.held_out_count or self.reserved.complete:
            return
        if not several():
            self._hold_out(self.stream)
            return

        def hold_out() -> dict[str, Any] | None:
            self._hold_out(self._open_stream(alone=True))
            return self.reserved.record

        self.reserved.record = alone(hold_out)
        self.start = self.reserved.start(self.source)
        self.stream = self._open_stream()
        self._loader.use(self.stream)

    def _hold_out(self, stream: Stream) -> None:
        """Fetches the held-out rows as the first images of a stream."""
        what = f"fetching {counted(self.held_out_count, 'held-out row')}"

        def hold_out(images: Any) -> None:
            images = islice(images, self.held_out_count)
            tracked = self.display.track(images, what, self.held_out_count, unit="row")
            self.reserved.hold_out(tracked, stream)

        if stream is self.stream:
            hold_out(self._loader.images)
            return
        with closing(stream.row_images()) as images:
            hold_out(images)

    def watch(self, interrupted: Callable[[], bool]) -> None:
        """Cancels waiting for a batch once `interrupted` returns True."""
        self._loader.interrupted = interrupted

    def held_out(self) -> list[Example]:
        """Returns the first usable rows of the stream, which are never trained on. Only process 0
        has them."""
        return self.reserved.examples(self.held_out_count)

    def position(self, step: int) -> dict[str, Any]:
        """Returns the stream's position after the batches before `step`. All processes must call
        it; those other than process 0 get an empty dict."""
        progress = self._loader.progress(step)
        self._saves += 1
        key = f"pinxit/stream/progress/{self._saves}"
        texts = collected(key, json.dumps(to_json(progress))) if several() else []
        if not is_first():
            return {}
        every = [unpack_progress(text) for text in texts] or [progress]
        position = self.stream.position(every)
        self._counts = position.counts
        packed = pack_position(position, self.source.revision)
        return {**packed, "duplicates": self.duplicates}

    def figures(self) -> dict[str, float]:
        """Returns the number of attempted rows, the share of them that yielded an image, and the
        share of the rows read that was filtered out."""
        figures, before = self._loader.figures(), self.start.counts
        attempts = tried(before) + figures.get("tried", 0)
        ok = before.get("ok", 0) + figures.get("ok", 0)
        read = figures.get("read", 0)
        return {
            "rows_tried": attempts,
            "alive_share": ok / attempts if attempts else 0.0,
            "filtered_share": figures["dropped"] / read if read else 0.0,
        }

    def results(self) -> dict[str, Any]:
        """Returns the source's revision, the rows by status, the units that could not be read, and
        the lines about what the source does not read."""
        return {
            "revision": self.source.revision,
            "rows": dict(self._counts),
            "unreadable_units": self._loader.unreadable(),
            "not_read": list(self.source.unused),
        }

    def ended(self) -> str:
        """Returns why the stream has no more images, or ""."""
        return self._loader.ended


def outcome_log(root: Path, process: int) -> Path:
    """Returns the path of a process's log of outcomes."""
    return root / (f"outcomes-{process}.jsonl" if process else "outcomes.jsonl")


def cut_other_logs(root: Path, start: Position, processes: int) -> None:
    """Removes the lines after the start from the logs of processes that the run no longer has."""
    for path in root.glob("outcomes-*.jsonl"):
        match = re.fullmatch(r"outcomes-(\d+)\.jsonl", path.name)
        if match is not None and int(match[1]) >= processes:
            cut_log(path, start.logged.get(match[1], 0))


def unpack_progress(text: str) -> StreamProgress:
    """Returns the progress of a process, which it has sent as JSON."""
    packed = json.loads(text)
    counts = packed.pop("counts")
    progress = from_json(StreamProgress, packed)
    return StreamProgress(progress.begun_count, progress.portions, counts, progress.logged)


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
        return held_out.start(source)
    if not isinstance(position, dict):
        raise UsageError("resume", position, problem="not a position in a stream")
    return unpack_position(position, source)
