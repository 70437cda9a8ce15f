"""How large a request may be, and how slowly it may come."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
"""The bytes of one MiB."""
UPLOADS = ("/v1/images/edits", "/v1/jobs", "/studio/recipe")
"""Beginnings of the paths that take pictures."""


@dataclass(frozen=True)
class BodySizes:
    """The limits of a request's body."""

    plain: int = MIB
    """Bytes of a body on most paths."""
    upload: int = 32 * MIB
    """Bytes of a body on the paths that take pictures."""
    all: int = 256 * MIB
    """Bytes of all bodies together that are being received."""
    idle_seconds: float = 15.0
    """Seconds that may pass between two pieces of a body."""
    grace_seconds: float = 20.0
    """Seconds that a body may take whatever its size."""
    least_rate: float = 32 * 1024
    """Bytes per second that a longer body must reach on average."""

    def limit(self, path: str) -> int:
        """Returns the largest number of bytes of a body that is sent to the path."""
        return self.upload if path.startswith(UPLOADS) else self.plain

    def seconds(self, received: int) -> float:
        """Returns the seconds that a body may have taken when this number of bytes has arrived."""
        return self.grace_seconds + received / self.least_rate
