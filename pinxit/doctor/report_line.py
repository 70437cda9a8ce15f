"""One line of a report by `pinxit doctor`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Line:
    """The result of one check, with advice if something is wrong."""

    status: Status
    """A problem will stop or spoil a run; a warning costs speed or may become a problem."""
    name: str
    message: str
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as they stand in the output of ``--json``."""
        values = asdict(self)
        values["said"] = values.pop("message")
        return values


def ok(name: str, message: str) -> Line:
    """Returns a line for a check that passed."""
    return Line("ok", name, message)


def warning(name: str, message: str, advice: str = "") -> Line:
    """Returns a line for something that costs speed or may become a problem."""
    return Line("warning", name, message, advice)


def problem(name: str, message: str, advice: str = "") -> Line:
    """Returns a line for something that stops or spoils a run."""
    return Line("problem", name, message, advice)


def size(count: float) -> str:
    """Formats bytes as TB, GB or MB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"
