"""The first good rows of a stream, set aside for the validation loss before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pinxit.arrays import Example
from pinxit.data.images.decode import decode_jpeg, encode_image
from pinxit.files import sweep, whole_folder
from pinxit.train.input.attempt_order import Position
from pinxit.train.input.image_stream import RowImage, Stream, pack_position, unpack_position


class HeldOut:
    """The first good rows of a stream, kept in a folder and never trained on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "rows.json"
        self._kept = json.loads(path.read_text()) if path.is_file() else None

    @property
    def kept(self) -> bool:
        """Whether they have been set aside."""
        return self._kept is not None

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the rows."""
        return tuple(self._kept["keys"]) if self._kept else ()

    def start(self, revision: str | None) -> Position:
        """The stream's position behind them."""
        return unpack_position(self._kept["position"], revision) if self._kept else Position()

    def set_aside(self, images: Iterator[RowImage], stream: Stream) -> None:
        """Writes these images of the stream, all or none."""
        sweep(self.folder.parent, lambda name: name == self.folder.name)  # of a killed run
        with whole_folder(self.folder) as temporary:
            rows = []
            for number, found in enumerate(images):
                stream.attempts.excluded.add(found.attempt.row.key)
                (temporary / f"{number:05d}.jpg").write_bytes(encode_image(found.image))
                rows.append(found)
            position = stream.settle([found.attempt for found in rows])
            keys = [found.attempt.row.key for found in rows]
            kept = {
                "keys": keys,
                "captions": [found.caption for found in rows],
                "position": pack_position(position, stream.source.revision),
            }
            (temporary / "rows.json").write_text(json.dumps(kept, indent=1))
        self._kept = kept

    def examples(self, count: int) -> list[Example]:
        """The first `count` of them, as they are on the disk."""
        if self._kept is None:
            return []
        captions = self._kept["captions"][:count]
        return [
            Example(decode_jpeg((self.folder / f"{i:05d}.jpg").read_bytes()), caption)
            for i, caption in enumerate(captions)
        ]
