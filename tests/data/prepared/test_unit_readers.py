"""Shards of large datasets: sizes first, hashes behind the reading, and as many open as may be."""

import os
import threading
import time

import numpy as np
import packed_toys  # pyrefly: ignore
import prepared_toys as toys  # pyrefly: ignore
import pytest

from pinxit.data.prepared import background_hashes, unit_readers
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.data.prepared.shards import DamagedShard, ShardInfo, ShardReader, verify_shard
from pinxit.data.prepared.unit_readers import most_open

SIZES = (7, 5, 8, 1, 9)
COUNT = sum(SIZES)


@pytest.fixture
def root(tmp_path):
    return toys.latent_dataset(tmp_path, SIZES)


def rows(root, **more) -> PreparedRows:
    """A reader as of a large dataset."""
    return PreparedRows(root, columns=toys.numbers, hash_first=False, **more)


def hashes_of(found: PreparedRows):
    return found._records.units._hashes


def wait_for(condition) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def tail_flipped(root, unit: str):
    """A shard whose records are sound and whose SHA-256 is not: a bit of the unused part of its
    footer differs."""
    path = root / "latents" / f"{unit}.array_record"
    good = path.read_bytes()
    with ShardReader(path) as reader:
        records = list(reader)
    for position in range(len(good) - 1, 0, -1):
        packed_toys.flip(path, position)
        try:
            with ShardReader(path) as reader:
                if list(reader) == records:
                    return path
        except DamagedShard:
            pass
        path.write_bytes(good)
    raise AssertionError("every bit matters to ArrayRecord")


def test_a_batch_is_read_before_anything_is_hashed(root, monkeypatch):
    reached, go_on = threading.Event(), threading.Event()

    def held(path, info, between):
        reached.set()
        assert go_on.wait(20)
        verify_shard(path, info, between=between)

    monkeypatch.setattr(background_hashes, "verify_shard", held)
    found = rows(root)
    np.testing.assert_array_equal(found.take(np.arange(COUNT))["number"], np.arange(COUNT))
    assert reached.wait(10) and hashes_of(found).checked == 0
    go_on.set()
    wait_for(lambda: hashes_of(found).checked == len(SIZES))
    assert found.damaged == {}
    found.close()
    wait_for(lambda: not hashes_of(found)._thread.is_alive())


def test_a_wrong_hash_is_reported_later_and_the_shard_not_used_again(root):
    path = tail_flipped(root, "00002-000")
    said: list[str] = []
    found = rows(root, say=said.append)
    found.take(np.arange(COUNT))
    wait_for(lambda: found.damaged)
    assert list(found.damaged) == [f"latents/{path.name}"]
    assert len(said) == 1 and "its SHA-256 differs" in said[0]
    batch = found.take(np.arange(COUNT))
    assert not set(batch["number"]) & set(range(12, 20)) and found.replaced == 8
    assert path.exists()
    found.close()


def test_a_flipped_bit_in_a_record_is_never_served(root):
    packed_toys.flip(root / "latents" / "00002-000.array_record")
    found = rows(root)
    for _ in range(2):
        batch = found.take(np.arange(COUNT))
        expected = toys.encode(np.stack([toys.image(int(n)) for n in batch["number"]]))
        np.testing.assert_allclose(batch["latents"], expected, atol=3 / 127.5)
    assert not set(batch["number"]) & set(range(12, 20))
    assert list(found.damaged) == ["latents/00002-000.array_record"]
    found.close()


@pytest.mark.parametrize("damage", ["missing", "cut", "longer"])
def test_a_wrong_size_is_noticed_at_the_first_touch(root, damage):
    path = root / "latents" / "00002-000.array_record"
    if damage == "missing":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[:-5] if damage == "cut" else data + b"\0")
    found = rows(root)
    batch = found.take(np.arange(COUNT))
    assert not set(batch["number"]) & set(range(12, 20)) and found.replaced == 8
    found.close()


def test_held_out_rows_are_hashed_before_they_are_used(root):
    tail_flipped(root, "00004-000")
    found = rows(root)
    apart = found.hold_out(6)
    assert found.sound(apart).tolist() == []
    found.close()


def test_the_thread_has_the_lowest_priority_and_keeps_to_its_rate(root, monkeypatch):
    monkeypatch.setattr(background_hashes, "RATE", 1)  # the first shard would take hours
    found = rows(root)
    before = time.monotonic()
    found.take(np.arange(COUNT))
    thread = hashes_of(found)._thread
    wait_for(lambda: os.getpriority(os.PRIO_PROCESS, thread.native_id) == 19)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < 19
    found.take(np.arange(COUNT))
    found.end_checks()
    assert not thread.is_alive() and time.monotonic() - before < 60
    assert hashes_of(found).checked == 0
    found.take(np.arange(COUNT))  # reading goes on without it


def test_small_datasets_are_hashed_before_they_are_used(root, monkeypatch):
    tail_flipped(root, "00002-000")
    found = PreparedRows(root, columns=toys.numbers)
    assert not set(found.take(np.arange(COUNT))["number"]) & set(range(12, 20))
    monkeypatch.setattr(unit_readers, "HASH_FIRST", 100)
    other = PreparedRows(root, columns=toys.numbers)
    assert set(other.take(np.arange(COUNT))["number"]) == set(range(COUNT))
    other.close()


def test_shards_stay_open_up_to_the_limit_of_open_files(root, monkeypatch):
    opened: list[str] = []
    real = ShardReader.__init__

    def counted(self, path):
        opened.append(path.name)
        real(self, path)

    monkeypatch.setattr(ShardReader, "__init__", counted)
    found = rows(root)
    for _ in range(5):
        found.take(np.arange(COUNT))
    assert len(opened) == len(SIZES), "each shard is opened once"
    few = rows(root, open_shards=2)
    opened.clear()
    for _ in range(3):
        np.testing.assert_array_equal(few.take(np.arange(COUNT))["number"], np.arange(COUNT))
    assert len(opened) >= 3 * (len(SIZES) - 2)
    found.close()
    few.close()


def test_the_shards_of_a_batch_are_opened_at_the_same_time(root, monkeypatch):
    """Also those that are touched for the first time; a missing one is found when it is read."""
    (root / "latents" / "00001-000.array_record").unlink()
    together, real = threading.Barrier(4), ShardReader.__init__

    def waiting(self, path):
        together.wait(20)
        real(self, path)

    monkeypatch.setattr(ShardReader, "__init__", waiting)
    found = rows(root)
    monkeypatch.setattr(
        found._records.units, "_readers", lambda number: found._records.units._open[number]
    )
    found.too_damaged = lambda reason: None
    numbers = found.take(np.arange(COUNT))["number"]
    assert set(numbers) == set(range(COUNT)) - set(range(7, 12))
    wait_for(lambda: hashes_of(found).checked == 4)
    found.close()


def test_the_limit_is_shared_by_the_folders_of_a_unit(monkeypatch):
    info = ShardInfo("x", 1, 1, "")
    one, two = {0: {"latents": info}}, {0: {"latents": info, "text": info}}
    monkeypatch.setattr(unit_readers, "limit_now", lambda: 4512)
    assert (most_open(one), most_open(two)) == (4000, 2000)
    monkeypatch.setattr(unit_readers, "limit_now", lambda: 256)
    assert most_open(one) == unit_readers.FEWEST
    monkeypatch.setattr(unit_readers, "limit_now", lambda: None)
    assert most_open(one) == unit_readers.DEFAULT_OPEN
