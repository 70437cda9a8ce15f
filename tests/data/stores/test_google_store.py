"""gs:// through gcsfs, against a small server that stands in for Google's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from gcs_server import GcsServer, gcs_server
from gcsfs.core import GCSFileSystem

from pinxit.data.network_fault import is_network_fault
from pinxit.data.stores import remote_store
from pinxit.data.stores.byte_store import open_store
from pinxit.data.stores.remote_store import RemoteStore, Retries

SMALL = bytes(range(256)) * 8


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsServer]:
    """Serves a bucket, which the environment leads to.

    The class that gcsfs gives to fsspec asks by gRPC first, and takes minutes to give up a server
    without it. A variable chooses the plain one, but only before the first import of gcsfs.
    """
    usual = fsspec.get_filesystem_class("gs")
    fsspec.register_implementation("gs", GCSFileSystem, clobber=True)
    with gcs_server() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})  # as FSSPEC_GS_TOKEN does
        yield server
    fsspec.register_implementation("gs", usual, clobber=True)


def test_what_is_uploaded_is_read(google: GcsServer, tmp_path: Path):
    (tmp_path / "a").write_bytes(SMALL)
    store = open_store("gs://bucket/set")
    store.upload(tmp_path / "a", "x/pack")
    assert google.objects == {"set/x/pack": SMALL}
    assert store.exists("x/pack") and not store.exists("absent")
    assert store.size("x/pack") == len(SMALL) and store.read("x/pack") == SMALL
    ranges = [("x/pack", 100, 120), ("x/pack", 0, 10), ("x/pack", len(SMALL), len(SMALL) + 1)]
    assert store.ranges(ranges) == [SMALL[100:120], SMALL[:10], b""]
    assert "GET /download/storage/v1/b/bucket/o/set/x/pack bytes=0-9" in google.requests
    assert isinstance(store, RemoteStore) and store.names() == ["x/pack"]
    store.close()


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # gcsfs does
def test_a_long_file_is_uploaded_in_parts(
    google: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote_store, "PART_BYTES", 2 * 2**20)
    content = os.urandom(7 * 2**20)
    (tmp_path / "a").write_bytes(content)
    RemoteStore("gs://bucket").upload(tmp_path / "a", "pack")
    assert google.objects["pack"] == content
    assert google.requests.count("POST /resume/pack") == 4


def test_faults_and_refusals(google: GcsServer, caplog: pytest.LogCaptureFixture):
    google.objects["pack"] = SMALL
    store = RemoteStore("gs://bucket", retries=Retries(pauses=(0.01, 0.01), timeout=5.0))
    google.faults = [503, 503]
    assert store.read("pack") == SMALL
    google.faults = [403]
    with pytest.raises(PermissionError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
        store.read("pack")
    assert not is_network_fault(caught.value)
    with pytest.raises(FileNotFoundError, match="gs://bucket/absent"):
        store.read("absent")
    with pytest.raises(FileNotFoundError):
        open_store("gs://other").read("pack")
    assert "Traceback" not in caplog.text
