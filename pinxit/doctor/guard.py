"""Runs each check of a report so that whatever it meets becomes a line, and the others still run.

A report is read when something is broken, so no state of a machine or a run may end it. A check
that raises, of whatever type, yields a problem line: what it read, the error, and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pinxit.config import UsageError
from pinxit.doctor.report_line import Line, problem

Check = Callable[[], Iterable[Line]]
LONGEST = 300
"""Number of characters of an error that a line shows."""


def guarded_check(name: str, check: Check, *, read: object, advice: str) -> Iterator[Line]:
    """Yields the lines of a check, and a problem line if it raises.

    `read` names the file or device that the check reads, and `advice` says what to do then.
    """
    try:
        yield from check()
    except (Exception, SystemExit) as error:  # the report goes on, whatever this check met
        yield problem(name, f"{read} could not be checked: {error_text(error)}", advice)


def error_text(error: BaseException) -> str:
    """Describes an exception on one line: what a system call or a user error says, or its type."""
    if isinstance(error, UsageError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    else:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
