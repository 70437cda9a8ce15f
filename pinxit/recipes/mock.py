"""A run that exercises the whole program and learns nothing useful."""

from __future__ import annotations

from pinxit.train.settings import (
    EmaConfig,
    EvalConfig,
    ModelConfig,
    OptimizerConfig,
    SampleGridConfig,
    Sampling,
    TrainConfig,
)


def mock() -> TrainConfig:
    """Returns the smallest run that uses all parts of the program.

    Command: ``pinxit train --recipe mock``. Hardware: any CPU. Time: about a minute, most of it
    compilation. Expected: the loss falls below three quarters of its first value, which is about 2,
    but the pictures are meaningless.
    """
    return TrainConfig(
        name="mock",
        dataset_name="mock",
        dataset_size=64,
        image_size=32,
        batch_size=8,
        max_steps=40,
        log_interval=5,
        save_interval=20,
        sample_interval=0,
        model=ModelConfig(preset="debug"),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=4, schedule="constant"),
        ema=EmaConfig(lengths=(0.1,)),
        sampling=Sampling(steps=4),
        samples=SampleGridConfig(prompts=("red light from the left",), seeds=(0,)),
        evaluation=EvalConfig(prompts=0, images=32, batch_size=8),
    )
