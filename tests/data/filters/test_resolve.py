"""Settings that depend on the source: limits for tables of the web, none for one's own images."""

import dataclasses

import prepare_work as work
import pytest

from pinxit.config import UsageError, from_json, to_json
from pinxit.data.filters.resolve import (
    chosen_line,
    images_identity,
    is_web,
    resolved_filters,
    resolved_images,
    with_served_limits,
)
from pinxit.data.filters.row_filter import Filter, FilterConfig
from pinxit.data.images.decode import ImageConfig
from pinxit.data.images.formats import OWN, WEB
from pinxit.data.row import Row

FORMER = {
    "min_side": 256,
    "max_aspect": 2.0,
    "max_watermark": 0.5,
    "max_nsfw": 0.2,
    "min_aesthetic": 4.75,
    "min_clip_similarity": 0.22,
    "min_words": 3,
}
"""The defaults of the version before."""


@pytest.mark.parametrize(
    ("name", "has_images", "web"),
    [
        *(("coyo", False, True), ("csv", False, True), ("parquet", False, True)),
        *(("cc12m", True, True), ("monet", True, True)),
        *(("folder", True, False), ("webdataset", True, False), ("hf", True, False)),
        ("parquet", True, False),
    ],
)
def test_images_that_a_source_holds_are_ones_own_unless_it_is_published(name, has_images, web):
    assert is_web(work.ToySource(name=name, has_images=has_images)) is web


def test_limits_follow_the_source_and_the_size():
    auto = FilterConfig()
    web = resolved_filters(auto, web=True, targets=[(256, 256)])
    assert web == FilterConfig(**FORMER)
    assert resolved_filters(auto, web=True, targets=[(512, 512)]).min_side == 512
    buckets = ImageConfig(size=512, bucket_step=64).targets
    assert resolved_filters(auto, web=True, targets=buckets).min_side == 384
    assert min(min(size) for size in buckets) == 384
    own = resolved_filters(auto, web=False, targets=[(256, 256)])
    assert own == FilterConfig(**dict.fromkeys(FORMER))
    given = FilterConfig(min_words=5, max_nsfw=None, min_side=100)
    assert resolved_filters(given, web=False, targets=[(256, 256)]).thresholds() == {
        "words": 5,
        "side": 100,
    }
    found = resolved_filters(given, web=True, targets=[(512, 512)])
    assert (found.min_side, found.max_nsfw, found.min_words, found.max_aspect) == (100, None, 5, 2)
    assert resolved_filters(found, web=False, targets=[(8, 8)]) == found


def test_auto_without_a_source_means_what_it_meant():
    assert FilterConfig().thresholds() == FilterConfig(**FORMER).thresholds()
    row = Row("a/0", "http://a.test/b", "one two three", width=255, height=300)
    assert Filter(FilterConfig()).check(row) == "filtered_side"
    assert from_json(FilterConfig, to_json(FilterConfig())) == FilterConfig()
    with pytest.raises((UsageError, TypeError), match="many"):
        from_json(FilterConfig, {"min_side": "many"})


def test_a_folder_that_was_begun_before_keeps_its_values():
    stored = {**FORMER, "min_side": 256}
    found = resolved_filters(FilterConfig(), web=False, targets=[(512, 512)], stored=stored)
    assert found == FilterConfig(**FORMER)
    given = FilterConfig(min_side=None)
    assert resolved_filters(given, web=True, targets=[(8, 8)], stored=stored).min_side is None
    former = {
        **{"size": 256, "crop": "center", "max_pixels": 64 * 2**20, "min_side": 0},
        **{"formats": ["JPEG", "PNG", "WEBP", "GIF", "BMP"], "buckets": []},
    }
    images = resolved_images(ImageConfig(), web=True, stored=former)
    assert images_identity(images) == former
    now = resolved_images(ImageConfig(), web=True)
    assert (now.blank, now.max_repeats, now.formats) == ("drop", 4, WEB)
    again = resolved_images(ImageConfig(), web=True, stored=images_identity(now))
    assert again == now and images_identity(again) == images_identity(now)
    own = resolved_images(ImageConfig(max_repeats=0), web=False)
    assert (own.blank, own.max_repeats, own.formats) == ("keep", 0, OWN)


def test_the_limits_of_the_filters_apply_to_the_served_image():
    filters = resolved_filters(FilterConfig(), web=True, targets=[(256, 256)])
    served = with_served_limits(ImageConfig(), filters)
    assert (served.min_side, served.max_aspect) == (256, 2.0)
    strict = with_served_limits(ImageConfig(min_side=300, max_aspect=1.5), filters)
    assert (strict.min_side, strict.max_aspect) == (300, 1.5)
    off = resolved_filters(FilterConfig(), web=False, targets=[(256, 256)])
    assert with_served_limits(ImageConfig(), off) == ImageConfig()


def test_one_line_says_which_filters_were_chosen():
    def line(config: FilterConfig, *, web: bool) -> str:
        resolved = resolved_filters(config, web=web, targets=[(256, 256)])
        return chosen_line(config, resolved, web=web)

    assert line(FilterConfig(), web=True) == (
        "filters for a table of the web: min_side 256, max_aspect 2.0, max_watermark 0.5, "
        "max_nsfw 0.2, min_aesthetic 4.75, min_clip_similarity 0.22, min_words 3. "
        "To change one: --filters.min_side none"
    )
    own = line(dataclasses.replace(FilterConfig(), min_side=9), web=False)
    others = "max_aspect, max_watermark, max_nsfw, min_aesthetic, min_clip_similarity, min_words"
    assert own == (
        f"filters for images of your own: min_side 9 (off: {others}). "
        "To change one: --filters.max_aspect 2"
    )
    assert line(FilterConfig(), web=False) == (
        "filters for images of your own: none. To change one: --filters.min_side 256"
    )
    assert line(FilterConfig(**FORMER), web=True) == ""


def test_what_may_be_looked_at():
    check = Filter(FilterConfig(blocked_domains=("bad.test",)))
    row = Row("a/0", "http://a.test/b", "a", scores={"nsfw": 0.19})
    assert check.may_be_shown(row)
    assert not check.may_be_shown(dataclasses.replace(row, scores={"nsfw": 0.2}))
    assert not check.may_be_shown(dataclasses.replace(row, url="http://www.bad.test/b"))
    assert not check.may_be_shown(dataclasses.replace(row, url=None, origin="http://bad.test/"))
    assert check.may_be_shown(dataclasses.replace(row, scores={}))
