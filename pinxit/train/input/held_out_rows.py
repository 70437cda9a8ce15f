"""The first usable rows of a stream, which are held out for the validation loss."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pinxit.arrays import Example
from pinxit.data.images.decode import decode_jpeg, encode_image
from pinxit.data.row import Source
from pinxit.files import sweep, whole_folder
from pinxit.train.input.image_stream import RowImage, Stream, pack_position, unpack_position
from pinxit.train.input.portions import Position


class HeldOut:
    """The first usable rows of a stream, stored in a folder and never trained on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "rows.json"
        self.record: dict[str, Any] | None = (
            json.loads(path.read_text()) if path.is_file() else None
        )
        """The keys and captions of the rows, and the position after them, as plain JSON."""

    @property
    def complete(self) -> bool:
        """Whether the rows have been written."""
        return self.record is not None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the rows."""
        return tuple(self.record["keys"]) if self.record else ()

    def start(self, source: Source) -> Position:
        """Returns the stream's position after the rows."""
        return unpack_position(self.record["position"], source) if self.record else Position()

    def hold_out(self, images: Iterator[RowImage], stream: Stream) -> None:
        """Writes these images of the stream, atomically."""
        sweep(self.folder.parent, lambda name: name == self.folder.name)  # remains of a killed run
        with whole_folder(self.folder) as temporary:
            rows = []
            for number, row in enumerate(images):
                stream.attempts.excluded.add(row.attempt.row.key)
                (temporary / f"{number:05d}.jpg").write_bytes(encode_image(row.image))
                rows.append(row)
            position = stream.position([stream.settle([row.attempt for row in rows])])
            keys = [row.attempt.row.key for row in rows]
            record = {
                "keys": keys,
                "captions": [row.caption for row in rows],
                "position": pack_position(position, stream.source.revision),
            }
            (temporary / "rows.json").write_text(json.dumps(record, indent=1))
        self.record = record

    def examples(self, count: int) -> list[Example]:
        """Returns the first `count` rows, as read from the disk."""
        if self.record is None:
            return []
        captions = self.record["captions"][:count]
        return [
            Example(decode_jpeg((self.folder / f"{i:05d}.jpg").read_bytes()), caption)
            for i, caption in enumerate(captions)
        ]
