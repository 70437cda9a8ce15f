"""Counts in fixed bins: parts add up, nothing falls out at the ends."""

import json

import numpy as np
import pytest

from pinxit.data.filters.histograms import BINS, Histogram, Histograms, measure_row
from pinxit.data.row import Row


def row(**changes) -> Row:
    return Row(**{"key": "0/0", "url": "u", "caption": "one two", **changes})


def test_figures_of_a_row():
    assert measure_row(row(width=300, height=200, scores={"nsfw": 0.5})) == {
        "nsfw": 0.5, "side": 200.0, "aspect": 1.5, "words": 2.0, "characters": 7.0,
    }  # fmt: skip
    assert measure_row(row(width=300)).keys() == {"words", "characters"}


def test_bins_agree_with_numpy_s():
    values = np.random.default_rng(0).uniform(0.0, 1.0, 500)
    histogram = Histogram("watermark")
    for value in values:
        histogram.add(float(value))
    counts, edges = np.histogram(values, bins=histogram.edges)
    np.testing.assert_array_equal(histogram.counts, counts)
    assert len(edges) == BINS["watermark"][2] + 1


def test_values_outside_count_at_the_ends():
    histogram = Histogram("aesthetic")
    for value in (-1e9, -0.1, 0.0, 10.0, 1e9, None):
        histogram.add(value)
    assert (histogram.counts[0], histogram.counts[-1], histogram.missing) == (3, 2, 1)


def test_parts_add_up_and_survive_json():
    rows = [row(width=n * 40, height=300, scores={"aesthetic": n / 3}) for n in range(1, 30)]
    whole, *parts = Histograms(), Histograms(), Histograms()
    for number, one in enumerate(rows):
        whole.add(measure_row(one))
        parts[number % 2].add(measure_row(one))
    restored = [Histograms.from_json(json.loads(json.dumps(part.to_json()))) for part in parts]
    assert Histograms.total(restored).to_json() == whole.to_json()
    assert whole.by_name["nsfw"].missing == len(rows)


def test_other_bins_are_refused():
    data = Histograms().to_json()
    data["side"]["counts"].append(0)
    with pytest.raises(ValueError, match="histogram 'side' has other bins"):
        Histograms.from_json(data)
    assert Histograms.from_json({}).to_json() == Histograms().to_json()
    with pytest.raises(ValueError, match="'colour' is not a figure; valid: watermark"):
        Histogram("colour")
    with pytest.raises(ValueError, match="of side cannot be added to one of nsfw"):
        Histogram("nsfw").merge(Histogram("side"))
