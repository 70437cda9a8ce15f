"""Tells damaged files of a source from the others, so that one among many stops nothing.

A file that cannot be read is listed as one unit, which fails when it is read. `first_readable`
finds the file that shows the columns of a source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from pinxit.config import UsageError
from pinxit.data.row import Unit
from pinxit.data.sources.files import File

REASONS = 3
"""The number of damaged files that a message explains."""

T = TypeVar("T")


class DamagedFile(UsageError):
    """Raised for a file that is empty, cut off, or not in the format of its name."""


def first_readable(name: str, files: Sequence[File], read: Callable[[File], T]) -> T:
    """Returns the result of `read` for the first file for which it does not raise `DamagedFile`.

    Raises `DamagedFile` with the first reasons if there is none. `name` is that of the source.
    """
    reasons = []
    for file in files:
        try:
            return read(file)
        except DamagedFile as error:
            if len(files) == 1:
                raise
            reasons.append(str(error))
    more = f"; and {len(reasons) - REASONS} more" if len(reasons) > REASONS else ""
    raise DamagedFile(
        f"{name}: none of the {len(files)} files can be read: {'; '.join(reasons[:REASONS])}{more}"
    )


def unreadable_unit(index: int, file: File) -> Unit:
    """Returns the unit of a whole file that cannot be read, whose number of rows is not known."""
    return Unit(f"{index:05d}-000", file.path)


def mended(unit: Unit) -> UsageError:
    """Returns the error for a unit that was damaged when it was listed, and is not any more.

    Its rows may belong to several units, which only a new listing can tell.
    """
    return UsageError(
        f"{unit.path} could not be read when its units were listed, and can be read now; run the "
        "same command again"
    )
