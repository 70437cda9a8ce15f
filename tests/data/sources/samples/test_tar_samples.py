"""Tars as people pack them: every picture and every caption has a row, in one order."""

import io
import json
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tar_files import JPEG, sample, write_tar  # pyrefly: ignore

from pinxit.data.row import Row, unusable
from pinxit.data.sources.catalogue import open_source
from pinxit.data.sources.samples import tar_samples, webdataset
from pinxit.data.sources.samples.sample_names import parse_name

Files = list[tuple[str, bytes]]


def rows_of(path: Path, files: Files, **options) -> list[Row]:
    """The rows of a tar, whose number is also found without reading it."""
    write_tar(path / "a.tar", files)
    source = open_source("webdataset", path=str(path / "a.tar"), **options)
    (unit,) = source.units()
    rows = list(source.read(unit))
    assert source.count(unit) == len(rows)
    assert [row.key for row in rows] == [f"00000-000/{i:08d}" for i in range(len(rows))]
    return rows


def outcomes(rows: list[Row]) -> list[tuple[str | None, str]]:
    return [(row.name, unusable(row) or row.caption) for row in rows]


def pair(stem: str) -> Files:
    return [(f"{stem}.jpg", JPEG + stem.encode()), (f"{stem}.txt", f"text {stem}".encode())]


def test_dots_in_names(tmp_path: Path):
    rows = rows_of(tmp_path, [*pair("shot 1.5s"), *pair("shot 1.7s"), *pair("shot 2")])
    assert outcomes(rows) == [
        (f"shot {name}.jpg", f"text shot {name}") for name in ("1.5s", "1.7s", "2")
    ]
    assert [row.image for row in rows] == [JPEG + f"shot {n}".encode() for n in ("1.5s", "1.7s", 2)]


def test_pictures_first_and_captions_last(tmp_path: Path):
    pairs = [pair(f"{i}") for i in range(8)]
    by_kind = [pair[kind] for kind in (0, 1) for pair in pairs]
    rows = rows_of(tmp_path, by_kind)
    assert outcomes(rows) == [(f"{i}.jpg", f"text {i}") for i in range(8)]
    assert [row.image for row in rows] == [JPEG + f"{i}".encode() for i in range(8)]
    texts_first = rows_of(tmp_path, by_kind[8:] + by_kind[:8])
    assert texts_first == rows
    crossed = rows_of(tmp_path, by_kind[:8] + by_kind[:7:-1])
    assert crossed == rows


def test_what_is_complete_is_read_once_and_the_rest_by_position(tmp_path: Path, monkeypatch):
    opened = []

    def counted(path, *, stream=False):
        opened.append(stream)
        return open(path, "rb")

    monkeypatch.setattr(webdataset, "open_file", counted)
    ordinary = [member for i in range(3) for member in sample(f"{i}")]
    source_rows = rows_of(tmp_path, ordinary)
    assert opened == [True, False] and len(source_rows) == 3  # the second is of `count`
    opened.clear()
    rows = rows_of(tmp_path, [*ordinary, ("8.jpg", JPEG), ("9.jpg", JPEG), ("8.txt", b"late")])
    assert opened == [True, False, False]
    assert rows[:3] == source_rows
    assert outcomes(rows)[3:] == [("8.jpg", "late"), ("9.jpg", "no_caption")]


def test_every_picture_has_a_row(tmp_path: Path):
    """The case in which five pairs gave "3 of 3"."""
    files = [*pair("a"), ("a.png", JPEG), *pair("b"), ("b.webp", JPEG), ("b.mask.png", JPEG)]
    assert outcomes(rows_of(tmp_path, files)) == [
        *[("a.jpg", "text a"), ("b.jpg", "text b")],
        *[("a.png", "extra_image"), ("b.webp", "extra_image"), ("b.mask.png", "extra_image")],
    ]
    again = [*pair("a"), *pair("b"), ("a.jpg", JPEG), ("a.txt", b"again")]
    assert outcomes(rows_of(tmp_path, again)) == [
        *[("a.jpg", "text a"), ("b.jpg", "text b"), ("a.jpg", "again")],
    ]
    late = [*pair("a"), *pair("b"), ("a.mask.png", JPEG), ("b.caption", b"more"), ("c.txt", b"c")]
    rows = rows_of(tmp_path, late)
    assert outcomes(rows) == [
        *[("a.jpg", "text a"), ("b.jpg", "text b"), ("c.txt", "no_image")],
        *[("a.mask.png", "extra_image"), ("b.caption", "extra_caption")],
    ]
    assert rows[3].detail == "an earlier sample has the picture a.jpg"
    assert outcomes(rows_of(tmp_path, [("a.mask.png", JPEG), ("a.txt", b"a"), *pair("b")])) == [
        *[("a.txt", "no_image"), ("b.jpg", "text b"), ("a.mask.png", "extra_image")],
    ]
    twice = [*pair("a"), *pair("a")]
    assert outcomes(rows_of(tmp_path, twice)) == [
        *[("a.jpg", "text a"), ("a.jpg", "extra_image"), ("a.txt", "extra_caption")],
    ]


def test_captions_of_every_name(tmp_path: Path):
    files = [("0.jpg", JPEG), ("0.TXT", b"zero"), ("1.jpg", JPEG), ("1.text", b"one")]
    files += [("2.jpg", JPEG), ("2.cap", b"two"), ("3.png", JPEG), ("3.png.txt", b"three")]
    files += [("4.jpg", JPEG), ("4.caption.txt", b"four"), ("5.jpg", JPEG), ("5.caption", b"five")]
    files += [("6.jpg", JPEG), ("6.caption", b"spare"), ("6.txt", b"six"), ("7.jfif", JPEG)]
    files += [("7.txt", b""), ("8.heic", JPEG), ("8.txt", "acht ä".encode("utf-16"))]
    assert outcomes(rows_of(tmp_path, files)) == [
        *[("0.jpg", "zero"), ("1.jpg", "one"), ("2.jpg", "two"), ("3.png", "three")],
        *[("4.jpg", "four"), ("5.jpg", "five"), ("6.jpg", "six"), ("7.jfif", "no_caption")],
        *[("8.heic", "acht ä"), ("6.caption", "extra_caption")],
    ]


def test_texts_in_other_encodings(tmp_path: Path):
    files = [("0.jpg", JPEG), ("0.txt", "café".encode("cp1252")), *pair("1")]
    rows = rows_of(tmp_path, files)
    assert outcomes(rows) == [("0.jpg", "bad_text"), ("1.jpg", "text 1")]
    assert rows[0].detail == "0.txt is not UTF-8 text (byte 0xe9 at position 3)"
    declared = rows_of(tmp_path, files, text_encoding="cp1252")
    assert [row.caption for row in declared] == ["café", "text 1"]
    nul = rows_of(tmp_path, [("0.jpg", JPEG), ("0.txt", b"a\0 cat")])
    assert nul[0].caption == "a cat"


def test_json_that_cannot_be_read(tmp_path: Path):
    large = json.dumps({"caption": "x" * 2**20}).encode()
    files = [("0.jpg", JPEG), ("0.json", b"{"), ("1.jpg", JPEG), ("1.json", large)]
    files += [("2.jpg", JPEG), ("2.json", b"{"), ("2.txt", b"two"), ("3.json", b"{}"), *pair("4")]
    rows = rows_of(tmp_path, files)
    assert outcomes(rows) == [
        *[("0.jpg", "bad_record"), ("1.jpg", "large_file"), ("2.jpg", "two")],
        *[("3.json", "no_image"), ("4.jpg", "text 4")],
    ]
    assert rows[0].detail.startswith("0.json is not valid JSON (")
    assert rows[1].detail == f"1.json has {len(large)} bytes; the limit is {2**20}"


def test_names_in_no_encoding(tmp_path: Path):
    files = [("caf\udce9.jpg", JPEG), ("caf\udce9.txt", b"coffee")]
    assert outcomes(rows_of(tmp_path, files)) == [("caf\\xe9.jpg", "coffee")]


def test_adjacent_names_are_not_all_held(tmp_path: Path, monkeypatch):
    files = [member for i in range(9) for member in pair(f"clip.{i:04d}")]
    whole = rows_of(tmp_path, files)
    monkeypatch.setattr(tar_samples, "HELD", 100)
    assert rows_of(tmp_path, files) == whole
    assert outcomes(whole) == [(f"clip.{i:04d}.jpg", f"text clip.{i:04d}") for i in range(9)]


def test_a_remote_tar_whose_samples_are_not_adjacent(tmp_path: Path):
    pairs = [pair(f"{i}") for i in range(4)]
    path = write_tar(tmp_path / "a.tar", [pair[kind] for kind in (0, 1) for pair in pairs])
    fsspec.filesystem("memory").pipe("/apart/a.tar", path.read_bytes())
    source = open_source("webdataset", path="memory://apart/a.tar")
    rows = [row for unit in source.units() for row in source.read(unit)]
    assert outcomes(rows) == [(f"{i}.jpg", f"text {i}") for i in range(4)]


def test_a_stream_that_cannot_seek_is_refused(tmp_path: Path, monkeypatch):
    class Stream(io.FileIO):
        def __init__(self, path: str, *, stream: bool = False) -> None:
            super().__init__(path)

        def seekable(self) -> bool:
            return False

    source = open_source("webdataset", path=str(write_tar(tmp_path / "a.tar", pair("0"))))
    monkeypatch.setattr(webdataset, "open_file", Stream)
    assert len(list(source.read(source.units()[0]))) == 1
    write_tar(tmp_path / "a.tar", [("0.jpg", JPEG), ("1.jpg", JPEG), ("0.txt", b"0")])
    with pytest.raises(ValueError, match="do not follow one another; download it first"):
        list(source.read(source.units()[0]))


STEMS = ("1", "2", "1.5s", "1.mask", "2.image", "2.caption", "a/1", "1.jpg")
SUFFIXES = ("jpg", "png", "txt", "caption", "json", "npy")
NAMES = st.tuples(st.sampled_from(STEMS), st.sampled_from(SUFFIXES)).map(".".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(NAMES, max_size=14))
def test_every_picture_and_caption_is_used_or_has_a_row(tmp_path_factory, names: list[str]):
    files = [
        (name, (JPEG if name.endswith(("jpg", "png")) else b"words ") + f"{number}".encode())
        for number, name in enumerate(names)
    ]
    files = [(n, b'{"caption": ""}' if n.endswith("json") else data) for n, data in files]
    rows = rows_of(tmp_path_factory.mktemp("tar"), files)
    kinds = {name: parsed.kind for name in names if (parsed := parse_name(name)) is not None}
    seen = Counter(row.name for row in rows)
    used = Counter(row.caption for row in rows if row.caption)
    images = Counter(row.image for row in rows if row.image is not None)
    for number, (name, data) in enumerate(files):
        if kinds.get(name) == "image":
            assert seen[name] == names.count(name)
            assert images[data] <= 1
        elif kinds.get(name) == "caption":
            as_caption = used[f"words {number}"]
            assert as_caption <= 1
            alike = [f"words {i}" for i, other in enumerate(names) if other == name]
            assert seen[name] + sum(used[words] for words in alike) == names.count(name)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(NAMES, max_size=4), max_size=4))
def test_streams_and_plans_agree(tmp_path_factory, groups: list[list[str]]):
    """What is read before the first incomplete sample is what the whole plan says."""
    files = [(name, b"{}") for names in groups for name in (*names, "8.jpg", "8.txt")]
    path = write_tar(tmp_path_factory.mktemp("tar") / "a.tar", files)
    with open(path, "rb") as stream:
        plan = tar_samples.read_plan(stream, "a.tar")
    extras: list[tar_samples.Extra] = []
    streamed = []
    with open(path, "rb") as stream:
        samples = tar_samples.streamed_samples(stream, "a.tar", extras)
        while True:
            try:
                streamed.append(next(samples))
            except StopIteration as stop:
                count = stop.value
                break

    def orders(samples):
        return [[part.order for part in one.parts] for one in samples]

    assert orders(streamed) == orders(plan.samples[: len(streamed)])
    if count is None:
        assert len(streamed) == len(plan.samples) and extras == plan.extras
    else:
        assert count == len(streamed)
