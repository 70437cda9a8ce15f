"""The cache of encoded datasets keeps what is used and what fits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pinxit import cache_limit
from pinxit.cache_limit import STALE_SECONDS, hold, limit_cache

HOLDER = """
import sys
from pathlib import Path
from pinxit.cache_limit import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    yield
    for descriptor in cache_limit._HELD.values():
        os.close(descriptor)
    cache_limit._HELD.clear()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Five entries of 1 MB; "0" was used longest ago."""
    for number in range(5):
        entry = tmp_path / str(number)
        entry.mkdir()
        (entry / "array.npy").write_bytes(bytes(10**6))
        os.utime(entry, (1000 + number, 1000 + number))
    return tmp_path


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


def test_what_was_used_least_recently_is_removed_with_a_line(cache: Path):
    lines: list[str] = []
    limit_cache(cache, gigabytes=0.005, say=lines.append)
    assert names(cache) == set("01234") and lines == []
    hold(cache / "0")
    limit_cache(cache, gigabytes=0.003, say=lines.append)
    assert names(cache) == set("034")
    assert lines == [
        f"{cache}: removed 0.00 GB of encoded datasets that were used least recently; 0.00 GB "
        "remain (--cache_gb 0.003)"
    ]
    limit_cache(cache, gigabytes=0, say=lines.append)
    assert names(cache) == {"0"}


def test_what_another_process_uses_is_left_and_goes_when_it_has_ended(cache: Path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(cache / "1")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        limit_cache(cache, gigabytes=0, say=lambda line: None)
        assert names(cache) == {"1"}
    limit_cache(cache, gigabytes=0, say=lambda line: None)
    assert names(cache) == set()


def test_remains_of_a_killed_process_are_removed_after_an_hour(cache: Path):
    for name, age in (("fresh", 60), ("old", STALE_SECONDS + 60)):
        folder = cache / f".{name}.123.partial"
        folder.mkdir()
        (folder / "array.npy").write_bytes(b"half")
        for path in (folder / "array.npy", folder):
            os.utime(path, (time.time() - age,) * 2)
    limit_cache(cache, gigabytes=1, say=lambda line: None)
    assert names(cache) == {*"01234", ".fresh.123.partial"}


def test_a_cache_that_cannot_be_cleaned_is_a_warning(tmp_path: Path):
    lines: list[str] = []
    limit_cache(tmp_path / "none", gigabytes=1, say=lines.append)
    assert len(lines) == 1 and lines[0].startswith(f"warning: {tmp_path / 'none'} could not be cl")
