"""The demo, which trains on scenes on two CPU cores, and a longer run of it."""

from __future__ import annotations

from dataclasses import replace

from pinxit.flow.objective import FlowMatching
from pinxit.flow.time import TimeSampling
from pinxit.train.ema import EmaConfig
from pinxit.train.optimizer import OptimizerConfig
from pinxit.train.settings import EvalConfig, ModelConfig, Sampling, TrainConfig


def scenes() -> TrainConfig:
    """Returns the demo: after a few minutes of training, the model draws new landscapes.

    Command: ``pinxit train``. Hardware: two CPU cores. Time: under fifteen minutes with the
    installation. README has the expected figures. LOG.md has the measurements behind the choices
    (Muon, small batches, times nearer to the noise).
    """
    return TrainConfig(
        name="scenes",
        dataset_name="scenes",
        dataset_size=16_000,
        batch_size=16,
        max_steps=1_500,
        save_interval=500,
        sample_interval=500,
        model=ModelConfig(preset="tiny"),
        optimizer=OptimizerConfig(name="muon", learning_rate=4e-3, warmup_steps=50),
        objective=FlowMatching(time=TimeSampling(mean=0.5, std=1.3)),
        ema=EmaConfig(lengths=(0.05, 0.1)),
        sampling=Sampling(steps=16, guidance_scale=3.0, solver="dpmpp_2m"),
        evaluation=EvalConfig(prompts=256, images=256),
    )


def scenes_long() -> TrainConfig:
    """Returns the run of the shipped checkpoint: the demo with 6 times the steps, 3 times the data.

    Command: ``pinxit train --recipe scenes_long``. Hardware: two CPU cores. Time: a little over
    an hour. Expected figures: see README.
    """
    return replace(
        scenes(),
        name="scenes_long",
        dataset_size=48_000,
        max_steps=9_000,
        keep_every=3_000,
        save_interval=500,
        sample_interval=1_500,
    )
