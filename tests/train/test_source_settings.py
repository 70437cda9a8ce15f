"""The settings of a run that depend on its source, in new runs and in those that go on."""

import json
from dataclasses import replace

import prepare_work as work

from pinxit.config import to_json
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.row import Row
from pinxit.recipes import RECIPES
from pinxit.train.input.repeated_pictures import RepeatedPictures
from pinxit.train.resume_policy import check_config
from pinxit.train.run_folder import folder_of, saved_config
from pinxit.train.source_settings import as_begun, begun_with, chosen_for


def test_a_new_run_takes_the_values_for_its_source():
    config = RECIPES["coyo_512"]().resolved()
    web, line = chosen_for(config, work.ToySource(name="coyo"))
    assert web.filters.min_side == 512 and web.images.blank == "drop"
    assert line.startswith("filters for a table of the web: min_side 512, ")
    own, line = chosen_for(config, work.ToySource(name="folder", has_images=True))
    assert own.filters.thresholds() == {} and own.images.blank == "keep"
    assert "TIFF" in own.images.formats and "TIFF" not in web.images.formats
    assert line.startswith("filters for images of your own: none")
    assert chosen_for(config, None) == (config, "")
    assert RECIPES["coyo_test"]().filters.min_side == 64


def test_a_run_goes_on_with_the_values_that_it_was_begun_with(tmp_path):
    config = replace(RECIPES["coyo_256"](), output_dir=str(tmp_path), name="old").resolved()
    assert begun_with(config) == {}
    values = to_json(config)
    values["filters"] |= {
        **{"min_side": 256, "max_aspect": 2.0, "max_watermark": 0.5, "max_nsfw": 0.2},
        **{"min_aesthetic": 4.75, "min_clip_similarity": 0.22, "min_words": 3},
    }
    values["images"]["formats"] = ["JPEG", "PNG", "WEBP", "GIF", "BMP"]
    for name in ("blank", "max_repeats", "max_aspect"):  # an older version has none of these
        del values["images"][name]
    folder = folder_of(config)
    folder.root.mkdir(parents=True)
    folder.config.write_text(json.dumps(values))
    again = as_begun(config, begun_with(config))
    assert again.filters.min_side == 256 and again.images.formats[-1] == "BMP"
    check_config(saved_config(folder), again)
    other = as_begun(replace(config, filters=FilterConfig(min_words=5)), begun_with(config))
    assert (other.filters.min_words, other.filters.min_side) == (5, 256)
    # a run that decays from this one takes its values too
    trunk = replace(config, name="new", decay_from=str(folder.root))
    assert as_begun(trunk, begun_with(trunk)).filters == again.filters
    assert begun_with(replace(trunk, decay_from=str(tmp_path / "none"))) == {}


def test_a_picture_that_comes_again_and_again_is_noticed():
    pictures = RepeatedPictures(4)

    def rows(count: int, host: str = "a.test", caption: str = "text {}"):
        for number in range(count):
            yield Row(f"u/{number}", f"http://{host}/{number}", caption.format(number))

    found = [pictures.is_placeholder(row, "card") for row in rows(7)]
    assert found == [False] * 4 + [True] * 3
    assert not any(pictures.is_placeholder(row, f"other {row.key}") for row in rows(9))
    assert not any(pictures.is_placeholder(row, "card") for row in rows(4, "b.test"))
    assert not any(pictures.is_placeholder(row, "one") for row in rows(9, caption="same"))
    assert not any(RepeatedPictures(0).is_placeholder(row, "card") for row in rows(9))
    own = Row("u/1", None, "text", image=b"", name="a.jpg")
    assert not any(pictures.is_placeholder(replace(own, key=f"{n}"), "x") for n in range(9))
    # another epoch adds nothing
    twice = RepeatedPictures(4)
    assert not any(twice.is_placeholder(row, "card") for _ in range(3) for row in rows(4))
