"""The folder of the user's machine in which Pinxit keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """Returns the path of an entry of the cache: ``~/.cache/pinxit/NAME``, or below
    ``XDG_CACHE_HOME`` if that is set. It may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pinxit" / name
