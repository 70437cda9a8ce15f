"""Sources in an object store: tables, folders and tars are listed and read from s3://."""

from __future__ import annotations

import io
import tarfile

import boto3
import pyarrow
import pytest
import s3fs
from PIL import Image
from pyarrow import parquet
from s3_server import S3Server

from pinxit.config import UsageError
from pinxit.data.network_fault import is_network_fault
from pinxit.data.sources.catalogue import open_source

ROWS = 600


@pytest.fixture(autouse=True)
def no_listings():
    """fsspec shares its file systems, with the listings and the endpoint of the first use."""
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


def table(*, junk: int = 0) -> bytes:
    """A parquet file of URLs and captions, with `junk` bytes a row in a column without use."""
    columns = {
        "url": [f"http://a.example/{i}.jpg" for i in range(ROWS)],
        "junk": [bytes([i % 256]) * junk for i in range(ROWS)],
        "caption": [f"a house number {i}" for i in range(ROWS)],
    }
    file = io.BytesIO()
    parquet.write_table(
        pyarrow.table(columns), file, row_group_size=200, compression="none", use_dictionary=False
    )
    return file.getvalue()


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 0, 0)).save(file, "JPEG")
    return file.getvalue()


def put(bucket: str, objects: dict[str, bytes]) -> None:
    client = boto3.client("s3")
    for key, content in objects.items():
        client.put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=content)
    client.close()


def captions(name: str, path: str, **more) -> list[str | None]:
    source = open_source(name, path=path, **more)
    return [row.caption for unit in source.units() for row in source.read(unit)]


def test_tables_folders_and_tars(bucket: str):
    samples = {f"{i}{end}": content for i in range(3) for end, content in [(".jpg", picture(i))]}
    samples |= {f"{i}.txt": f"picture {i}".encode() for i in range(3)}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in sorted(samples.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    put(bucket, {"t/0.parquet": table(), "t/1.parquet": table(), "tars/0.tar": archive.getvalue()})
    put(bucket, {"c/a.csv": b"url,caption\nhttp://a.example/1.jpg,a red house\n"})
    put(bucket, {f"pictures/{name}": content for name, content in samples.items()})
    rows = captions("parquet", f"{bucket}/t/*.parquet", unit_rows=100)
    assert len(rows) == 2 * ROWS and rows[-1] == f"a house number {ROWS - 1}"
    assert captions("parquet", f"{bucket}/t", unit_rows=100) == rows
    assert captions("csv", f"{bucket}/c/a.csv") == ["a red house"]
    expected = ["picture 0", "picture 1", "picture 2"]
    assert captions("webdataset", f"{bucket}/tars/*.tar") == expected
    assert captions("folder", f"{bucket}/pictures") == expected


def test_one_column_of_a_table_does_not_cost_the_whole_file(serving):
    content = table(junk=100_000)
    with serving({"t/0.parquet": content}) as server:
        assert isinstance(server, S3Server)
        source = open_source("parquet", path="s3://bucket/t/0.parquet", unit_rows=200)
        unit = source.units()[0]
        before = server.sent
        assert len(list(source.read(unit))) == 200
        assert len(content) > 60_000_000 and server.sent - before < len(content) / 4


def test_what_is_not_there_is_named(bucket: str):
    for path in (f"{bucket}/none/*.parquet", "s3://not-a-bucket-of-ours/*.parquet"):
        with pytest.raises(UsageError, match="does not exist"):
            open_source("parquet", path=path)


def test_missing_credentials_are_named_with_what_to_set(
    bucket: str, monkeypatch: pytest.MonkeyPatch
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(UsageError, match="no valid credentials: set AWS_ACCESS_KEY_ID") as caught:
        open_source("parquet", path=f"{bucket}/t/*.parquet")
    assert not is_network_fault(caught.value)


def test_an_outage_is_told_from_a_refusal(serving, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")  # the client's own pauses take eight seconds
    with serving({"t/0.parquet": table()}) as server:
        source = open_source("parquet", path="s3://bucket/t/0.parquet")
        unit = source.units()[0]
        server.faults["t/0.parquet"] = ["403 AccessDenied"]
        with pytest.raises(PermissionError, match="check that this key may use it") as refused:
            list(source.read(unit))
        assert not is_network_fault(refused.value)
        server.faults["t/0.parquet"] = ["503 ServiceUnavailable"] * 99
        with pytest.raises(ConnectionError, match=r"0\.parquet cannot be read") as busy:
            list(source.read(unit))
        assert is_network_fault(busy.value)


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> type:
        raise ImportError(f"Install it to access {name}")

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    with pytest.raises(UsageError, match=r"gs://bucket/a.*pip install.*\[gcs\]"):
        open_source("parquet", path="gs://bucket/a.parquet")
