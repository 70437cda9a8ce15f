"""Sets of pictures are made once for all evaluators, and features are kept after a stop."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from toy_features import ToyFeatures, ToyPictures

from pinxit import cache_limit
from pinxit.evaluate import feature_cache as cache_module
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import Evaluator, measure_all
from pinxit.evaluate.feature_cache import feature_cache
from pinxit.evaluate.observations import Observations
from pinxit.pipeline import TextToImage


def released() -> None:
    """Lets go of all entries, as the end of the process does."""
    for descriptor in cache_limit._HELD.values():
        os.close(descriptor)
    cache_limit._HELD.clear()


@pytest.fixture(autouse=True)
def nothing_held():
    yield
    released()


def rows(observations: Observations, pictures: ToyPictures, extractor: ToyFeatures) -> np.ndarray:
    return observations.features(pictures, extractor).take(range(len(pictures)))


def of(pictures: ToyPictures, extractor: ToyFeatures) -> Evaluator:
    """An evaluator of the mean of some features."""

    def measured(context: EvaluationContext):
        store = context.observations.features(pictures, extractor)
        yield f"toys/{extractor.name}", np.concatenate(list(store.blocks())).mean()

    return Evaluator(measured, needs=lambda context: [(pictures, extractor)])


def test_a_set_is_made_once_for_two_evaluators():
    pictures, one, other = ToyPictures(), ToyFeatures("one"), ToyFeatures("other")
    context = EvaluationContext(object.__new__(TextToImage))
    said: list[str] = []
    values = measure_all([of(pictures, one), of(pictures, other)], context, say=said.append)
    assert pictures.made == list(range(10)) and one.seen == other.seen == 10
    assert list(values) == ["toys/one", "toys/other"] and len(said) == 2
    [used] = context.observations.used()
    assert used["pictures"]["count"] == 10 and list(used["features"]) == ["one", "other"]
    # without `expect`, the second one would need them again
    first = ToyPictures()
    observations = Observations()
    rows(observations, first, one)
    rows(observations, first, other)
    assert first.made == [*range(10), *range(10)]


def test_a_stopped_evaluation_goes_on_with_the_same_features(tmp_path: Path):
    expected = rows(Observations(), ToyPictures(), ToyFeatures())
    folder, progress = tmp_path / "partial", []

    @contextmanager
    def showing(text: str, unit: str):
        yield lambda done, total: progress.append((done, total))

    with pytest.raises(KeyboardInterrupt):
        rows(Observations(folder), ToyPictures(), ToyFeatures(stop_after=4))
    pictures = ToyPictures()
    observations = Observations(folder, showing=showing)
    np.testing.assert_array_equal(rows(observations, pictures, ToyFeatures()), expected)
    assert pictures.made == [4, 5, 6, 7, 8, 9]
    assert progress == [(4, 10), (8, 10), (10, 10)]
    another = ToyPictures(seed=1)
    rows(Observations(folder), another, ToyFeatures())
    assert another.made == list(range(10))
    observations.finished()
    assert not folder.exists()


def test_an_extractor_that_is_behind_sees_only_what_it_misses(tmp_path: Path):
    pictures, one, other = ToyPictures(), ToyFeatures("one"), ToyFeatures("other")
    with pytest.raises(KeyboardInterrupt):
        rows(Observations(tmp_path), pictures, ToyFeatures("one", stop_after=8))
    observations = Observations(tmp_path)
    observations.expect(pictures, one)
    observations.expect(pictures, other)
    rows(observations, pictures, other)
    assert one.seen == 2 and other.seen == 10


def test_features_of_a_reference_are_kept_for_other_evaluations(tmp_path: Path):
    cache = tmp_path / "cache"
    for number in range(2):
        lasting, passing, extractor = ToyPictures(lasting=True), ToyPictures(seed=1), ToyFeatures()
        observations = Observations(tmp_path / "partial", cache=cache)
        rows(observations, lasting, extractor)
        rows(observations, passing, extractor)
        observations.finished()
        assert lasting.made == ([] if number else list(range(10)))
        assert passing.made == list(range(10))
    [entry] = cache.iterdir()
    about = json.loads((entry / "about.json").read_text())
    assert about["pictures"] == {"seed": 0, "count": 10} and about["features"]["name"] == "colour"


def test_two_processes_may_fill_the_same_entry(tmp_path: Path):
    """Each is interrupted by the other in the middle, and has its own size of pieces."""
    expected = rows(Observations(), ToyPictures(), ToyFeatures())
    outer = ToyPictures(lasting=True, together=3)
    inner = ToyPictures(lasting=True, together=4)

    class Interrupted(ToyFeatures):
        def __call__(self, pictures, prompts):
            if self.seen == 3:
                found = rows(Observations(cache=tmp_path), inner, ToyFeatures())
                np.testing.assert_array_equal(found, expected)
            return super().__call__(pictures, prompts)

    found = rows(Observations(cache=tmp_path), outer, Interrupted())
    np.testing.assert_array_equal(found, expected)
    last = ToyPictures(lasting=True)
    np.testing.assert_array_equal(rows(Observations(cache=tmp_path), last, ToyFeatures()), expected)


def test_the_folder_of_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("PINXIT_FEATURES", str(tmp_path / "features"))
    assert feature_cache() == tmp_path / "features" and (tmp_path / "features").is_dir()
    monkeypatch.setenv("PINXIT_FEATURES", "")
    assert feature_cache() is None
    (tmp_path / "file").touch()
    monkeypatch.setenv("PINXIT_FEATURES", str(tmp_path / "file" / "features"))
    assert feature_cache() is None

    monkeypatch.setattr(cache_module, "GIGABYTES", 1e-9)
    observations = Observations(cache=tmp_path / "features")
    rows(observations, ToyPictures(lasting=True), ToyFeatures())
    observations.finished()
    assert len(list((tmp_path / "features").iterdir())) == 1  # this process reads it
    released()
    observations.finished()
    assert list((tmp_path / "features").iterdir()) == []
    assert "GB of features of pictures that were used least recently" in capsys.readouterr().err
