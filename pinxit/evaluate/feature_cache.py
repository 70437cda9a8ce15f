"""The folder that keeps features of reference pictures for later evaluations.

Entries are named by a hash of the pictures' pixels and of the network, so that they never belong to
other pictures. Several processes may write to one entry, because rows of features are the same
whichever process computes them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pinxit.cache_limit import limit_cache
from pinxit.user_cache import user_cache

VARIABLE = "PINXIT_FEATURES"
"""The environment variable with the path of the folder; if it is empty, nothing is kept."""
GIGABYTES = 10.0
"""Largest size of the folder. Entries that were used least recently are removed above it."""


def feature_cache() -> Path | None:
    """Returns the folder, or None if it cannot be written to, or if `VARIABLE` is empty."""
    named = os.environ.get(VARIABLE)
    if named == "":
        return None
    folder = Path(named).expanduser() if named else user_cache("features")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def limit_features(cache: Path) -> None:
    """Removes the entries that were used least recently until the folder has at most
    `GIGABYTES`."""
    limit_cache(
        cache,
        gigabytes=GIGABYTES,
        say=lambda line: print(f"pinxit: {line}", file=sys.stderr),
        contents="features of pictures",
        setting="the limit is",
    )
