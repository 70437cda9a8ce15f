"""Neighbours of the headline run: other machines, twice the size, a pod."""

from __future__ import annotations

from dataclasses import replace

from pinxit.flow.time import TimeSampling
from pinxit.recipes.coyo import coyo_256
from pinxit.train.settings import FlowMatching, ModelConfig, TrainConfig


def coyo_256_a100() -> TrainConfig:
    """The headline run on one A100 of 40 GB.

    PLANNED_A100
    """
    return replace(
        coyo_256(),
        name="coyo_256_a100",
        model=ModelConfig(preset="large", remat="dots"),
        gradient_accumulation_steps=4,
    )


def coyo_256_v100() -> TrainConfig:
    """The headline run on one V100 of 16 GB, in float16 with dynamic loss scaling.

    PLANNED_V100
    """
    return replace(
        coyo_256(),
        name="coyo_256_v100",
        model=ModelConfig(preset="large", remat="full"),
        gradient_accumulation_steps=4,
    )


def coyo_512() -> TrainConfig:
    """From 256 to 512 pixels: the model of `coyo_256` for another tenth of its steps.

    PLANNED_512
    """
    base = coyo_256()
    return replace(
        base,
        name="coyo_512",
        init_from="runs/coyo_256",
        image_size=512,
        max_steps=50_000,
        optimizer=replace(base.optimizer, learning_rate=5e-5, warmup_steps=1_000),
        objective=FlowMatching(time=TimeSampling(shift=2.0)),
        sampling=replace(base.sampling, shift=2.0),
    )


def coyo_256_pod() -> TrainConfig:
    """The headline run in a day, on 256 chips.

    PLANNED_POD
    """
    base = coyo_256()
    return replace(
        base,
        name="coyo_256_pod",
        batch_size=4_096,
        max_steps=31_250,
        log_interval=20,
        save_interval=500,
        sample_interval=2_000,
        eval_interval=2_000,
        optimizer=replace(base.optimizer, learning_rate=4e-4, warmup_steps=2_000),
    )
