"""Records of text tables: a broken one costs itself alone, and every offset is a place to go on."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinxit.data.sources.tables import text_records
from pinxit.data.sources.tables.text_records import Record, table_records


def read(data: bytes, form: str = "csv", start: int = 0, **more) -> list[Record]:
    stream = io.BytesIO(data)
    stream.seek(start)
    return list(table_records(stream, form, **more))


def test_a_quote_that_is_never_closed_costs_its_own_line():
    data = b'a,1\nb,"open\nc,3\n"d, with comma",4\ne,5\n'
    rows = read(data)
    assert [row.fields for row in rows] == [
        ["a", "1"],
        None,
        ["c", "3"],
        ["d, with comma", "4"],
        ["e", "5"],
    ]
    assert rows[1].problem.startswith("not valid CSV")
    assert [data[row.after :] for row in rows][1].startswith(b"c,3")


def test_two_stray_quotes_do_not_join_the_lines_between_them():
    rows = read(b'http://a,"half\nhttp://b,plain\nhttp://c,"other half\n')
    assert [row.fields for row in rows] == [None, ["http://b", "plain"], None]
    assert rows[2].problem == "not valid CSV: a quote is not closed"


def test_a_record_of_too_many_lines_is_a_quote_that_is_not_closed(monkeypatch):
    monkeypatch.setattr(text_records, "LONGEST_RECORD", 4)
    rows = read(b'"a\nb\nc\nd",1\n"a\nb\nc\nd\ne",2\nz,3\n')
    assert rows[0].fields == ["a\nb\nc\nd", "1"]
    assert rows[1].problem == "not valid CSV: a quote is not closed within 4 lines"
    assert rows[-1].fields == ["z", "3"]


def test_quotes_inside_a_quoted_field_that_are_not_doubled():
    rows = read(b'"say "hi" to me",1\n"say ""hi""",2\n')
    assert [row.fields for row in rows] == [None, ['say "hi"', "2"]]


def test_bytes_that_are_not_utf_8():
    line = "café;fin,x".encode("cp1252")
    (row,) = read(line)
    assert row.fields == ["café;fin".encode("cp1252"), "x"]  # only the field is bytes
    assert read(line, text_encoding="cp1252")[0].fields == ["café;fin", "x"]
    assert read("café,x".encode(), text_encoding="cp1252")[0].fields == ["café", "x"]  # as UTF-8
    undefined = b"caf\x81,x"
    assert read(undefined, text_encoding="cp1252")[0].fields == [b"caf\x81", "x"]
    assert read(line, "tsv")[0].fields == [line]
    (row,) = read(b'{"a": "caf\xe9", "b": 1, "c": ["\xe9", "x"]}', "jsonl")
    assert row.fields == {"a": b"caf\xe9", "b": 1, "c": [b"\xe9", "x"]}
    (row,) = read(b'{"a": "\xe9 \\ud83d"}', "jsonl")
    assert isinstance(row.fields, dict) and isinstance(row.fields["a"], bytes)


def test_marks_and_nul_characters_are_no_text():
    assert read("\ufeffa\0b,c".encode())[0].fields == ["ab", "c"]
    assert read('\ufeff{"a": "b\0c"}'.encode(), "jsonl")[0].fields == {"a": "bc"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"[1, 2]", "a list, not a JSON object"),
        (b'"text"', "text, not a JSON object"),
        (b"null", "null, not a JSON object"),
        (b"true", "a truth value, not a JSON object"),
        (b"12", "a number, not a JSON object"),
        (b"[" * 100_000, "not valid JSON: nested too deeply"),
        (b"1" * 10_000, "not valid JSON: Exceeds the limit"),
        (b'{"a": 1,', "not valid JSON: Expecting property name"),
    ],
)
def test_json_that_is_no_object(line: bytes, problem: str):
    (row,) = read(line, "jsonl")
    assert row.fields is None and row.problem.startswith(problem) and "\n" not in row.problem


LINES = st.lists(
    st.sampled_from([b'"', b",", b"\n", b"\r\n", b"a", b"\xe9", b"\0", b"\t", b"{", b'"a"', b'""']),
    max_size=60,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(LINES, st.sampled_from(["csv", "tsv", "jsonl"]), st.booleans())
def test_reading_goes_on_at_every_offset(data: bytes, form: str, quoted: bool):
    rows = read(data, form, quoted=quoted)
    offsets = [row.after for row in rows]
    assert offsets == sorted(set(offsets)) and all(0 < offset <= len(data) for offset in offsets)
    for number, row in enumerate(rows):
        assert (row.fields is None) == bool(row.problem)
        assert read(data, form, row.after, quoted=quoted) == rows[number + 1 :]


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=9)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(FIELD, FIELD), max_size=9), st.integers(0, 8))
def test_valid_records_around_a_broken_one_are_read(records: list[tuple[str, str]], at: int):
    """The broken line holds a stray quote; records after the next line break are whole again."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(records[:at])
    before = len(out.getvalue().encode())
    out.write('x"y,"z"w\n')
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(records[at:])
    rows = read(out.getvalue().encode())
    whole = [list(pair) for pair in records]
    assert [row.fields for row in rows] == [*whole[:at], None, *whole[at:]]
    assert rows[len(whole[:at])].after == before + len('x"y,"z"w\n')


def test_json_lines_are_objects():
    values = {"a": "café", "n": 1e400, "l": [1, [2]]}
    assert read(json.dumps(values).encode() + b"\n\n", "jsonl")[0].fields == values
