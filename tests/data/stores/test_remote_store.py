"""A store of files in a bucket: reads, ranges, listings, uploads, and requests that fail."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import fsspec
import pytest

from pinxit.config import UsageError
from pinxit.data.network_fault import is_network_fault
from pinxit.data.stores import remote_store
from pinxit.data.stores.byte_store import ByteStore, LocalStore, open_store
from pinxit.data.stores.remote_store import RemoteStore, Retries
from pinxit.data.stores.store_errors import MissingBucket

QUICK = Retries(pauses=(0.01, 0.01, 0.01), timeout=5.0)
SMALL = bytes(range(256)) * 40


def upload(store: ByteStore, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "to_upload"
    path.write_bytes(content)
    store.upload(path, name)


def test_what_is_uploaded_to_a_bucket_is_read_from_it(bucket: str, tmp_path: Path):
    store = open_store(f"{bucket}/set/")
    assert isinstance(store, RemoteStore) and isinstance(store, ByteStore)
    assert store.root == f"{bucket}/set" and not store.exists("a/pack") and store.names() == []
    upload(store, tmp_path, "a/pack", SMALL)
    upload(store, tmp_path, "manifest.json", b"")
    assert store.exists("a/pack") and store.size("a/pack") == len(SMALL)
    assert store.read("a/pack") == SMALL and store.read("manifest.json") == b""
    ranges = [("a/pack", 300, 400), ("a/pack", 0, 7), ("a/pack", 5, 5), ("a/pack", 7, 20)]
    assert store.ranges(ranges) == [SMALL[300:400], SMALL[:7], b"", SMALL[7:20]]
    beyond = [("a/pack", len(SMALL) - 2, len(SMALL) + 9), ("a/pack", len(SMALL), len(SMALL) + 9)]
    assert store.ranges(beyond) == [SMALL[-2:], b""]
    assert store.names() == ["a/pack", "manifest.json"] and store.names("a") == ["a/pack"]
    upload(store, tmp_path, "a/pack", b"other")
    assert store.read("a/pack") == b"other" and store.size("a/pack") == 5
    store.close()
    assert store.read("a/pack") == b"other"


def test_a_long_file_is_uploaded_in_parts_and_compared(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote_store, "PART_BYTES", 5 * 2**20)  # S3's least
    content = os.urandom(11 * 2**20)
    store = RemoteStore(bucket)
    upload(store, tmp_path, "pack", content)
    assert store.read("pack") == content
    client = boto3.client("s3")
    head = client.head_object(Bucket=bucket.removeprefix("s3://"), Key="pack")
    client.close()
    assert head["ETag"].strip('"').endswith("-3")


def test_an_upload_that_arrives_damaged_is_sent_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = RemoteStore(bucket, retries=QUICK)
    sent, matches = [], remote_store.matches

    def once_damaged(info: dict, digests) -> bool | None:
        sent.append(info["size"])
        if len(sent) == 1:  # as if another process had written it meanwhile
            client = boto3.client("s3")
            client.put_object(Bucket=bucket.removeprefix("s3://"), Key="a", Body=b"x" * 5)
            client.close()
            return False
        return matches(info, digests)

    monkeypatch.setattr(remote_store, "matches", once_damaged)
    upload(store, tmp_path, "a", b"whole")
    assert store.read("a") == b"whole" and sent == [5, 5]


def test_another_etag_is_no_damage_if_the_content_is_the_same(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Some kinds of encryption have ETags that are no MD5."""
    monkeypatch.setattr(remote_store, "matches", lambda info, digests: False)
    store = RemoteStore(bucket, retries=QUICK)
    upload(store, tmp_path, "a", SMALL)
    assert store.read("a") == SMALL


def test_a_missing_file_and_a_missing_bucket_are_told_apart(bucket: str, tmp_path: Path):
    store = open_store(f"{bucket}/set")
    for read in (store.read, store.size, lambda name: store.ranges([(name, 0, 5)])):
        with pytest.raises(FileNotFoundError, match="no such file") as caught:
            read("absent")
        assert caught.value.filename == f"{bucket}/set/absent"
        assert not is_network_fault(caught.value)
    wrong = open_store("s3://nobody-has-made-this")
    for read in (wrong.read, wrong.exists):
        with pytest.raises(MissingBucket, match="bucket nobody-has-made-this does not exist"):
            read("a")
    with pytest.raises(MissingBucket):
        upload(wrong, tmp_path, "a", b"content")


def test_no_credentials_are_named_with_what_to_set(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    begun = time.monotonic()
    with pytest.raises(PermissionError, match="AWS_ACCESS_KEY_ID") as caught:
        RemoteStore(bucket, retries=Retries(pauses=(60.0,))).read("a")
    assert time.monotonic() - begun < 60 and not is_network_fault(caught.value)
    with pytest.raises(PermissionError, match="credentials"):
        upload(RemoteStore(bucket), tmp_path, "a", b"content")


def test_ranges_run_in_parallel_and_no_more_bytes_are_read(serving):
    data = os.urandom(2**20)
    ranges = [("pack", at, at + 1000) for at in range(0, 2**20 - 1000, 2048)][::-1]
    with serving({"set/pack": data}, latency=0.05) as server:
        store = RemoteStore("s3://bucket/set", parallel=16)
        assert store.ranges(ranges) == [data[start:stop] for _, start, stop in ranges]
        assert 8 <= server.most_at_once <= 16
        assert len(server.requests) == len(ranges) == store.requests
        assert server.sent == store.bytes_read == 1000 * len(ranges)
        touching = [("pack", at, at + 100) for at in range(0, 10_000, 100)]
        store.ranges(touching + touching[:3])
        assert len(server.requests) == len(ranges) + 1
        assert server.requests[-1] == "GET set/pack bytes=0-9999"


def test_a_long_range_is_several_requests(serving, monkeypatch: pytest.MonkeyPatch):
    data = os.urandom(300_000)
    monkeypatch.setattr(remote_store, "LONGEST", 100_000)
    with serving({"pack": data}) as server:
        assert RemoteStore("s3://bucket").read("pack") == data
        assert len([r for r in server.requests if r.startswith("GET")]) == 3


def test_a_short_file_is_one_request(serving):
    with serving({"manifest.json": b"{}", "empty": b""}) as server:
        store = RemoteStore("s3://bucket")
        assert store.read("manifest.json") == b"{}" and store.read("empty") == b""
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "faults",
    [
        ["503 SlowDown", "503 SlowDown"],
        ["500 InternalError", "503 ServiceUnavailable", "429 TooManyRequests"],
        ["cut", "cut"],
        ["400 RequestTimeout"],
    ],
)
def test_faults_that_pass_are_asked_again(serving, faults: list[str]):
    with serving({"pack": SMALL, "other": SMALL}) as server:
        server.faults["pack"] = list(faults)
        store = RemoteStore("s3://bucket", retries=QUICK)
        answers = store.ranges([("pack", 0, 1000), ("other", 5, 10)])
        assert answers == [SMALL[:1000], SMALL[5:10]]
        assert server.requests.count("GET pack bytes=0-999") == len(faults) + 1
        assert server.requests.count("GET other bytes=5-9") == 1


def test_a_server_that_hangs_is_asked_again(serving):
    with serving({"pack": SMALL}) as server:
        store = RemoteStore("s3://bucket")
        assert store.size("pack") == len(SMALL)  # it is connected, which may take a second
        store._retries = Retries(pauses=(0.01,), timeout=0.5)
        server.faults["pack"] = ["hang"]
        assert store.ranges([("pack", 0, 10)]) == [SMALL[:10]]
        server.faults["pack"] = ["hang", "hang"]
        with pytest.raises(ConnectionError, match="s3://bucket/pack cannot be read") as caught:
            store.ranges([("pack", 0, 10)])
        assert is_network_fault(caught.value)


def test_an_endless_fault_ends_with_an_error_that_may_pass(serving):
    with serving({"pack": SMALL}) as server:
        server.faults["pack"] = ["503 SlowDown"] * 99
        with pytest.raises(ConnectionError, match="s3://bucket/pack cannot be read") as caught:
            RemoteStore("s3://bucket", retries=QUICK).read("pack")
        assert is_network_fault(caught.value) and len(server.requests) == 4
        assert server.url in str(caught.value)


def test_a_server_that_is_gone_is_an_error_that_may_pass(serving):
    with serving({"pack": SMALL}):
        pass
    with pytest.raises(ConnectionError, match="cannot be read") as caught:
        RemoteStore("s3://bucket", retries=QUICK).size("pack")
    assert is_network_fault(caught.value)


@pytest.mark.parametrize("fault", ["403 AccessDenied", "403 InvalidAccessKeyId"])
def test_a_refusal_is_not_asked_again(serving, fault: str):
    with serving({"pack": SMALL}) as server:
        server.faults["pack"] = [fault]
        with pytest.raises(PermissionError, match=r"refused.*AWS_ACCESS_KEY_ID") as caught:
            RemoteStore("s3://bucket", retries=QUICK).read("pack")
        assert len(server.requests) == 1 and not is_network_fault(caught.value)
        assert (
            os.environ["AWS_SECRET_ACCESS_KEY"]
            not in f"{caught.value!r} {caught.value.__cause__!r}"
        )


def test_one_refusal_ends_the_other_requests(serving):
    with serving({"pack": SMALL, "denied": SMALL}, latency=0.1) as server:
        server.faults["denied"] = ["403 AccessDenied"]
        store = RemoteStore("s3://bucket", parallel=2, retries=QUICK)
        ranges = [("denied", 0, 5), *(("pack", at, at + 1) for at in range(0, 200, 2))]
        with pytest.raises(PermissionError):
            store.ranges(ranges)
        assert len(server.requests) < 20


def test_several_threads_use_one_store(serving):
    with serving({"pack": SMALL}, latency=0.01):
        store = RemoteStore("s3://bucket", parallel=8)
        starts = list(range(0, 4000, 40))
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda at: store.ranges([("pack", at, at + 20)])[0], starts)
            assert list(answers) == [SMALL[at : at + 20] for at in starts]


def _size_of(store: RemoteStore, answers) -> None:
    answers.put(store.size("pack"))


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_other_processes_use_a_store(serving, method: str):
    with serving({"pack": SMALL}):
        store = RemoteStore("s3://bucket", parallel=8)
        assert store.size("pack") == len(SMALL)
        context = multiprocessing.get_context(method)
        answers = context.Queue()
        process = context.Process(target=_size_of, args=(store, answers))
        process.start()
        assert answers.get(timeout=60) == len(SMALL)
        process.join(60)
        assert store.size("pack") == len(SMALL) and process.exitcode == 0


def test_a_pickled_store_has_the_url_alone(serving):
    with serving({"pack": SMALL}):
        store = RemoteStore("s3://bucket", parallel=3, retries=QUICK)
        store.size("pack")
        dump = pickle.dumps(store)
        assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in dump
        assert pickle.loads(dump).read("pack") == SMALL


def test_a_file_system_that_is_not_asynchronous(tmp_path: Path):
    memory = fsspec.filesystem("memory")
    store = open_store("memory://place/set")
    upload(store, tmp_path, "a/pack", SMALL)
    assert store.names() == ["a/pack"] and store.size("a/pack") == len(SMALL)
    ranges = [("a/pack", at, at + 5) for at in range(0, 900, 9)]
    assert store.ranges(ranges) == [SMALL[start:stop] for _, start, stop in ranges]
    with pytest.raises(FileNotFoundError):
        store.read("absent")
    threads = [t.name for t in threading.enumerate() if t.name.startswith("pinxit-store")]
    assert threads
    store.close()
    memory.rm("/place", recursive=True)


def test_where_uploads_are_not_whole_they_are_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(remote_store, "WHOLE_PUTS", frozenset())
    store = open_store("memory://renamed")
    upload(store, tmp_path, "a/pack", SMALL)
    assert store.names() == ["a/pack"] and store.read("a/pack") == SMALL
    fsspec.filesystem("memory").rm("/renamed", recursive=True)


def test_paths_and_file_urls_are_local(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"local")
    for root in (str(tmp_path), f"file://{tmp_path}"):
        store = open_store(root)
        assert isinstance(store, LocalStore) and store.read("a") == b"local"
        store.close()


def test_a_server_without_uploads_or_ranges_is_named(serving, tmp_path: Path):
    with serving({"pack": SMALL}) as server:
        store = open_store(f"{server.url}/bucket")
        assert store.ranges([("pack", 5, 10)]) == [SMALL[5:10]] and store.size("pack") == len(SMALL)
        assert store.read("pack") == SMALL and not store.exists("absent")
        with pytest.raises(UsageError, match="can only be read"):
            upload(store, tmp_path, "a", b"content")
