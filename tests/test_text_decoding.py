"""Texts as people save them: Unicode is recognised, other encodings are declared or refused."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinxit.config import UsageError
from pinxit.text_decoding import UnknownEncoding, decode_text, known_encoding, split_lines

CAPTION = "a café by the Straße, 猫と犬, 🦊"


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_unicode_is_recognised(mark: bytes, encoding: str):
    assert decode_text(mark + CAPTION.encode(encoding)) == CAPTION


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_recognised_in_latin_text(encoding: str):
    assert decode_text("a red house".encode(encoding)) == "a red house"


def test_other_encodings_are_declared_or_refused():
    data = "a café".encode("cp1252")
    with pytest.raises(UnknownEncoding, match="not UTF-8 text"):
        decode_text(data)
    assert decode_text(data, fallback="cp1252") == "a café"
    assert decode_text("a café".encode(), fallback="cp1252") == "a café"  # UTF-8 comes first
    with pytest.raises(UnknownEncoding, match="SHIFT_JIS"):
        decode_text(b"\xff\xfd", fallback="shift_jis")
    with pytest.raises(UnknownEncoding, match="UTF-16-LE"):
        decode_text(codecs.BOM_UTF16_LE + b"a", fallback="cp1252")  # the mark decides


def test_nul_characters_are_removed():
    assert decode_text(b"a\0 cat\0\0") == "a cat"
    assert decode_text(b"\0\0") == ""


@given(st.text().filter(lambda text: "\0" not in text and not text.startswith("\ufeff")))
def test_any_utf_8_text_comes_back(text: str):
    assert decode_text(text.encode("utf-8", "replace")) == text.encode("utf-8", "replace").decode()


def test_lines_end_at_line_feeds_and_carriage_returns_only():
    assert split_lines("a\u2028b\r\nc\rd\n\ne\x0bf\n") == ["a\u2028b", "c", "d", "", "e\x0bf"]
    assert split_lines("") == []


def test_names_of_encodings():
    assert known_encoding("text_encoding", None) is None
    assert known_encoding("text_encoding", "Latin-1") == "iso8859-1"
    for name in ("klingon", "base64"):
        with pytest.raises(UsageError, match="text_encoding"):
            known_encoding("text_encoding", name)
