"""Names matched whatever their case, values cast by meaning, what lacks said at once."""

import math
import pickle
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinxit.data.sources.catalogue import COYO, LAION, USUAL
from pinxit.data.sources.columns import (
    Columns,
    hash_digits,
    make_row,
    number,
    text,
    unreadable,
    whole_number,
)

RELEASED = [
    *("id", "url", "text", "width", "height", "image_phash", "text_length", "word_count"),
    *("num_tokens_bert", "num_tokens_gpt", "num_faces", "clip_similarity_vitb32"),
    *("clip_similarity_vitl14", "nsfw_score_opennsfw2", "nsfw_score_gantman"),
    *("watermark_score", "aesthetic_score_laion_v2"),
]
"""COYO-700M's columns, all of them."""


def test_coyo_as_released():
    found = COYO.match(RELEASED, where="coyo")
    assert found["caption"] == ("text",) and found["phash"] == ("image_phash",)
    assert found["nsfw"] == ("nsfw_score_opennsfw2", "nsfw_score_gantman")
    assert found["clip_similarity"] == ("clip_similarity_vitl14",)


@pytest.mark.parametrize("lost", ["url", "text", "watermark_score", "image_phash"])
def test_a_missing_column_is_named_with_those_that_exist(lost):
    existing = [name for name in RELEASED if name != lost]
    with pytest.raises(ValueError) as error:
        COYO.match(existing, where="coyo: part-0.parquet")
    said = str(error.value)
    assert "coyo: part-0.parquet has no column for" in said and f"({lost})" in said
    assert "num_faces" in said and "--columns url=LINK" in said


def test_everything_that_lacks_is_said_at_once():
    with pytest.raises(ValueError, match=r"url \(url\).*caption \(text\).*it has: link, words"):
        COYO.match(["link", "words"], where="coyo")


@pytest.mark.parametrize(
    "existing",
    [
        ["URL", "TEXT", "WIDTH", "HEIGHT", "similarity", "hash", "punsafe", "pwatermark"],
        ["url", "caption", "width", "height", "similarity", "status", "punsafe", "pwatermark"],
    ],
)
def test_laion_old_and_new(existing):
    found = LAION.match(existing, where="laion2b")
    assert found["url"] == (existing[0],) and found["caption"] == (existing[1],)
    assert found["width"] == (existing[2],) and found["watermark"] == ("pwatermark",)
    assert "phash" not in found  # LAION's hash is of the text


def test_exact_spelling_wins_and_preference_decides():
    assert USUAL.match(["Url", "url", "text", "caption"], where="x")["url"] == ("url",)
    assert USUAL.match(["URL", "text", "Caption"], where="x")["caption"] == ("Caption",)


def test_columns_given_by_hand():
    columns = COYO.override({"url": "LINK", "phash": "none", "nsfw": "a, b"})
    rest = [name for name in RELEASED if name not in ("url", "image_phash")]
    found = columns.match([*rest, "Link", "a", "b"], where="coyo")
    assert found["url"] == ("Link",) and found["nsfw"] == ("a", "b") and "phash" not in found
    with pytest.raises(ValueError, match=r"nsfw \(b\)"):
        columns.match([*rest, "Link", "a"], where="coyo")
    with pytest.raises(ValueError, match=r"colour is unknown; valid: url, caption"):
        COYO.override({"colour": "x"})
    # one of two alternatives may be dropped, and then the other is needed
    with pytest.raises(ValueError, match="no column for image "):
        USUAL.override({"url": "none"}).match(["url", "caption"], where="x")
    assert pickle.loads(pickle.dumps(columns)) == columns


def test_the_first_of_several_captions_that_has_a_value():
    found = USUAL.override({"caption": "long,short"}).match(["url", "long", "short"], where="x")
    values = {"url": "u", "long": " ", "short": "a cat"}
    assert make_row("k", values, found).caption == "a cat"


@pytest.mark.parametrize(
    ("values", "width", "scores"),
    [
        ({"width": 640.0, "watermark_score": 0.25}, 640, {"watermark": 0.25}),
        ({"width": "640", "watermark_score": "0.25"}, 640, {"watermark": 0.25}),
        ({"width": float("nan"), "watermark_score": float("nan")}, None, {}),
        ({"width": 0, "watermark_score": "n/a"}, None, {}),
        ({"width": -5, "watermark_score": None}, None, {}),
        ({"width": True, "watermark_score": [1]}, None, {}),
        ({"width": 10**400, "watermark_score": "1e999"}, None, {}),
        ({"nsfw_score_opennsfw2": 0.1, "nsfw_score_gantman": 0.4}, None, {"nsfw": 0.4}),
        ({"nsfw_score_opennsfw2": 0.1, "nsfw_score_gantman": None}, None, {"nsfw": 0.1}),
    ],
)
def test_values_are_cast_or_absent(values: dict[str, Any], width, scores):
    row = make_row("k", values, COYO.match(RELEASED, where="coyo"))
    assert row.width == width and row.scores == scores
    assert row.url is None and row.caption == ""


def test_casts():
    assert text("  a \n") == "a" and text(b"caf\xc3\xa9") == "café" and text(5) == "5"
    assert text(b"caf\xe9") is None and text("a\0b") == "ab" and text(float("inf")) is None
    assert text("\ud800x") == "?x" and text(None) is None and text(" ") is None
    assert text(float("nan")) is None and text({"a": 1}) is None and text(True) is None
    assert whole_number("12.9") == 12 and number("-3") == -3.0 and number("x") is None
    assert hash_digits("9C8F00FF00FF00FF") == "9c8f00ff00ff00ff"
    assert hash_digits(-1) == "f" * 16 and hash_digits(255) == "00000000000000ff"
    assert hash_digits("xyz") is None and hash_digits("0" * 17) is None and hash_digits(1.5) is None


def test_an_image_takes_the_place_of_the_url():
    found = USUAL.match(["url", "image", "caption"], where="x")
    values = {"url": "http://a/b", "caption": "c", "image": {"bytes": b"\xff", "path": "/etc"}}
    row = make_row("k", values, found)
    assert row.image == b"\xff" and row.url is None and row.origin == "http://a/b"
    absent = make_row("k", {**values, "image": {"bytes": None, "path": "/etc/passwd"}}, found)
    assert absent.image is None and absent.url is None and absent.origin == "http://a/b"


def test_text_is_not_taken_for_an_image():
    found = USUAL.match(["url", "image", "PNG", "caption"], where="x", binary=["PNG"])
    assert found["image"] == ("PNG",)
    assert "image" not in USUAL.match(["url", "image", "caption"], where="x", binary=[])
    with pytest.raises(ValueError, match=r"no column for url or image .*\(Image: no encoded"):
        USUAL.match(["Image", "caption"], where="x", binary=[])
    named = USUAL.override({"image": "picture"})
    with pytest.raises(ValueError, match=r"image \(picture\).*\(picture: no encoded"):
        named.match(["url", "picture", "caption"], where="x", binary=[])
    by_hand = USUAL.override({"url": "image"}).match(["image", "caption"], where="x", binary=[])
    row = make_row("k", {"image": "http://a/b", "caption": "c"}, by_hand)
    assert row.url == "http://a/b" and row.origin is None


def test_an_unreadable_record_keeps_its_key():
    row = unreadable("00000-000/00000007")
    assert row.key == "00000-000/00000007" and row.url is None and row.image is None


def test_required_is_the_default_of_usual_tables():
    assert Columns({"url": ("u",), "caption": ("c",)}).match(["U", "C"], where="x")


def test_one_of_several_captions_is_taken_by_the_key_of_the_row():
    found = USUAL.match(["url", "caption"], where="x")
    values = {"url": "http://a", "caption": ["one", "", None, " two ", "three"]}
    keys = [f"00000-000/{i:08d}" for i in range(3000)]
    taken = [make_row(key, values, found).caption for key in keys]
    assert taken == [make_row(key, values, found).caption for key in keys]
    assert taken[:6] == ["three", "one", "one", "one", "two", "three"]
    counts = Counter(taken)
    assert set(counts) == {"one", "two", "three"} and min(counts.values()) > 900
    empty = make_row("k", {"url": "http://a", "caption": [None, " "]}, found)
    assert empty.caption == "" and empty.fault is None


def test_bytes_are_decoded_or_are_a_status():
    found = USUAL.match(["url", "caption"], where="x")
    values = {"url": b"http://a/1", "caption": "café".encode("cp1252")}
    row = make_row("k", values, found, place=("a.parquet, row", 3))
    assert (row.fault, row.name, row.url) == ("bad_text", "a.parquet, row 3", "http://a/1")
    assert row.detail == "caption: not UTF-8 text (byte 0xe9 at position 3)" and row.caption == ""
    row = make_row("k", values, found, place=("a.parquet, row", 3), text_encoding="cp1252")
    assert (row.fault, row.name, row.caption) == (None, None, "café")
    listed = make_row("k", {"url": "http://a", "caption": ["good", b"\xff\xe9\xff"]}, found)
    assert listed.fault == "bad_text"
    marked = make_row("k", {"url": "http://a", "caption": "\ufeffcafé".encode("utf-16-le")}, found)
    assert marked.caption == "café"


def test_a_later_column_stands_in_for_one_that_holds_no_text():
    found = USUAL.override({"caption": "long,short"}).match(["url", "long", "short"], where="x")
    values = {"url": "http://a", "long": {"en": 1}, "short": "a cat"}
    assert make_row("k", values, found).caption == "a cat"
    assert make_row("k", values, found).fault is None
    row = make_row("k", {**values, "short": None}, found)
    assert (row.fault, row.detail) == ("bad_record", "caption: an object (en), not text")


def test_an_image_that_is_missing_says_which():
    found = USUAL.match(["image", "caption"], where="x")
    place = ("a.parquet, row", 7)
    row = make_row(
        "k", {"caption": "c", "image": {"bytes": None, "path": "x.png"}}, found, place=place
    )
    assert (row.fault, row.name) == ("missing_image", "a.parquet, row 7")
    assert row.detail == "image: the path 'x.png' and no bytes"
    for image in (None, b"", {"bytes": b"", "path": None}, {}):
        row = make_row("k", {"caption": "c", "image": image}, found, place=place)
        assert (row.fault, row.detail) == ("no_image", "image: no bytes")
    row = make_row("k", {"caption": "c", "image": b"\x89PNG"}, found, place=place)
    assert (row.fault, row.name) == (None, "a.parquet, row 7")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


ANY = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.floats(), st.text(max_size=9), st.binary(max_size=9)),
        *(st.integers(), st.just(10**4000), st.just(-(10**400)), st.decimals()),
        *(st.just("\ud83d\0"), st.just(nested(1000)), st.dates(), st.characters(categories=["Cs"])),
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({name: ANY for name in (*RELEASED, "image", "caption")}))
def test_no_value_raises(values: dict[str, Any]):
    for columns in (USUAL, COYO, USUAL.override({"image": "none"})):
        found = columns.match(list(values), where="x")
        row = make_row("k", values, found, place=("a.csv, record", 1))
        assert row.fault in (None, "bad_record", "bad_text", "no_image", "missing_image")
        assert (row.fault is None) == (row.detail == "") and "\n" not in row.detail
        for text_ in (row.caption, row.url or "", row.origin or "", row.detail, row.name or ""):
            text_.encode("utf-8")
            assert "\0" not in text_ and text_ == text_.strip()
        for value in (row.width, row.height):
            assert value is None or value >= 1
        assert all(math.isfinite(score) for score in row.scores.values())


def test_messages_are_one_line_whatever_the_names_are():
    names = ["a\nb", "\ud83d", "x" * 5000, *(f"k{i}" for i in range(100))]
    with pytest.raises(ValueError) as error:
        USUAL.match(names, where="x")
    message = str(error.value)
    message.encode("utf-8")
    assert "\n" not in message and len(message) < 1500 and "it has: a b, ?, xxx" in message
    assert "k36 and 63 more. Set the column" in message
    row = make_row("k", {"url": {"a\nb": 1, "c" * 999: 2}}, USUAL.match(["url", "text"], where="x"))
    assert row.detail.startswith("url: an object (a b, ccc") and len(row.detail) < 200
