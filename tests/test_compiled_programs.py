"""JAX's cache of compiled programs, with processes that write at once or are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from jax._src.lru_cache import LRUCache

from pinxit.compiled_programs import write_whole_entries

PROGRAM = """
import jax, jax.numpy as jnp
from pinxit.compiled_programs import write_whole_entries
write_whole_entries()
print(float(jax.jit(lambda x: jnp.sin(x) @ x.T + 1)(jnp.ones((8, 8))).sum()))
"""


def test_an_entry_is_never_seen_half_written(tmp_path: Path, monkeypatch):
    write_whole_entries()
    write_whole_entries()  # a second call changes nothing
    cache, sizes = LRUCache(str(tmp_path), max_size=-1), []
    write = Path.write_bytes

    def killed(path: Path, data: bytes) -> int:
        write(path, data[: len(data) // 2])
        sizes.append((tmp_path / "key-cache").exists())
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.put("key", b"x" * 1000)
    assert sizes == [False] and cache.get("key") is None
    monkeypatch.undo()
    cache.put("key", b"x" * 1000)
    assert cache.get("key") == b"x" * 1000


def test_a_damaged_entry_is_written_again(tmp_path: Path):
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    def run() -> tuple[str, str]:
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        return done.stdout, done.stderr

    result, _ = run()
    entries = {path: path.read_bytes() for path in tmp_path.glob("*-cache")}
    assert entries
    for path, data in entries.items():
        path.write_bytes(data[: len(data) // 2])
    again, warnings = run()
    assert again == result and "Error reading persistent compilation cache" in warnings
    last, warnings = run()
    assert last == result and "Error reading" not in warnings
