"""Which recipe a command starts from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pinxit.config import UsageError
from pinxit.data.sources.catalogue import SOURCES
from pinxit.recipes import RECIPES, recipe_for, recipe_of


def test_the_recipe_follows_the_dataset():
    assert recipe_of(["--max_steps", "3"]) == ("scenes", ["--max_steps", "3"])
    assert recipe_of(["--dataset-name=mock"]) == ("mock", ["--dataset-name=mock"])
    words = ["--recipe", "scenes", "--dataset_name", "coyo"]
    assert recipe_of(words) == ("scenes", words[2:])
    assert recipe_of(["--dataset_name", "laion-art", "--use_amp", "0"]) == (
        "laion-art_256",
        ["--dataset_name", "laion-art", "--use_amp", "0"],
    )
    with pytest.raises(UsageError, match="recipe: 'sceens' is unknown; valid: scenes,"):
        recipe_of(["--recipe=sceens"])


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_a_recipe_of_its_own(name: str):
    config = RECIPES[recipe_for(name)]()
    assert (config.name, config.dataset_name) == (f"{name}_256", name)
    assert config.resolved().image_size == 256 and config.model.preset == "large"
    assert config.optimizer.name == "adamw" and config.evaluation.prompts == 0


def test_prepared_data_are_of_the_kind_they_came_from(tmp_path: Path):
    identity = {"identity": {"source": {"name": "cc12m"}}, "notes": {}}
    (tmp_path / "images.json").write_text(json.dumps(identity))
    assert recipe_of(["--dataset_path", str(tmp_path)])[0] == "cc12m_256"
    assert recipe_of(["--dataset_path", str(tmp_path), "--recipe=mock"])[0] == "mock"
    assert recipe_of(["--dataset_path", "nowhere"])[0] == "scenes"
    (tmp_path / "images.json").write_text(json.dumps({"identity": {}, "notes": {}}))
    assert recipe_of(["--dataset_path", str(tmp_path)])[0] == "scenes"


def test_large_recipes_choose_for_the_devices():
    for name in ("coyo_256", "coyo_256_pixels", "coyo_256_a100", "coyo_256_v100", "coyo_512"):
        config = RECIPES[name]()
        assert config.name == name and config.gradient_accumulation_steps == 0
        assert (config.model.remat, config.model.scan_blocks) == ("auto", "auto")


def test_pixels_have_noisier_times_and_need_no_autoencoder():
    config = RECIPES["coyo_256_pixels"]().resolved()
    assert config.autoencoder == "none" and not config.encodes_ahead
    assert config.model.patch_size == 8 and config.model.prediction == "latents"
    shift = config.image_size / 64
    assert (config.objective.time.shift, config.sampling.shift) == (shift, shift)


def test_unknown_datasets_start_from_scenes():
    assert recipe_for("imagenet") == "scenes"  # what is wrong with it is said by the settings
