"""Makes JAX's cache of compiled programs safe for several processes, and for ones that are killed.

JAX (0.10.2) writes an entry in place: another process may read half of it, and a process that is
killed leaves half of it for ever, since existing entries are never written again. Its own lock,
which comes with a limit of the cache's size, only helps against the first. JAX has no setting for
the way entries are written, so its method is replaced.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from pinxit.files import whole


def write_whole_entries() -> None:
    """Makes JAX write entries whole or not at all, and replace those that cannot be read.

    Does nothing for a cache with a limit of its size, for one that is not a local folder, or in a
    version of JAX whose cache has another form.
    """
    with suppress(ImportError, AttributeError):
        from jax._src.lru_cache import LRUCache

        _replace_put(LRUCache)


def _replace_put(cache: Any) -> None:
    original = cache.put
    if getattr(original, "whole_entries", False):
        return

    def put(self: Any, key: str, value: bytes) -> None:
        folder = str(self.path)
        if not key or self.eviction_enabled or "://" in folder:
            return original(self, key, value)
        # JAX asks only for entries that it has not found or could not read
        with whole(Path(folder) / f"{key}-cache") as temporary:
            temporary.write_bytes(value)
        return None

    put.whole_entries = True  # type: ignore[attr-defined]
    cache.put = put
