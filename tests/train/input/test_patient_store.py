"""Reads of a store that outlive an outage, and end after it or with the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pinxit.data.stores.byte_store import ByteStore, LocalStore
from pinxit.train.input.outage import Ended, Outage
from pinxit.train.input.patient_store import PatientStore


class Failing(LocalStore):
    """A store whose network is down for some reads."""

    def __init__(self, root: Path, errors: list[OSError]) -> None:
        super().__init__(root)
        self.errors = errors

    def ranges(self, ranges) -> list[bytes]:
        if self.errors:
            raise self.errors.pop(0)
        return super().ranges(ranges)


def outage(lines: list[str], *, hours: float = 1.0) -> Outage:
    """An outage whose clock goes by its pauses."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return Outage(hours=hours, say=lines.append, sleep=sleep, clock=lambda: now[0])


def test_reads_go_on_after_an_outage(tmp_path: Path):
    (tmp_path / "pack").write_bytes(b"0123456789")
    lines: list[str] = []
    gone = [ConnectionError(f"{tmp_path} cannot be read: no answer") for _ in range(4)]
    store = PatientStore(Failing(tmp_path, gone), outage(lines))
    assert isinstance(store, ByteStore) and store.root == str(tmp_path)
    assert store.ranges([("pack", 2, 4), ("pack", 0, 1)]) == [b"23", b"0"]
    assert "no answer" in lines[0] and "--outage_hours" in lines[0] and "again" in lines[-1]
    assert store.read("pack") == b"0123456789" and store.size("pack") == 10
    assert store.exists("pack") and not store.exists("absent")
    store.close()


def test_an_outage_beyond_the_limit_ends_the_run_with_its_reason(tmp_path: Path):
    store = PatientStore(Failing(tmp_path, [TimeoutError("no answer")] * 999), outage([]))
    with pytest.raises(Ended, match=r"no answer.*\(--outage_hours\)"):
        store.ranges([("pack", 0, 1)])


def test_a_stopping_run_does_not_wait(tmp_path: Path):
    patience = outage([])
    patience.stopping = lambda: True
    with pytest.raises(Ended):
        PatientStore(Failing(tmp_path, [TimeoutError()] * 9), patience).ranges([("pack", 0, 1)])


def test_what_stays_wrong_is_raised_at_once(tmp_path: Path):
    lines: list[str] = []
    refused = PermissionError(13, "access is refused", "s3://bucket/pack")
    store = PatientStore(Failing(tmp_path, [refused]), outage(lines))
    with pytest.raises(PermissionError):
        store.ranges([("pack", 0, 1)])
    with pytest.raises(FileNotFoundError):
        store.read("absent")
    assert lines == []
