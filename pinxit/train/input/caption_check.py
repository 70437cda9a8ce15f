"""Warns when the captions of the first batches cannot teach anything."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

LOOKED_AT = 64
"""Samples whose captions are looked at before anything is said of them."""
PlaceFn = Callable[[dict[str, Any]], dict[str, Any]]


class Intake:
    """Places batches on the devices, and warns if the captions of the first ones say nothing."""

    def __init__(self, place: PlaceFn, say: Callable[[str], None]) -> None:
        self.place = place
        self.say = say
        self.captions = CaptionCheck()

    def __call__(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Returns the batch on its devices."""
        if not self.captions.done and (warning := self.captions.look(columns)):
            self.say(f"warning: {warning}")
        return self.place(columns)


class CaptionCheck:
    """Looks at the text of the first samples: whether there is any, and whether it differs."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.count = 0
        self.masked = True
        self.done = False

    def look(self, columns: Mapping[str, Any]) -> str | None:
        """Returns a warning, at most once, when enough samples were seen.

        `columns` are a batch's ``token_ids``, or ``text_tokens`` and ``text_mask``, on the host.
        """
        if self.done:
            return None
        names = sorted(n for n in columns if n.startswith(("token_ids", "text_tokens")))
        if not names:
            self.done = True
            return None
        arrays = [np.asarray(columns[name]) for name in names]
        masks = [np.asarray(columns[n]) for n in sorted(columns) if n.startswith("text_mask")]
        self.masked &= bool(masks) and not any(mask.any() for mask in masks)
        for rows in zip(*arrays, strict=True):
            digest = hashlib.blake2b(digest_size=16)
            for row in rows:
                digest.update(np.ascontiguousarray(row).tobytes())
            self.seen.add(digest.digest())
            self.count += 1
        self.done = self.count >= LOOKED_AT or (len(self.seen) > 1 and not self.masked)
        return self._said() if self.done else None

    def _said(self) -> str | None:
        what = None
        if self.masked:
            what = "the text's mask is false everywhere, so the model sees no token of any caption"
        elif len(self.seen) == 1:
            what = f"the first {self.count} captions are all the same to the text encoder"
        if what is None:
            return None
        return (
            f"{what}: nothing can be learned from text; look at the column that captions are read "
            "from (--columns caption=NAME) and at --caption_cleaning"
        )
