"""Distances and recall on the bundle's networks move when pictures lose something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import degraded_sets as sets
import numpy as np
import pytest

from pinxit import load_checkpoint
from pinxit.data.scenes.dataset import Scenes
from pinxit.evaluate.context import SEED
from pinxit.evaluate.distances.figures import Comparison, figure_groups
from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.feature_store import FeatureStore
from pinxit.evaluate.networks import feature_networks
from pinxit.evaluate.reference_pictures import REFERENCE_SEED

NAMES = ("scenes_judge", "scenes_clip")


@pytest.fixture(scope="module")
def networks() -> Sequence[Extractor]:
    return feature_networks()[0]


def held_out(count: int, seed: int = SEED) -> Scenes:
    return Scenes(length=count, seed=seed, split="heldout", full_captions=True)


def rendered_sets(scenes: Scenes) -> dict[str, np.ndarray]:
    """Real pictures, and sets that lack sharpness, prompts, details or times of day."""
    real, other = sets.rendered(scenes), held_out(4 * len(scenes), REFERENCE_SEED + 1)
    lit = (i for i in range(len(other)) if other.scene(i).time in ("dawn", "day"))
    return {
        "real": real,
        "blurred": sets.blurred(real),
        "repeated": sets.repeated(real, 8),
        "half the details": sets.half_missing(scenes),
        "half the times": np.stack([other[i].image for _, i in zip(range(len(real)), lit)]),  # noqa: B905
    }


def figures(
    network: Extractor, images: Mapping[str, np.ndarray], reference: int, folder: Path
) -> dict[str, Mapping[str, float]]:
    """The figures of each set against real pictures, by the kind of figure."""

    def rows(name: str, pictures: np.ndarray) -> FeatureStore:
        store = FeatureStore(folder / network.name / name, width=network.width)
        store.append(network(list(pictures), [""] * len(pictures)), name=network.name)
        return store

    against = rows("reference", sets.rendered(held_out(reference, REFERENCE_SEED)))
    result: dict[str, Mapping[str, float]] = {}
    for name, pictures in images.items():
        values: dict[str, float] = {}
        for group in figure_groups(network.name, Comparison(rows(name, pictures), against)):
            values |= {row.partition("_")[0]: value for row, value in group().items()}
        result[name] = values
    return result


@pytest.mark.parametrize("place", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_each_loss_is_seen(networks: Sequence[Extractor], place: int, tmp_path: Path):
    network = networks[place]
    assert network.name == NAMES[place]
    found = figures(network, rendered_sets(held_out(96)), 300, tmp_path)
    real = found.pop("real")
    for kind in ("frechet", "kernel", "mmd"):
        assert all(values[kind] > real[kind] for values in found.values()), kind
        assert max(found, key=lambda name: found[name][kind]) in ("repeated", "half the times")
    assert found["repeated"]["recall"] == 0 and real["recall"] > 0.85
    if network.name == "scenes_clip":  # the judge's features lie closer together
        assert found["half the times"]["recall"] < real["recall"] - 0.02
    assert found["repeated"]["precision"] > 0.8, "each picture alone is a good one"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the pictures look overexposed")
def test_the_order_of_drawn_and_damaged_sets(networks: Sequence[Extractor], tmp_path: Path):
    """The eye's order: renders, 16 steps, 2 steps, 1 step, one picture for eight prompts."""
    scenes, model = held_out(256), load_checkpoint()
    images = rendered_sets(scenes)
    prompts = [scenes.caption(i) for i in range(len(scenes))]
    for steps in (1, 2, 16):
        images[f"{steps} steps"] = model.generate(prompts, steps=steps, output_type="np")
    for network in networks:
        found = figures(network, images, 1000, tmp_path)
        order = [found[name]["frechet"] for name in ("real", "16 steps", "2 steps", "1 steps")]
        assert order == sorted(order) and order[-1] < found["repeated"]["frechet"], network.name
    clip = {name: values["frechet"] for name, values in found.items()}
    assert clip["16 steps"] < clip["blurred"] and clip["half the details"] < clip["2 steps"]
    assert clip["half the times"] > 3 * clip["2 steps"]
    recall = {name: values["recall"] for name, values in found.items()}
    assert recall["repeated"] == 0 and recall["half the times"] < 0.8
    assert recall["1 steps"] < 0.88 < recall["real"]
