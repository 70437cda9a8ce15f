"""Open tables are kept for the next unit: one for each reader, and none is used by two at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pinxit.data.sources.tables.open_tables import LastOpened


class Table:
    """Notes when it is closed and who uses it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.closed = False


class Opener:
    """Opens tables and remembers them."""

    def __init__(self) -> None:
        self.tables: list[Table] = []

    @contextmanager
    def __call__(self) -> Iterator[Table]:
        table = Table()
        self.tables.append(table)
        yield table
        table.closed = True

    @property
    def open(self) -> int:
        return sum(not table.closed for table in self.tables)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    for name in "ab":
        (tmp_path / name).write_text(name)
    return [str(tmp_path / name) for name in "ab"]


def test_a_single_reader_keeps_one_table(paths):
    kept, opener = LastOpened[Table](), Opener()
    for path in [paths[0], paths[0], paths[1], paths[0]]:
        with kept.taken(path, None, opener):
            assert opener.open == 1
    assert len(opener.tables) == 3
    with pytest.raises(ValueError), kept.taken(paths[0], None, opener):
        raise ValueError
    assert opener.open == 0


def test_each_of_two_readers_finds_its_table_again(paths):
    """Readers whose units overlap, as in threads."""
    kept, opener = LastOpened[Table](), Opener()
    first = kept.taken(paths[0], None, opener)
    table = first.__enter__()
    for _ in range(5):
        second = kept.taken(paths[1], None, opener)
        other = second.__enter__()
        first.__exit__(None, None, None)
        first = kept.taken(paths[0], None, opener)
        assert first.__enter__() is table is not other
        with kept.taken("memory://a", None, opener):
            assert opener.open == 3
        second.__exit__(None, None, None)
    first.__exit__(None, None, None)
    assert len(opener.tables) == 2 + 5 and opener.open == 1  # remote tables are never kept
    kept.close()
    assert opener.open == 0


def test_a_failure_to_open_leaves_no_reader_behind(paths):
    kept, opener = LastOpened[Table](), Opener()

    @contextmanager
    def failing() -> Iterator[Table]:
        raise OSError("it cannot be opened")
        yield

    for _ in range(3):
        with pytest.raises(OSError, match="cannot"), kept.taken(paths[0], None, failing):
            pass
    for path in paths:
        with kept.taken(path, None, opener):
            assert opener.open == 1


def test_no_table_is_used_by_two_threads(paths):
    kept, opener = LastOpened[Table](), Opener()

    def read(number: int) -> None:
        with kept.taken(paths[number % 2], None, opener) as table:
            assert not table.closed and table.lock.acquire(blocking=False)
            time.sleep(0.0001)
            table.lock.release()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(1000)))
    assert opener.open <= 9
    kept.close()
    assert opener.open == 0
