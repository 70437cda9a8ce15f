"""Holds the rows of one unit, their images and outcomes, while the unit is prepared."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from pinxit.config import UsageError
from pinxit.data.fetch.fetcher import UNREACHED
from pinxit.data.filters.row_filter import Filter
from pinxit.data.images.decode import Decoded, encode_image
from pinxit.data.outcome import Outcome
from pinxit.data.prepared.shards import (
    ShardInfo,
    pack,
    shape_name,
    unpack,
    write_shard,
)
from pinxit.data.row import Row, Unit
from pinxit.data.row_images import reason_to_drop
from pinxit.data.url_host import host_of
from pinxit.prepare.finished_rows import FinishedRows, is_enlarged
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.outcome_files import write_outcomes
from pinxit.prepare.placeholders import Fingerprint, find_placeholders
from pinxit.prepare.rejected_previews import Previews
from pinxit.prepare.spool import Spool
from pinxit.text_decoding import valid_unicode

QUALITY = 95
"""The quality of the JPEG images in the shards."""


class UnitRows:
    """The rows of one unit, their images and outcomes, while the unit is done."""

    def __init__(
        self,
        unit: Unit,
        spool: Spool,
        row_filter: Filter,
        finished: FinishedRows,
        previews: Previews,
    ) -> None:
        self.unit = unit
        self.spool = spool
        """Finished records by key."""
        self.filter = row_filter
        self.finished = finished
        """The rows of a retried unit that are not tried again."""
        self.previews = previews
        self.rows: dict[str, Row] = {}
        """All rows by key, in their order, without images."""
        self.sizes = finished.sizes
        """Shapes of the finished images by key, as `shape_name` writes them."""
        self.prints = finished.prints
        """Fingerprints of the decoded images by key."""
        self.enlarged = finished.enlarged
        """Keys of the images that are smaller than their targets."""
        self.outcomes: dict[str, Outcome] = {}

    def record(self, key: str, status: str, detail: str = "") -> None:
        """Records the outcome of a row, which must not have one yet."""
        if key in self.outcomes:
            before = self.outcomes[key].status
            raise RuntimeError(f"row {key} has two outcomes: {before}, {status}")
        self.outcomes[key] = Outcome(key, status, valid_unicode(detail))

    def needs_image(self, row: Row) -> bool:
        """Registers a row, and returns whether its image is needed."""
        if row.key in self.rows:
            raise UsageError(f"the source has two rows with the key {row.key}")
        self.rows[row.key] = _without_image(row)
        if row.key in self.finished.outcomes:
            self.outcomes[row.key] = self.finished.outcomes[row.key]
            return False
        reason = reason_to_drop(row, self.filter)
        if reason is not None:
            self.record(row.key, reason, row.detail)
            self.previews.reject(reason, row, self.filter)
        return reason is None

    def decoded(self, key: str, decoded: Decoded) -> None:
        """Records the row's outcome, and puts a finished image into the spool."""
        self.record(key, decoded.status, decoded.detail)
        if decoded.image is not None:
            meta = {
                "key": key,
                "caption": self.rows[key].caption,
                "original": list(decoded.original),
                "crop": list(decoded.crop),
            }
            jpeg = encode_image(decoded.image, quality=QUALITY)
            self.sizes[key] = shape_name(decoded.image.shape)
            self.prints[key] = Fingerprint(decoded.body, decoded.look)
            if is_enlarged(decoded.crop, decoded.image.shape):
                self.enlarged.add(key)
            self.spool[key] = pack({"jpeg": np.frombuffer(jpeg, np.uint8)}, meta)

    def drop_placeholders(self, most: int) -> None:
        """Drops the pictures that more than `most` URLs of one host led to.

        The rows that a retry does not try again take part, so that the result is the same as if all
        rows had been tried at once.
        """
        for card in find_placeholders(self.rows, self.prints, most):
            first = card.keys[0]
            if first in self.spool:
                jpeg = unpack(self.spool[first])[0]["jpeg"].tobytes()
                caption = f"{card.detail}: {self.rows[first].caption}"
                self.previews.show("placeholder", first, caption, jpeg)
            for key in card.keys:
                self.outcomes[key] = Outcome(key, "placeholder", card.detail)
                if key in self.spool:
                    del self.spool[key], self.sizes[key]
                    self.enlarged.discard(key)

    def counts(self) -> dict[str, int]:
        """Returns the number of rows by status."""
        statuses = Counter(outcome.status for outcome in self.outcomes.values())
        return dict(sorted(statuses.items()))

    def unreached(self) -> Counter[str]:
        """Returns the number of rows that did not reach their host, by host."""
        rows = (row for key, row in self.rows.items() if self.outcomes[key].status in UNREACHED)
        return Counter(host_of(row.url) for row in rows)

    def measured(self) -> dict[str, Any]:
        """Returns the score histograms for the report."""
        return {
            "histograms": self.filter.histograms.to_json(),
            "missing": dict(sorted(self.filter.missing.items())),
        }

    def described(self) -> dict[str, Any]:
        """Returns the number of images by shape, in the order of the shard, the first row of each
        status other than ok, and the number of enlarged images with the first one."""
        examples: dict[str, str] = {}
        for key, row in self.rows.items():
            status = self.outcomes[key].status
            if status != "ok":
                examples.setdefault(status, row.shown_name)
        shapes = dict(sorted(Counter(self.sizes.values()).items()))
        first = next((row.shown_name for key, row in self.rows.items() if key in self.enlarged), "")
        return {
            "shapes": shapes,
            "examples": dict(sorted(examples.items())),
            "enlarged": {"rows": len(self.enlarged), "example": first},
        }

    def write(self, ledger: Ledger, generation: int) -> dict[str, ShardInfo]:
        """Writes the unit's files, and returns their descriptions by folder.

        There is no shard if no image is kept.
        """
        unit, spool = self.unit.id, self.spool
        path = ledger.path("outcomes", unit, generation=generation)
        files = {"outcomes": write_outcomes(path, self.rows, self.outcomes, self.prints)}
        if len(spool):
            path = ledger.path("images", unit, generation=generation)
            keys = sorted((key for key in self.rows if key in spool), key=self.sizes.__getitem__)
            files["images"] = write_shard(path, (spool[key] for key in keys))
        return files

    def check(self) -> None:
        """Raises RuntimeError if a row is lost."""
        images = {key for key, outcome in self.outcomes.items() if outcome.status == "ok"}
        lost = [key for key in self.rows if key not in self.outcomes]
        lost += [key for key in images if key not in self.spool]
        if lost or len(images) != len(self.spool):
            raise RuntimeError(f"unit {self.unit.id}: {len(lost)} rows are lost: {lost[:3]}")


def _without_image(row: Row) -> Row:
    """Returns the row without its image, and with text that can be encoded as UTF-8."""
    url, origin = (None if text is None else valid_unicode(text) for text in (row.url, row.origin))
    name = None if row.name is None else valid_unicode(row.name)
    caption = valid_unicode(row.caption)
    return Row(
        row.key,
        url,
        caption,
        row.width,
        row.height,
        scores=row.scores,
        origin=origin,
        name=name,
    )
