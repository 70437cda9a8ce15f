"""Reads the rows of a finished unit that a retry does not try again."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from pinxit.data.outcome import Outcome, can_heal
from pinxit.data.prepared.shards import ShardReader, shape_name, unpack
from pinxit.prepare.ledger import Ledger, UnitRecord
from pinxit.prepare.outcome_files import read_outcomes, read_prints
from pinxit.prepare.placeholders import Fingerprint
from pinxit.prepare.spool import Spool


@dataclass
class FinishedRows:
    """The rows of a unit that a retry does not try again."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    sizes: dict[str, str] = field(default_factory=dict)
    """Shapes of the images by key."""
    prints: dict[str, Fingerprint] = field(default_factory=dict)
    enlarged: set[str] = field(default_factory=set)


def finished_rows(ledger: Ledger, before: UnitRecord, spool: Spool) -> FinishedRows:
    """Returns the rows that a retry keeps, and puts the existing images into the spool."""
    paths = {folder: ledger.root / folder / info.name for folder, info in before.files.items()}
    finished = FinishedRows(prints=read_prints(paths["outcomes"]))
    for outcome in read_outcomes(paths["outcomes"]):
        if not can_heal(outcome.status):
            finished.outcomes[outcome.key] = outcome
    if "images" in paths:
        with ShardReader(paths["images"]) as reader:
            for record in reader:
                arrays, meta = unpack(record)
                key = meta["key"]
                spool[key] = record
                with Image.open(io.BytesIO(arrays["jpeg"].tobytes()), formats=("JPEG",)) as picture:
                    shape = (picture.height, picture.width, 3)
                finished.sizes[key] = shape_name(shape)
                if is_enlarged(meta["crop"], shape):
                    finished.enlarged.add(key)
    return finished


def is_enlarged(crop: Sequence[int], shape: Sequence[int]) -> bool:
    """Returns whether the part of the original that an image shows is smaller than the image."""
    left, upper, right, lower = crop
    return right - left < shape[1] or lower - upper < shape[0]
