"""Warns when the captions of the first batches cannot teach anything."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

LOOKED_AT = 64
"""Number of samples whose captions are checked before a warning."""
PlaceFn = Callable[[dict[str, Any]], dict[str, Any]]
GuardFn = Callable[[str, Callable[[], Any], Any], Any]
"""Runs a function under a name. Returns its result, or a default if it fails."""


def unguarded(name: str, act: Callable[[], Any], default: Any) -> Any:
    """Runs a function, whose exceptions are raised."""
    return act()


class Intake:
    """Places batches on the devices, and warns if the first captions cannot teach anything."""

    def __init__(
        self, place: PlaceFn, say: Callable[[str], None], guard: GuardFn = unguarded
    ) -> None:
        """Takes the function that places a batch. `guard` runs the check of captions, whose failure
        must not end a run."""
        self.place = place
        self.say = say
        self.guard = guard
        self.captions = CaptionCheck()

    def __call__(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Returns the batch on its devices."""
        if not self.captions.done:
            self.guard("checking captions", lambda: self._check(columns), None)
        return self.place(columns)

    def _check(self, columns: dict[str, Any]) -> None:
        try:
            if warning := self.captions.look(columns):
                self.say(f"warning: {warning}")
        except Exception:
            self.captions.done = True
            raise


class CaptionCheck:
    """Checks whether the first samples have text, and whether it differs between them."""

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
        return self._warning() if self.done else None

    def _warning(self) -> str | None:
        problem = None
        if self.masked:
            problem = (
                "the text's mask is false everywhere, so the model sees no token of any caption"
            )
        elif len(self.seen) == 1:
            problem = f"the first {self.count} captions are all the same to the text encoder"
        if problem is None:
            return None
        return (
            f"{problem}. The model cannot learn from text. Check the column that captions are read "
            "from (--columns caption=NAME), and --caption_cleaning"
        )
