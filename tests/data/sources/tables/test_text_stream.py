"""Text files by their content: gzip without its name, UTF-16 and UTF-32, and what is no text."""

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import pytest

from pinxit.config import UsageError
from pinxit.data.row import Row, Source
from pinxit.data.sources.catalogue import open_source
from pinxit.data.sources.damage import DamagedFile
from pinxit.data.sources.tables.text_stream import open_lines

TABLE = "url,caption\n" + "".join(f'http://a/{i},"café 猫 😀 {i}"\n' for i in range(200))
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


def every(source: Source) -> list[Row]:
    """All rows of a source, unit by unit, the last unit first."""
    units = source.units()
    rows = {unit.id: list(source.read(unit)) for unit in reversed(units)}
    return [row for unit in units for row in rows[unit.id]]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_form_gives_the_same_rows(tmp_path: Path, encoding: str, name: str, packed: bool):
    data = ENCODINGS[encoding] + TABLE.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    source = open_source("csv", path=str(tmp_path), unit_rows=64)
    assert [unit.rows for unit in source.units()] == [64, 64, 64, 8]
    rows = every(source)
    assert [row.caption for row in rows] == [f"café 猫 😀 {i}" for i in range(200)]
    assert [row.url for row in rows] == [f"http://a/{i}" for i in range(200)]


def test_excel_s_unicode_text(tmp_path: Path):
    """Excel writes it as UTF-16 with tabs, and quotes only the fields that need it."""
    lines = ["url\tcaption", "http://a/0\tplain words", 'http://a/1\t"a ""big"" cat, asleep"']
    (tmp_path / "a.tsv").write_bytes(("\ufeff" + "\r\n".join(lines)).encode("utf-16-le"))
    rows = every(open_source("tsv", path=str(tmp_path)))
    assert [row.caption for row in rows] == ["plain words", 'a "big" cat, asleep']


def test_utf_16_without_a_mark(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_bytes("url,caption\nhttp://a/0,café\n".encode("utf-16-le"))  # every other byte is 0
    assert every(open_source("csv", path=str(path)))[0].caption == "café"
    path.write_bytes("url,caption\nhttp://a/0,猫猫\n".encode("utf-16-le"))
    with pytest.raises(UsageError, match="probably UTF-16: set --text_encoding utf-16-le"):
        open_source("csv", path=str(path))
    source = open_source("csv", path=str(path), text_encoding="UTF-16LE")
    assert every(source)[0].caption == "猫猫"


def test_half_a_character_spoils_its_record_alone(tmp_path: Path):
    text = "url,caption\nhttp://a/0,one\nhttp://a/1,two \ud83d\nhttp://a/2,three\n"
    data = codecs.BOM_UTF16_LE + text.encode("utf-16-le", "surrogatepass") + b"\x41"
    (tmp_path / "a.csv").write_bytes(data)
    rows = every(open_source("csv", path=str(tmp_path)))
    assert [row.fault for row in rows] == [None, "bad_text", None, "bad_record"]
    assert (rows[1].url, rows[1].name) == ("http://a/1", "a.csv, record 2")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_converted_stream_can_be_read_from_any_byte(tmp_path: Path, monkeypatch, size: int):
    monkeypatch.setattr("pinxit.data.sources.tables.text_stream.CHUNK", size)
    path = tmp_path / "a.txt"
    text = TABLE[:300]
    path.write_bytes(codecs.BOM_UTF16_BE + text.encode("utf-16-be"))
    whole = text.encode()
    for start in (0, 1, 12, 13, 150, len(whole) - 1, len(whole), len(whole) + 5):
        with open_lines(str(path)) as stream:
            assert b"".join(stream)[:12] == whole[:12]
            stream.seek(start)
            assert stream.read() == whole[start:]  # type: ignore[attr-defined]


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.csv", data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bz2.compress(TABLE.encode()), "is not text but bzip2"),
        (lzma.compress(TABLE.encode()), "is not text but xz"),
        (b"\x28\xb5\x2f\xfd\x04\xff", "is not text but zstd"),
        (zipped(TABLE.encode() * 9 + b"\xff"), "is not text but zip"),
        (b"PAR1\x15\x04\xff", "is not text but parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><title>404</title>", "is an HTML page"),
        (b"", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (gzip.compress(TABLE.encode(), mtime=0)[:40], "is damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_are_no_text_are_named(tmp_path: Path, data: bytes, message: str):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match=rf"a\.csv {message}"), open_lines(str(path)) as stream:
        stream.readlines()


def test_a_text_that_only_begins_like_another_format(tmp_path: Path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"PAR1\tBZh\nx\ty\n")
    with open_lines(str(path)) as stream:
        assert b"".join(stream) == b"PAR1\tBZh\nx\ty\n"
