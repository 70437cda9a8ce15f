"""Every setting of the sample grids reaches the pictures."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pinxit.model_loading import load_checkpoint
from pinxit.train.report.observer import Observer
from pinxit.train.run import run
from pinxit.train.settings import (
    EvalConfig,
    ModelConfig,
    SampleGridConfig,
    Sampling,
    TrainConfig,
)


def config(bundle: Path, folder: Path, samples: SampleGridConfig) -> TrainConfig:
    return TrainConfig(
        name="grids",
        dataset_name="mock",
        dataset_size=8,
        image_size=16,
        batch_size=4,
        max_steps=1,
        text_encoder=str(bundle),
        vae=str(bundle),
        output_dir=str(folder),
        sample_interval=1,
        model=ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2),
        sampling=Sampling(steps=1, guidance_scale=3.0),
        samples=samples,
        evaluation=EvalConfig(images=0),
    )


def test_size_and_negative_prompt_of_the_grids(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls: list[dict[str, Any]] = []
    shapes: list[tuple[int, int]] = []
    pictures = Observer.pictures

    def watched(observer: Observer, params: Any) -> list[list[Image.Image]]:
        model = observer.model(params)
        generate = model.generate
        monkeypatch.setattr(
            model, "generate", lambda *words, **how: calls.append(how) or generate(*words, **how)
        )
        monkeypatch.setattr(observer, "model", lambda params: model)
        rows = pictures(observer, params)
        shapes.extend(picture.size for row in rows for picture in row)
        return rows

    monkeypatch.setattr(Observer, "pictures", watched)
    samples = SampleGridConfig(prompts=("red",), seeds=(3, 5), negative_prompt="fog", size=(24, 8))
    result = run(config(bundle, tmp_path, samples), ["pinxit"])
    assert result.status == "finished"
    assert calls and set(shapes) == {(24, 8)}
    for call in calls:
        assert call["negative_prompt"] == "fog" and call["seed"] == [3, 5]
    assert {field.name for field in fields(SampleGridConfig)} == {
        *("prompts", "seeds", "negative_prompt", "size")
    }


def test_a_grid_has_the_pictures_that_the_checkpoint_draws_one_by_one(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    grids: list[list[list[Image.Image]]] = []
    pictures = Observer.pictures

    def watched(observer: Observer, params: Any) -> list[list[Image.Image]]:
        grids.append(pictures(observer, params))
        return grids[-1]

    monkeypatch.setattr(Observer, "pictures", watched)
    prompts, seeds = ("red light", "blue light from the left"), (3, 5)
    samples = SampleGridConfig(prompts=prompts, seeds=seeds, negative_prompt="fog")
    result = run(config(bundle, tmp_path, samples), ["pinxit"])
    assert result.status == "finished"
    model = load_checkpoint(result.folder, ema="raw")
    drawn = [
        [model.generate(prompt, seed=seed, negative_prompt="fog").tobytes() for seed in seeds]
        for prompt in prompts
    ]
    assert drawn in [[[one.tobytes() for one in row] for row in grid] for grid in grids]
    # after one step the prompt has no effect yet, but the seed has
    assert len({picture for row in drawn for picture in row}) == 2
