"""Whatever bytes a table holds, it is refused in one line, or each of its records is one row."""

import gzip
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinxit.config import UsageError
from pinxit.data.row import unusable
from pinxit.data.sources.catalogue import open_source

PIECES = [
    *(b"url,caption\n", b"url\tcaption\n", b'"url"\t"caption"\n', b"url;caption\n"),
    *(b"http://a/b", b"a cat", b'"a, cat"', b'"', b'""', b",", b"\t", b"\n", b"\r\n", b"\r"),
    *(b'{"url": "http://a", "caption": "b"}\n', b'{"url": 1e999, "caption": {"a": []}}\n'),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'["x"]\n',
        b"\0",
        b"\xe9",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\x1f\x8b",
    ),
    *(
        "猫".encode(),
        "猫".encode("utf-16-le"),
        b"u\0r\0l\0,\0",
        b"\xed\xa0\xbd",
        b'"\\ud83d"',
        b" ",
    ),
]


def check(data: bytes, form: str, unit_rows: int, text_encoding: str | None) -> int | None:
    """Reads a table of these bytes. Returns its number of rows, or None if it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{form}"
        path.write_bytes(data)
        try:
            source = open_source(
                form, path=str(path), unit_rows=unit_rows, text_encoding=text_encoding
            )
        except UsageError as error:
            assert "\n" not in str(error) and f"a.{form}" in str(error)
            str(error).encode("utf-8")
            return None
        units = source.units()
        rows = []
        for unit in units:
            try:
                of_unit = list(source.read(unit))
            except UsageError:
                assert unit.rows is None
                continue
            assert len(of_unit) == unit.rows
            rows += of_unit
        assert len({row.key for row in rows}) == len(rows)
        for row in rows:
            for value in (row.caption, row.url or "", row.detail, row.name or ""):
                value.encode("utf-8")
                assert "\ufffd" not in value and "\0" not in value
            assert (row.name is None) == (row.url is not None and row.fault is None)
            unusable(row)
        return len(rows)


@settings(max_examples=250, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=25).map(b"".join),
    st.sampled_from(["csv", "tsv", "jsonl"]),
    st.integers(1, 4),
    st.sampled_from([None, "cp1252", "utf-16-le"]),
)
def test_bytes_of_any_kind(data: bytes, form: str, unit_rows: int, text_encoding: str | None):
    check(data, form, unit_rows, text_encoding)
    check(gzip.compress(data)[: len(data) + 9], form, unit_rows, text_encoding)


@pytest.mark.parametrize("form", ["csv", pytest.param("tsv", marks=pytest.mark.slow), "jsonl"])
def test_a_good_table_with_random_damage(form: str):
    """Each record is one row, and one damaged byte costs at most the records that it touches."""
    rng = random.Random(0)
    comma = {"csv": ",", "tsv": "\t"}.get(form, "")
    lines = [
        f'{{"url": "http://a/{i}", "caption": "a cat number {i}"}}'
        if form == "jsonl"
        else f"http://a/{i}{comma}a cat number {i}"
        for i in range(200)
    ]
    header = [] if form == "jsonl" else [f"url{comma}caption"]
    data = "\n".join([*header, *lines]).encode()
    start = len(header and header[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{form}"
        for _ in range(150):
            damaged = bytearray(data)
            at = rng.randrange(start + 1, len(data))
            damaged[at] = rng.choice(b'"\xe9,\t\n\r\0{}\\')
            path.write_bytes(damaged)
            source = open_source(form, path=str(path), unit_rows=64)
            rows = [row for unit in source.units() for row in source.read(unit)]
            good = {row.caption for row in rows if unusable(row) is None}
            lost = {f"a cat number {i}" for i in range(200)} - good
            assert len(lost) <= 2, (bytes(damaged[at - 20 : at + 20]), lost)
            assert 198 <= len(rows) <= 202
