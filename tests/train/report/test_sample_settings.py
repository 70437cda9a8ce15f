"""Every setting of the sample grids reaches the pictures."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

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
