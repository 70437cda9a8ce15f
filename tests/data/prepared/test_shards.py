"""Shards are whole or absent, equal for equal records, and every damage is noticed."""

import contextlib
import json
import resource
import subprocess

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from pinxit.data.prepared.shards import (
    DamagedShard,
    ShardReader,
    describe,
    pack,
    unpack,
    verify_shard,
    write_shard,
)
from pinxit.files import DiskFull, write_json


def records(count: int = 200, size: int = 3000) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [
        pack({"jpeg": rng.integers(0, 256, size).astype(np.uint8)}, {"key": f"u/{i:08d}"})
        for i in range(count)
    ]


@contextlib.contextmanager
def file_size_limit(size: int):
    """No file of this process may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float16).reshape(2, 3, 4),
        np.linspace(-1e6, 1e6, 6).astype(ml_dtypes.bfloat16).reshape(3, 2),
        np.zeros((0, 5), np.float32),
        np.array(7, np.int64),
        np.arange(9, dtype=np.uint8)[::2],
        np.array([1, 65535], np.uint16),
        np.array([-1], np.int32),
    ],
)
def test_a_record_gives_back_what_it_was_made_of(array):
    meta = {"key": "00001/00000002", "caption": "Über “all” \U0001f3a8\n\0", "crop": [0, 1, 2, 3]}
    arrays, found = unpack(pack({"b": array, "a": np.ones(3, np.uint8)}, meta))
    assert found == meta
    assert arrays["b"].dtype == array.dtype and arrays["b"].shape == array.shape
    np.testing.assert_array_equal(arrays["b"], array)
    np.testing.assert_array_equal(arrays["a"], 1)


def test_a_record_is_plain_safetensors_and_its_bytes_do_not_depend_on_order():
    one, two = np.arange(4, dtype=np.float16), np.arange(3, dtype=np.uint8)
    record = pack({"one": one, "two": two}, {"x": 1, "y": 2})
    assert record == pack({"two": two, "one": one}, {"y": 2, "x": 1})
    np.testing.assert_array_equal(safetensors.numpy.load(record)["one"], one)


@pytest.mark.parametrize("array", [np.zeros(2), np.array(["a"], object), np.zeros(2, bool)])
def test_a_type_that_no_record_holds_is_refused(array):
    with pytest.raises(ValueError, match="bad is "):
        pack({"bad": array}, {})


def header(**entry) -> bytes:
    text = json.dumps({"__metadata__": {"json": "{}"}, "a": entry}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"1234",
        bytes(100),
        (2**62).to_bytes(8, "little") + b"{}",
        header(dtype="F16", shape=[4], data_offsets=[0, 6]),
        header(dtype="F16", shape=[400], data_offsets=[0, 800]),
        header(dtype="F16", shape=[4], data_offsets=[-8, 0]),
        header(dtype="F16", shape=[-4], data_offsets=[0, -8]),
        header(dtype="pickle", shape=[4], data_offsets=[0, 8]),
        header(shape=[4], data_offsets=[0, 8]),
        b"\x02\0\0\0\0\0\0\0[]",
    ],
)
def test_a_malformed_record_is_refused(record):
    with pytest.raises(DamagedShard, match="cannot be read"):
        unpack(record)


def test_equal_records_give_equal_files_and_are_read_at_random(tmp_path):
    rows = records()
    info = write_shard(tmp_path / "a.array_record", iter(rows))
    again = write_shard(tmp_path / "deep" / "a.array_record", rows)
    assert info == again and info.count == 200
    assert info == describe(tmp_path / "a.array_record", name="a.array_record", count=200)
    verify_shard(tmp_path / "a.array_record", info)
    with ShardReader(tmp_path / "a.array_record") as reader:
        assert len(reader) == 200
        assert reader.read([150, 3, 3]) == [rows[150], rows[3], rows[3]]
        assert list(reader) == rows
        with pytest.raises(DamagedShard, match="out of bound"):
            reader.read([200])
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "a.array_record",
        "a.array_record",
        "deep",
    ]


def test_a_shard_of_nothing(tmp_path):
    info = write_shard(tmp_path / "none.array_record", [])
    verify_shard(tmp_path / "none.array_record", info)
    with ShardReader(tmp_path / "none.array_record") as reader:
        assert (info.count, len(reader), list(reader)) == (0, 0, [])


def test_every_kind_of_damage_is_found(tmp_path):
    path = tmp_path / "a.array_record"
    info = write_shard(path, records(50))
    good = path.read_bytes()
    rng = np.random.default_rng(1)
    for place in rng.integers(0, len(good) * 8, 20):
        bad = bytearray(good)
        bad[place // 8] ^= 1 << (place % 8)
        path.write_bytes(bad)
        with pytest.raises(DamagedShard, match="SHA-256"):
            verify_shard(path, info)
    for bad in (good[:-1], good[: len(good) // 2], b"", good + b"\0"):
        path.write_bytes(bad)
        with pytest.raises(DamagedShard, match="bytes instead of"):
            verify_shard(path, info)
    path.unlink()
    with pytest.raises(DamagedShard, match="missing"):
        verify_shard(path, info)
    with pytest.raises(DamagedShard, match="missing"):
        ShardReader(path)


def test_the_reader_names_what_it_cannot_read(tmp_path):
    path = tmp_path / "a.array_record"
    write_shard(path, records(50))
    good = path.read_bytes()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    path.write_bytes(bad)
    with (
        ShardReader(path) as reader,
        pytest.raises(DamagedShard, match=r"a\.array_record.*mismatch"),
    ):
        list(reader)
    path.write_bytes(good[: len(good) // 3])
    with pytest.raises(DamagedShard, match="truncated"):
        ShardReader(path)


def test_a_shard_that_does_not_fit_leaves_nothing(tmp_path):
    path = tmp_path / "a.array_record"
    with file_size_limit(2**18), pytest.raises(DiskFull, match=r"a\.array_record.*run the same"):
        write_shard(path, records())
    assert list(tmp_path.iterdir()) == []
    before = write_shard(path, records(5))
    with file_size_limit(2**18), pytest.raises(DiskFull):
        write_shard(path, records())
    verify_shard(path, before)


def test_a_full_disk_leaves_nothing_and_room_heals_it(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs privileges")
    try:
        ballast = tmp_path / "ballast"
        ballast.write_bytes(bytes(150_000))
        with pytest.raises(DiskFull, match=r"No space left.*0\.00 GiB free"):
            write_shard(tmp_path / "a.array_record", records(60))
        with pytest.raises(DiskFull, match="No space left"):
            write_json(tmp_path / "a.json", "x" * 300_000)
        assert list(tmp_path.iterdir()) == [ballast]
        ballast.unlink()
        assert write_shard(tmp_path / "a.array_record", records(60)).count == 60
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_an_error_among_the_records_is_not_taken_for_the_writers(tmp_path):
    def failing():
        yield from records(3)
        raise RuntimeError("No space left on device: said by somebody else")

    with pytest.raises(RuntimeError, match="somebody else") as raised:
        write_shard(tmp_path / "a.array_record", failing())
    assert not isinstance(raised.value, OSError)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write_shard(tmp_path / "file" / "a.array_record", records(1))
