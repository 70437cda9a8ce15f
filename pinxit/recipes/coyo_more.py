"""Neighbours of the headline run: other machines, twice the size, a pod."""

from __future__ import annotations

from dataclasses import replace

from pinxit.flow.time import TimeSampling
from pinxit.recipes.coyo import ANYWHERE, coyo_256
from pinxit.train.settings import FlowMatching, TrainConfig


def coyo_256_a100() -> TrainConfig:
    """The headline run on one A100 of 40 GB.

    Command: ``pinxit train --recipe coyo_256_a100 --dataset_path DIR``, with DIR from ``pinxit
    prepare coyo``. Hardware: one A100 of 40 GB, half of which it takes; with eight of them the same
    command cuts the batch. Planned, and roughly: 158 images a second, 225 hours; plans for GPUs may
    be off by a factor of two. No figure of this recipe has been measured. To plan again: ``pinxit
    plan --recipe coyo_256_a100 --target a100-40`` (or ``8xa100-40``).
    """
    return replace(coyo_256(), name="coyo_256_a100", model=ANYWHERE)


def coyo_256_v100() -> TrainConfig:
    """The headline run on one V100 of 16 GB, in float16 with dynamic loss scaling.

    Command: ``pinxit train --recipe coyo_256_v100 --dataset_path DIR``, with DIR from ``pinxit
    prepare coyo``. Hardware: one V100 of 16 GB, which it fills; with eight of them the same command
    cuts the batch. Planned, and roughly: 52 images a second, 680 hours; plans for GPUs may be off
    by a factor of two. No figure of this recipe has been measured. To plan again: ``pinxit plan
    --recipe coyo_256_v100 --target v100-16`` (or ``8xv100-16``).
    """
    return replace(
        coyo_256(),
        name="coyo_256_v100",
        model=ANYWHERE,
        gradient_accumulation_steps=4,
    )


def coyo_512() -> TrainConfig:
    """From 256 to 512 pixels: the model of `coyo_256`, for another tenth of its steps.

    Command: ``pinxit prepare coyo --image_size 512 --out DIR`` and ``pinxit train --recipe coyo_512
    --init_from runs/coyo_256 --dataset_path DIR``; `init_from` takes a run, a checkpoint or a
    release. Times, of training and of sampling, are shifted towards the noise by 2, the square root
    of four times as many tokens (Esser et al. 2024, arXiv:2403.03206). Hardware: a TPU v3-8; 7.0
    of the 15.5 GiB of each core. Planned: 4.2 s a step, 61 images a second, 58 hours of steps;
    published runs took 0.84 to 1.16 times what such plans say. No figure of this recipe has been
    measured. To plan again: ``pinxit plan --recipe coyo_512 --target tpu-v3-8``.
    """
    base = coyo_256()
    return replace(
        base,
        name="coyo_512",
        init_from="runs/coyo_256",
        image_size=512,
        max_steps=50_000,
        model=ANYWHERE,
        optimizer=replace(base.optimizer, learning_rate=5e-5, warmup_steps=1_000),
        objective=FlowMatching(time=TimeSampling(shift=2.0)),
        sampling=replace(base.sampling, shift=2.0),
    )


def coyo_256_pod() -> TrainConfig:
    """The headline run's images in batches of 4,096, for a pod slice of 128 chips or more.

    Command, on every host: ``pinxit train --recipe coyo_256_pod --dataset_path DIR``, with DIR
    where all hosts see it. Hardware: 128 to 256 TPU chips, such as v4-256, v5e-256 or v3-512. The
    learning rate is four times that of batches of 256, the square root of their ratio. Planned:
    0.25 s a step, 16,000 images a second and 2.2 hours on a v3-512, waits for data not counted. No
    figure of this recipe has been measured. To plan again: ``pinxit plan --recipe coyo_256_pod
    --target tpu-v3-512``.
    """
    base = coyo_256()
    return replace(
        base,
        name="coyo_256_pod",
        model=ANYWHERE,
        batch_size=4_096,
        max_steps=31_250,
        log_interval=20,
        save_interval=500,
        sample_interval=2_000,
        eval_interval=2_000,
        optimizer=replace(base.optimizer, learning_rate=4e-4, warmup_steps=2_000),
    )
