"""The list of all units of a dataset, which the first stage writes before it begins.

Another command that encodes the units as they are finished learns from it how many there will be.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from pinxit.config import UsageError
from pinxit.data.prepared.manifest import Manifest
from pinxit.files import write_json

NAME = "units/list.json"
"""The file in the prepared folder."""


def write_unit_list(root: Path, units: Sequence[str]) -> None:
    """Writes the ids of all units, in the order of the source, unless they are written."""
    if _stored(root) != list(units):
        write_json(root / NAME, {"units": list(units)})


def read_unit_list(root: Path) -> tuple[list[str], dict[str, str]]:
    """Returns the ids of all units, and the reasons for those that the manifest leaves out.

    A folder of an older version has no list, and its manifest is read. Raises
    `manifest.Unfinished` if it has neither.
    """
    stored = _stored(root)
    if stored is not None:
        return stored, {}
    manifest = Manifest.read(root)
    return list(manifest.units), dict(manifest.skipped)


def _stored(root: Path) -> list[str] | None:
    """Returns the stored list, or None if there is none or it is damaged."""
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError, UsageError):
        units = json.loads((root / NAME).read_text("utf-8"))["units"]
        if isinstance(units, list) and all(isinstance(unit, str) for unit in units):
            return units
    return None
