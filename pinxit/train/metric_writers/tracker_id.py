"""The id of a run at a tracker, which a resumed run uses again."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from pinxit.config import read_json
from pinxit.files import write_json


def tracker_id(path: Path) -> str:
    """Returns the id that a file in the run's folder holds. The first call makes one and stores
    it, so that two runs of one name have two ids."""
    stored = read_json(path) if path.is_file() else None
    if isinstance(stored, dict) and re.fullmatch(r"\w{1,64}", str(stored.get("id"))):
        return str(stored["id"])
    new = secrets.token_hex(8)
    write_json(path, {"id": new})
    return new


def display_name(name: str, *, limit: int) -> str:
    """Returns a run's name with its printable characters only, and at most `limit` of them."""
    return "".join(letter for letter in name if letter.isprintable())[:limit]
