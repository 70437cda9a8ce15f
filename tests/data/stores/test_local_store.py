"""The store of a local folder: ranges, many threads, few open files."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pinxit.data.stores.byte_store import ByteStore, LocalStore, open_store


@pytest.fixture
def folder(tmp_path):
    """Twelve files, whose bytes name the file and the position."""
    for number in range(12):
        data = (np.arange(4096) * (number + 3) % 251).astype(np.uint8)
        (tmp_path / f"{number}.bin").write_bytes(data.tobytes())
    return tmp_path


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_ranges_come_in_the_order_asked_and_end_with_the_file(folder):
    store = open_store(str(folder))
    assert isinstance(store, ByteStore) and store.root == str(folder)
    whole = {name: store.read(name) for name in ("3.bin", "7.bin")}
    wanted = [("7.bin", 10, 20), ("3.bin", 4090, 5000), ("7.bin", 0, 4096), ("3.bin", 9000, 9001)]
    read = store.ranges(wanted)
    assert read == [whole[name][start:stop] for name, start, stop in wanted]
    assert [len(one) for one in read] == [10, 6, 4096, 0]
    assert store.exists("3.bin") and not store.exists("x") and store.size("3.bin") == 4096
    with pytest.raises(FileNotFoundError):
        store.ranges([("3.bin", 0, 1), ("x", 0, 1)])
    with pytest.raises(FileNotFoundError):
        store.size("x")
    store.close()


def test_upload_replaces_a_file_whole(folder, tmp_path_factory):
    source = tmp_path_factory.mktemp("source") / "new"
    source.write_bytes(b"new")
    store = LocalStore(folder)
    store.upload(source, "deep/0.bin")
    assert store.read("deep/0.bin") == b"new"
    assert [path.name for path in (folder / "deep").iterdir()] == ["0.bin"]


def test_many_threads_read_while_files_are_closed(folder):
    """Two files may be open, and eight threads read twelve: a descriptor that is closed while it is
    used would give an error, or the bytes of another file that got its number."""
    store = LocalStore(folder, open_files=2)
    expected = {f"{number}.bin": store.read(f"{number}.bin") for number in range(12)}
    before = descriptors()

    def work(seed: int) -> int:
        random = np.random.default_rng(seed)
        for _ in range(150):
            ranges = []
            for _ in range(4):
                start = int(random.integers(0, 4000))
                name = f"{random.integers(0, 12)}.bin"
                ranges.append((name, start, start + int(random.integers(1, 90))))
            for (name, start, stop), data in zip(ranges, store.ranges(ranges), strict=True):
                assert data == expected[name][start:stop]
            if random.integers(0, 20) == 0:
                store.close()
        return seed

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(work, range(16))) == list(range(16))
    assert descriptors() <= before + 2
    store.close()
    assert descriptors() == before


def test_a_file_in_use_outlives_its_eviction(folder):
    store = LocalStore(folder, open_files=1)
    before = descriptors()
    with store._using("0.bin") as file:
        store.ranges([("1.bin", 0, 1)])
        store.close()
        assert os.pread(file.descriptor, 3, 0) == store.read("0.bin")[:3]
        assert descriptors() == before + 1
    assert descriptors() == before


def test_two_threads_that_open_one_file_keep_one_descriptor(folder, monkeypatch):
    store = LocalStore(folder)
    both, real = threading.Barrier(2), os.open

    def slow(path, flags):
        both.wait(5)
        return real(path, flags)

    before = descriptors()
    monkeypatch.setattr(os, "open", slow)
    with ThreadPoolExecutor(2) as pool:
        read = list(pool.map(lambda _: store.ranges([("5.bin", 0, 9)]), range(2)))
    assert read[0] == read[1] and descriptors() == before + 1
    store.close()


def test_idle_files_are_closed_if_no_more_can_be_opened(folder, monkeypatch):
    store = LocalStore(folder)
    store.ranges([(f"{number}.bin", 0, 1) for number in range(4)])
    before, real, refused = descriptors(), os.open, []

    def refuse_once(path, flags):
        if not refused:
            refused.append(path)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return real(path, flags)

    monkeypatch.setattr(os, "open", refuse_once)
    assert len(store.ranges([("9.bin", 0, 5)])[0]) == 5
    assert refused and descriptors() == before - 3
    store.close()


def test_half_of_the_files_that_a_process_may_open_are_for_a_store(folder, monkeypatch):
    monkeypatch.setattr("pinxit.data.stores.byte_store.limit_now", lambda: 8)
    store, before = LocalStore(folder), descriptors()
    for number in range(12):
        store.ranges([(f"{number}.bin", 0, 1)])
    assert descriptors() == before + 4
    store.close()


def test_an_error_of_the_disk_names_the_file(folder, monkeypatch):
    store = LocalStore(folder)

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(OSError, match=r"4\.bin") as caught:
        store.ranges([("4.bin", 0, 5)])
    assert caught.value.errno == errno.EIO
    store.close()
