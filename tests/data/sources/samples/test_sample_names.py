"""Which files form a sample, by their names alone."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinxit.data.sources.file_names import printable
from pinxit.data.sources.samples.sample_names import (
    IMAGE_SUFFIXES,
    SampleName,
    group_names,
    parse_name,
)


def names_of(*paths: str) -> list[SampleName]:
    names = [parse_name(path) for path in paths]
    assert all(name is not None for name in names)
    return [name for name in names if name is not None]


def grouped(*paths: str) -> tuple[list[tuple[str | None, ...]], list[str], list[str]]:
    """The samples as (image, caption, metadata), the extra images and the extra captions."""
    grouping = group_names(names_of(*paths))
    samples = [
        tuple(None if at is None else paths[at] for at in (one.image, one.caption, one.about))
        for one in grouping.samples
    ]
    extra_images = [paths[at] for at, _ in grouping.extra_images]
    return samples, extra_images, [paths[at] for at in grouping.extra_captions]


CASES = {
    "img2dataset": (["0.jpg", "0.json", "0.txt"], [("0.jpg", "0.txt", "0.json")], [], []),
    "dots": (
        ["shot 1.5s.jpg", "shot 1.5s.txt", "shot 1.7s.jpg", "shot 1.7s.txt"],
        [
            ("shot 1.5s.jpg", "shot 1.5s.txt", None),
            ("shot 1.7s.jpg", "shot 1.7s.txt", None),
        ],
        [],
        [],
    ),
    "a lost partner is not replaced": (
        ["shot 1.5s.jpg", "shot 1.7s.txt", "shot 1.txt"],
        [("shot 1.5s.jpg", None, None), (None, "shot 1.7s.txt", None), (None, "shot 1.txt", None)],
        [],
        [],
    ),
    "versions": (
        ["v1.final.jpg", "v1.final.txt", "v1.draft.jpg", "v1.draft.txt"],
        [("v1.final.jpg", "v1.final.txt", None), ("v1.draft.jpg", "v1.draft.txt", None)],
        [],
        [],
    ),
    "other words": (
        ["v1.final.jpg", "v1.draft.txt"],
        [("v1.final.jpg", None, None), (None, "v1.draft.txt", None)],
        [],
        [],
    ),
    "a mask first": (
        ["1.mask.png", "1.jpg", "1.txt"], [("1.jpg", "1.txt", None)], ["1.mask.png"], [],
    ),
    "only words": (
        ["1.depth.png", "1.image.png", "1.caption.txt", "1.json"],
        [("1.image.png", "1.caption.txt", "1.json")],
        ["1.depth.png"],
        [],
    ),
    "a mask with a text of its own": (
        ["1.mask.png", "1.mask.txt", "1.png", "1.txt"],
        [("1.png", "1.txt", None)],
        ["1.mask.png"],
        ["1.mask.txt"],
    ),
    "the whole name": (
        ["x.jpg", "x.png", "x.jpg.txt", "x.png.txt"],
        [("x.jpg", "x.jpg.txt", None), ("x.png", "x.png.txt", None)],
        [],
        [],
    ),
    "two captions": (
        ["x.cap", "x.caption", "x.jpg", "x.text", "x.txt"],
        [("x.jpg", "x.txt", None)],
        [],
        ["x.cap", "x.caption", "x.text"],
    ),
    "two pictures": (["x.jpg", "x.png", "x.txt"], [("x.jpg", "x.txt", None)], ["x.png"], []),
    "a named caption": (["1.jpg", "1.caption.txt"], [("1.jpg", "1.caption.txt", None)], [], []),
    "a version with a plain caption": (
        ["6.v2.jpg", "6.txt"], [("6.v2.jpg", "6.txt", None)], [], [],
    ),
    "a mask without its picture": (
        ["1.mask.png", "1.txt"], [(None, "1.txt", None)], ["1.mask.png"], [],
    ),
    "a mask alone": (["1.mask.png"], [("1.mask.png", None, None)], [], []),
    "depth maps are the pictures": (
        ["1.depth.png", "1.txt"], [("1.depth.png", "1.txt", None)], [], [],
    ),
    "upper case": (["X.JPG", "X.TXT"], [("X.JPG", "X.TXT", None)], [], []),
    "a clip": (
        ["clip.0001.jpg", "clip.0002.jpg"],
        [("clip.0001.jpg", None, None), ("clip.0002.jpg", None, None)],
        [],
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_samples(case: tuple[list[str], list[tuple[str | None, ...]], list[str], list[str]]):
    paths, samples, extra_images, extra_captions = case
    assert grouped(*paths) == (samples, extra_images, extra_captions)


def test_the_order_of_the_files_changes_no_pair():
    paths = ["1.5s.jpg", "1.5s.txt", "1.mask.png", "1.jpg", "1.txt", "1.json"]
    for order in itertools.permutations(paths):
        samples, extra_images, extra_captions = grouped(*order)
        assert set(samples) == {("1.jpg", "1.txt", "1.json"), ("1.5s.jpg", "1.5s.txt", None)}
        assert extra_images == ["1.mask.png"] and extra_captions == []


def test_kinds():
    for suffix in ("jfif", "jpe", "jif", "heic", "heif", "avif", "jxl", "tif", "bmp", "gif"):
        assert suffix in IMAGE_SUFFIXES
        assert names_of(f"a/b.{suffix.upper()}")[0].kind == "image"
    assert [name.kind for name in names_of("a.txt", "a.text", "a.caption", "a.cap", "a.json")] == [
        *["caption"] * 4, "about",
    ]  # fmt: skip
    for path in ("a.npy", "a", ".jpg", "._a.jpg", "__MACOSX/a.jpg", "a.svg"):
        assert parse_name(path) is None


def test_names_that_are_not_utf8_are_printable():
    assert printable("caf\udce9.jpg") == "caf\\xe9.jpg"
    assert printable("café.jpg") == "café.jpg"


STEMS = ("1", "1.5s", "1.7s", "1.mask", "1.image", "1.caption", "1.jpg", "1.v2", "1.0001")
SUFFIXES = ("jpg", "png", "txt", "caption", "json", "TXT")


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(STEMS), st.sampled_from(SUFFIXES)).map(".".join),
        min_size=1,
        max_size=12,
    )
)
def test_every_image_and_caption_is_in_one_place(paths: list[str]):
    grouping = group_names(names_of(*paths))
    places = [at for at, _ in grouping.extra_images] + grouping.extra_captions
    for sample in grouping.samples:
        places += [at for at in (sample.image, sample.caption, sample.about) if at is not None]
    assert len(places) == len(set(places))
    lost = set(range(len(paths))) - set(places)
    assert all(paths[at].endswith(".json") for at in lost)
    firsts = [sample.first for sample in grouping.samples]
    assert firsts == sorted(firsts)
