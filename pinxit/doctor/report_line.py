"""One line of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Line:
    """What was looked at, how it is, and what to do about it."""

    status: Status
    """A problem will stop or spoil a run; a warning costs speed or may become a problem."""
    name: str
    said: str
    advice: str = ""


def ok(name: str, said: str) -> Line:
    """All is well."""
    return Line("ok", name, said)


def warning(name: str, said: str, advice: str = "") -> Line:
    """Something that costs speed, or may become a problem."""
    return Line("warning", name, said, advice)


def problem(name: str, said: str, advice: str = "") -> Line:
    """Something that stops or spoils a run."""
    return Line("problem", name, said, advice)


def size(count: float) -> str:
    """Bytes in words."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"
