"""Each filter by itself, their order, their counts, and the same rows kept every time."""

import dataclasses
from typing import Any

import pytest
from prepare_work import Listed

from pinxit.cli.arguments import parse
from pinxit.config import UsageError, from_json, to_json
from pinxit.data.filters.row_filter import REASONS, Filter, FilterConfig
from pinxit.data.outcome import is_status
from pinxit.data.row import Row

GOOD: dict[str, Any] = {
    "url": "http://images.test/0.jpg",
    "caption": "a cat on a mat",
    "width": 512,
    "height": 400,
    "phash": "0" * 16,
    "scores": {"watermark": 0.1, "nsfw": 0.1, "aesthetic": 5.5, "clip_similarity": 0.25},
}
LIMITS = [
    *("min_side", "max_aspect", "max_watermark", "max_nsfw", "min_aesthetic"),
    *("min_clip_similarity", "min_words", "max_characters"),
]
OFF = FilterConfig(**dict.fromkeys(LIMITS), unique_phash=False, unique_url=False)


def row(number: int = 0, **changes: Any) -> Row:
    scores = changes.pop("scores", {})
    return Row(**{"key": f"0/{number:08d}", **GOOD, **changes, "scores": GOOD["scores"] | scores})


@pytest.mark.parametrize(
    ("setting", "limit", "passing", "failing", "reason"),
    [
        ("min_side", 256, {"width": 256, "height": 300}, {"width": 300, "height": 255}, "side"),
        ("max_aspect", 2.0, {"width": 600, "height": 300}, {"width": 300, "height": 601}, "aspect"),
        ("max_watermark", 0.5, {"watermark": 0.499}, {"watermark": 0.5}, "watermark"),
        ("max_nsfw", 0.2, {"nsfw": 0.199}, {"nsfw": 0.2}, "nsfw"),
        ("min_aesthetic", 4.75, {"aesthetic": 4.75}, {"aesthetic": 4.74}, "aesthetic"),
        (
            "min_clip_similarity",
            0.22,
            {"clip_similarity": 0.22},
            {"clip_similarity": 0.21},
            "clip_similarity",
        ),
        ("min_words", 3, {"caption": " one  two\nthree"}, {"caption": "one two"}, "words"),
        ("max_characters", 9, {"caption": "123456789"}, {"caption": "1234567890"}, "characters"),
        (
            "blocked_domains",
            ("Bad.test", "c.org."),
            {"url": "http://notbad.test/bad.test?bad.test"},
            {"url": "https://user@img.BAD.test.:8080/x"},
            "domain",
        ),
    ],
)
def test_one_filter_at_its_border(setting, limit, passing, failing, reason):
    alone = Filter(dataclasses.replace(OFF, **{setting: limit}))
    everything = Filter(OFF)

    def changed(values: dict[str, Any]) -> Row:
        scores = {name: value for name, value in values.items() if name in GOOD["scores"]}
        return row(**{k: v for k, v in values.items() if k not in scores}, scores=scores)

    assert alone.check(changed(passing)) is None
    assert alone.check(changed(failing)) == f"filtered_{reason}"
    assert everything.check(changed(failing)) is None
    assert alone.counts == {"ok": 1, f"filtered_{reason}": 1}


def test_every_default_filters_what_it_says():
    assert Filter(FilterConfig()).check(row()) is None
    bad = [
        {"width": 255}, {"width": 801}, {"scores": {"watermark": 0.9}}, {"scores": {"nsfw": 0.5}},
        {"scores": {"aesthetic": 4.0}}, {"scores": {"clip_similarity": 0.1}}, {"caption": "cat"},
    ]  # fmt: skip
    for number, changes in enumerate(bad):
        assert Filter(FilterConfig()).check(row(**changes)) == REASONS[1 + number]
    assert len(set(REASONS)) == len(REASONS) and all(is_status(reason) for reason in REASONS)


def test_a_row_counts_once_under_its_first_reason():
    filters = Filter(dataclasses.replace(FilterConfig(), blocked_domains=("images.test",)))
    everything_wrong = row(width=10, caption="x", scores={"watermark": 1.0, "nsfw": 1.0})
    assert filters.check(everything_wrong) == "filtered_side"
    assert filters.check(row(caption="")) == "filtered_words"
    assert filters.check(row()) == "filtered_domain"
    assert sum(filters.counts.values()) == 3


def test_rows_that_cannot_be_read_are_said_so():
    assert Filter(FilterConfig()).check(row(url=None)) == "no_url"
    assert Filter(FilterConfig()).check(row(url=None, image=b"x", origin="http://a/b")) is None


@pytest.mark.parametrize("missing", ["keep", "drop"])
def test_figures_that_are_missing(missing):
    bare = Row(key="0/0", url="http://a/b", caption="one two three")
    filters = Filter(FilterConfig(missing=missing))
    assert filters.check(bare) == (None if missing == "keep" else "filtered_missing")
    lacking = {"side", "aspect", "watermark", "nsfw", "aesthetic", "clip_similarity"}
    assert filters.missing == dict.fromkeys(lacking, 1)
    # what is known still decides, and says so
    assert filters.check(dataclasses.replace(bare, caption="one")) == "filtered_words"
    assert Filter(OFF).check(bare) is None and not Filter(OFF).missing


def test_the_first_that_passes_is_kept_of_duplicates():
    filters = Filter(FilterConfig())
    rows = [
        row(0, url="http://a/0", phash="a" * 16, caption="short"),  # fails: makes no duplicate
        row(1, url="http://a/1", phash="a" * 16),
        row(2, url="http://a/2", phash="a" * 16),
        row(3, url="http://a/1", phash="b" * 16),
        row(4, url="http://a/4", phash="b" * 16),
        row(5, url="http://a/5", phash=None),
        row(6, url="http://a/6", phash=None),
        row(7, url=None, image=b"x", origin="http://a/6", phash=None),
    ]
    reasons = [filters.check(one) for one in rows]
    assert reasons == [
        *("filtered_words", None, "filtered_phash", "filtered_url", None, None, None),
        "filtered_url",
    ]
    again = Filter(FilterConfig())
    assert [again.check(one) for one in rows] == reasons
    loose = Filter(dataclasses.replace(FilterConfig(), unique_phash=False, unique_url=False))
    assert [loose.check(one) for one in rows[1:]] == [None] * 7


def test_duplicates_of_other_units_are_given_by_key():
    listed = Listed({"0/00000001": "filtered_phash", "0/00000002": "filtered_url"})
    filters = Filter(FilterConfig(), duplicates=listed)
    assert filters.check(row(1)) == "filtered_phash"
    assert filters.check(row(2, phash=None)) == "filtered_url"
    assert filters.check(row(3)) is None


def test_histograms_hold_every_row():
    filters = Filter(FilterConfig())
    for width in (100, 512, 512):
        filters.check(row(width=width))
    filters.check(Row(key="0/9", url="http://a/b", caption="x"))
    side = filters.histograms.by_name["side"]
    assert side.counts.sum() == 3 and side.missing == 1
    assert filters.histograms.by_name["words"].counts.sum() == 4


def test_settings():
    config = FilterConfig(blocked_domains=("a.test",), min_side=None)
    assert from_json(FilterConfig, to_json(config)) == config
    assert config.thresholds() == {
        "aspect": 2.0, "watermark": 0.5, "nsfw": 0.2, "aesthetic": 4.75,
        "clip_similarity": 0.22, "words": 3.0,
    }  # fmt: skip
    assert OFF.thresholds() == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_aspect": 0.5}, "max_aspect: 0.5 is too small; valid: at least 1"),
        ({"min_side": 0}, "min_side: 0 is too small"),
        ({"min_words": -1}, "min_words: -1 is too small; valid: at least 0"),
        ({"max_nsfw": 20.0}, "max_nsfw: 20.0 is not a probability; valid: above 0, to 1"),
        ({"max_watermark": 0.0}, "max_watermark: 0.0 is not a probability"),
        (
            {"blocked_domains": ("http://a.test",)},
            "blocked_domains: 'http://a.test' is not a domain",
        ),
        ({"blocked_domains": ("",)}, "blocked_domains: '' is not a domain"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], said: str):
    with pytest.raises(UsageError) as error:
        FilterConfig(**changes)
    assert said in str(error.value)


def test_from_the_command_line():
    config = parse(FilterConfig, ["--min_side", "none", "--blocked_domains", "a.test", "b.test"])
    assert config == FilterConfig(min_side=None, blocked_domains=("a.test", "b.test"))
    with pytest.raises(UsageError, match="missing: 'maybe' is not understood; valid: keep, drop"):
        parse(FilterConfig, ["--missing", "maybe"])
