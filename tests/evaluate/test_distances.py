"""The evaluator `distances`: its rows, its noise, its references, and what it refuses."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from array_rows import ArrayRows, Means

from pinxit.arrays import Example
from pinxit.config import UsageError
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.distances.cautions import distances_in_words, within_noise
from pinxit.evaluate.distances.evaluator import distances_protocol
from pinxit.evaluate.distances.frechet import frechet_distance
from pinxit.evaluate.distances.kernel import gaussian_mmd, kernel_distance
from pinxit.evaluate.distances.noise_table import measured_noise, noise_table
from pinxit.evaluate.distances.statistics import save_statistics, statistics_of
from pinxit.evaluate.evaluators import EVALUATORS, measure
from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.judge import Judge
from pinxit.evaluate.picture_sets import RealPictures
from pinxit.evaluate.tables import tables
from pinxit.pipeline import TextToImage

SIZE = 16
PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


class Still(TextToImage):
    """A model that is never asked to draw."""

    def __init__(self) -> None:
        self.image_size = SIZE


class Blind(Judge):
    """A judge that is never asked; with one, the data are scenes."""

    def __init__(self) -> None:
        self.params, self.config = {}, SimpleNamespace()


def photographs(count: int, *, seed: int = 0, shift: int = 0) -> list[Example]:
    """Noise of three shapes, around a colour of each picture."""
    rng = np.random.default_rng(seed)
    shapes = ((SIZE, SIZE), (24, 16), (20, 32))
    rows = []
    for i in range(count):
        colour = rng.integers(40, 160, 3) + shift
        noise = rng.integers(-40, 41, (*shapes[i % 3], 3))
        rows.append(Example(np.clip(colour + noise, 0, 255).astype(np.uint8), f"row {i}"))
    return rows


def context(
    *, drawn: int = 24, networks: Sequence[Extractor] = (Means(),), **settings: Any
) -> EvaluationContext:
    """A context whose model has drawn pictures that are 30 levels too bright."""
    settings = {"rows": photographs(60), "prompts": drawn} | settings
    made = EvaluationContext(Still(), networks=networks, **settings)
    bright = [
        Example(example.image[:SIZE, :SIZE], example.caption)
        for example in photographs(drawn, seed=1, shift=30)
    ]
    made.__dict__["drawn"] = RealPictures(bright, lasting=False)
    return made


def measured(made: EvaluationContext) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return measure(EVALUATORS["distances"], made)


def scenes(**settings: Any) -> EvaluationContext:
    return context(judge=Blind(), rows=(), reference_images=40, **settings)


def rows_of(made: EvaluationContext, name: str) -> np.ndarray:
    pictures, (extractor,) = getattr(made, name), made.networks
    store = made.observations.features(pictures, extractor)
    return store.take(range(len(store)))


def test_rows_of_a_dataset_are_compared_with_all_and_halved_for_the_noise():
    made = context()
    values = measured(made)
    sizes = {name: v for name, v in values.items() if name.endswith("pictures")}
    assert sizes == {
        "distances/value/pictures": 24,
        "distances/value/reference_pictures": 60,
        "distances/noise/pictures": 24,
        "distances/noise/reference_pictures": 30,
    }
    kinds = ("frechet", "kernel", "mmd", "precision", "recall", "density", "coverage")
    names = [f"distances/{column}/{kind}_means" for kind in kinds for column in ("value", "noise")]
    assert set(values) == {*sizes, *names}
    drawn, real = ArrayRows(rows_of(made, "drawn")), ArrayRows(rows_of(made, "reference"))
    even, odd = ArrayRows(real.array[0:48:2]), ArrayRows(real.array[1::2])
    for column, x, y in (("value", drawn, real), ("noise", even, odd)):
        expected = {
            "frechet": frechet_distance(statistics_of(x), statistics_of(y)),
            "kernel": kernel_distance(x, y),
            "mmd": gaussian_mmd(x, y),
        }
        for kind, value in expected.items():
            assert values[f"distances/{column}/{kind}_means"] == pytest.approx(value, rel=1e-9)
    assert values["distances/value/frechet_means"] > 3 * values["distances/noise/frechet_means"]


def test_the_noise_has_no_more_pictures_than_half_the_rows():
    values = measured(context(drawn=24, rows=photographs(31)))
    assert values["distances/noise/pictures"] == 16
    assert values["distances/noise/reference_pictures"] == 15


def test_scenes_are_compared_with_other_renders():
    made = scenes(drawn=12)
    values = measured(made)
    assert values["distances/value/reference_pictures"] == 40
    assert values["distances/noise/pictures"] == 12
    prompts, reference = set(made.real.prompts), set(made.reference.prompts)
    assert len(reference) > 35 and not prompts & reference
    real, against = (ArrayRows(rows_of(made, name)) for name in ("real", "reference"))
    assert values["distances/noise/mmd_means"] == pytest.approx(gaussian_mmd(real, against))


@pytest.mark.parametrize(("prompts", "expected"), [(12, 2000), (2100, 2100)])
def test_the_usual_number_of_reference_scenes(prompts: int, expected: int):
    made = EvaluationContext(Still(), prompts=prompts, judge=Blind())
    assert len(made.reference) == expected


def test_the_networks_of_standard_figures_have_standard_names():
    values = measured(context(networks=(Means("inception"), Means("clip_l_336"), Means("other"))))
    rows = {name.removeprefix("distances/value/") for name in values if "/value/" in name}
    assert {
        row for row in rows if not row.startswith(("precision", "recall", "density", "cov"))
    } == {
        *("pictures", "reference_pictures", "fid", "kid", "cmmd"),
        *("frechet_other", "kernel_other", "mmd_other"),
    }
    assert {"precision_inception", "recall_clip_l_336", "coverage_other"} <= rows


def test_equal_pictures_are_at_distance_0():
    made = context(rows=photographs(30), drawn=30)
    made.__dict__["drawn"] = made.reference
    values = measured(made)
    spread = np.trace(np.cov(rows_of(made, "reference"), rowvar=False))
    assert values["distances/value/frechet_means"] < 1e-6 * spread
    assert values["distances/value/mmd_means"] < 1e-9
    assert abs(values["distances/value/kernel_means"]) < 0.05
    assert values["distances/value/precision_means"] == 1


def test_nothing_is_measured_without_networks_or_prompts():
    for settings in ({"networks": ()}, {"drawn": 0}, {"rows": ()}):
        made = context(**settings)
        assert measured(made) == {} and distances_protocol(made) == {}


def test_fewer_pictures_than_features_are_finite_and_warned_about():
    made = context(networks=(Means("scenes_judge", width=40),), drawn=24)
    with pytest.warns(UserWarning) as caught:
        values = measure(EVALUATORS["distances"], made)
    assert np.isfinite(list(values.values())).all()
    messages = [str(warning.message) for warning in caught]
    expected = "frechet_scenes_judge from 24 pictures is mostly bias: scenes_judge has 40 features"
    assert [message for message in messages if expected in message]
    assert all("\n" not in message for message in messages)
    assert distances_in_words(values).startswith("24 drawn pictures against ")


def test_a_value_within_its_noise_is_said_to_be():
    made = context(rows=photographs(200), drawn=24)
    made.__dict__["drawn"] = RealPictures(
        [Example(e.image[:SIZE, :SIZE], e.caption) for e in photographs(24, seed=2)]
    )
    with pytest.warns(UserWarning, match=r"frechet_means.*below 2 times the noise"):
        values = measure(EVALUATORS["distances"], made)
    line = distances_in_words(values)
    assert line.startswith("24 drawn pictures against 200 real ones")
    assert "\n" not in line and "frechet_means " in line
    far = {name: value * (9 if "/value/" in name else 0.01) for name, value in values.items()}
    assert list(within_noise(values)) and not list(within_noise(far))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"drawn": 1}, "prompts: 1 is too few for distances: one drawn picture has no covariance"),
        ({"rows": photographs(3), "drawn": 2}, "images: 3 is too few for distances: one real"),
        ({"reference_images": 61}, "reference_images: 61 is more than the held-out rows; valid"),
        ({"reference_statistics": Path("no.npz")}, "reference_statistics: 'no.npz' is not a file"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_pictures_are_drawn(settings, problem):
    made = context(**settings)

    def pictures(numbers):
        raise AssertionError("pictures were drawn")

    object.__setattr__(made.drawn, "pictures", pictures)
    with pytest.raises(UsageError, match=problem):
        measure(EVALUATORS["distances"], made)


def test_few_reference_images_are_refused():
    with pytest.raises(UsageError, match="reference_images: 1 is too small; valid: at least 2"):
        context(reference_images=1)


def test_three_pictures_have_distances_and_no_precision():
    made = context(drawn=3)
    with pytest.warns(UserWarning) as caught:
        values = measure(EVALUATORS["distances"], made)
    messages = [str(warning.message) for warning in caught]
    assert "precision and recall need 4 pictures of each set" in messages
    assert "distances/value/mmd_means" in values and "distances/value/recall_means" not in values


def test_features_that_are_not_finite_are_refused():
    broken = Means("broken", change=lambda rows: np.where(rows > 0.6, np.nan, rows))
    with pytest.raises(UsageError, match=r"broken: the features of picture \d+ are not finite"):
        measured(context(networks=(broken,)))


class TestReferenceStatistics:
    """A file with the statistics of another reference, for FID alone."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        rows = Means("inception")([e.image for e in photographs(50, seed=7, shift=10)], [])
        save_statistics(tmp_path / "coco.npz", statistics_of(ArrayRows(rows)))
        return tmp_path / "coco.npz"

    def test_fid_is_against_the_file_and_kid_is_not(self, file: Path):
        networks = (Means("inception"), Means("other"))
        plain = measured(context(networks=networks))
        made = context(networks=networks, reference_statistics=file)
        values = measured(made)
        changed = {name for name, value in values.items() if value != plain[name]}
        assert changed == {"distances/value/fid", "distances/noise/fid"}
        protocol = distances_protocol(made)["fid_reference"]
        assert protocol["file"] == "coco.npz" and protocol["pictures"] == 50

    def test_a_file_that_does_not_fit_is_refused(self, file: Path):
        with pytest.raises(UsageError, match=r"of 6 features; valid: statistics of 8 features"):
            measured(context(networks=(Means("inception", 8),), reference_statistics=file))
        with pytest.raises(
            UsageError, match="no weights of it were named; valid: with --inception"
        ):
            measured(context(reference_statistics=file))


def test_rows_are_cropped_to_the_models_size():
    made = context()
    images = made.reference.pictures(range(60))
    assert {image.shape for image in images} == {(SIZE, SIZE, 3)}
    np.testing.assert_array_equal(images[0], made.rows[0].image)
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, 8:24] = 200  # the centred square
    cropped = context(rows=[*photographs(9), Example(wide, "wide")]).reference.pictures(
        range(9, 10)
    )
    assert (cropped[0] == 200).all()


def test_the_protocol_says_what_the_figures_depend_on():
    made = context()
    protocol = json.loads(json.dumps(distances_protocol(made)))
    assert protocol["reference"]["hash"] == made.observations.key(made.reference)
    assert "side 16" in protocol["reference"]["crop"] and protocol["pictures"] == 24
    assert protocol["networks"] == [{"name": "means", "width": 6, "features": 6}]
    other = distances_protocol(context(rows=photographs(60, shift=1)))
    assert other["reference"]["hash"] != protocol["reference"]["hash"]
    assert distances_protocol(scenes())["reference"]["crop"] is None


def test_the_table_of_noise_has_the_networks_of_the_bundle():
    for network, width in (("scenes_judge", 256), ("scenes_clip", 128)):
        assert measured_noise()["networks"][network]["features"] == width
        lines = noise_table(network).splitlines()
        assert [line.split()[1] for line in lines[4:]] == [
            "256",
            "1,000",
            "2,000",
            "5,000",
            "10,000",
        ]
        assert noise_table(network) in PAGE.read_text("utf-8"), "write docs/evaluation.md again"
    assert "the noise column" in noise_table("inception")


def test_the_noise_falls_as_sets_grow():
    for network in measured_noise()["networks"].values():
        for kind in ("frechet", "mmd"):
            means = [row[kind][0] for row in network["sets"]]
            assert means == sorted(means, reverse=True) and means[-1] < means[0] / 10


def test_tables_of_distances_come_with_their_noise_and_whole_counts():
    values = {"distances/value/pictures": 256.0, "distances/value/frechet_scenes_judge": 752.8}
    figures, noise = tables(values)
    assert figures.texts == [("pictures", "256"), ("frechet_scenes_judge", "752.8000")]
    assert "real pictures" in noise.title and "scenes_judge" in noise.title
    assert [row[0] for row in noise.texts] == ["256", "1,000", "2,000", "5,000", "10,000"]
    measured = measured_noise()["networks"]["scenes_judge"]["sets"][0]["frechet"][0]
    assert noise.head[1] == "frechet_scenes_judge" and noise.rows[0][1] == measured
    assert len(tables({"distances/value/fid": 1.0})) == 1
