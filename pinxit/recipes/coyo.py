"""The headline run on image-caption pairs of COYO-700M at 256 x 256, and its variants."""

from __future__ import annotations

from dataclasses import replace

from pinxit.flow.time import TimeSampling
from pinxit.train.settings import (
    EmaConfig,
    EvalConfig,
    FilterConfig,
    FlowMatching,
    ModelConfig,
    OptimizerConfig,
    SampleGridConfig,
    Sampling,
    TrainConfig,
)

PROMPTS = (
    "a photo of a dog running on a beach",
    "a bowl of ramen on a wooden table, seen from above",
    "snow-covered mountains at sunset, reflected in a lake",
    "portrait of an old fisherman with a grey beard",
)


AUTOMATIC = ModelConfig(preset="large")
"""The preset `large`, computed in the fastest way that fits the devices."""


def coyo_256() -> TrainConfig:
    """Returns `large` on COYO-700M: 256 x 256, SD autoencoder, CLIP-L, 500k steps of 256 images.

    Command: ``python train_coyo_vae.py`` trains on a stream. For anything longer than a trial,
    prepare the data first: ``pinxit prepare coyo --out DIR``, then ``python train_coyo_vae.py
    --dataset_path DIR``. Hardware: a TPU v3-8, an A100, an H100 or a V100. What is recomputed and
    into how many pieces a batch is split is chosen for the devices that are present, and the run
    says it first. docs/plan.md has the choice, the memory and the planned speed for each machine,
    of streamed and of prepared data. No figure of this recipe has been measured, since it has not
    been run. To plan again: ``pinxit plan --recipe coyo_256 --target tpu-v3-8``.
    """
    return TrainConfig(
        name="coyo_256",
        dataset_name="coyo",
        batch_size=256,
        gradient_accumulation_steps=0,
        max_steps=500_000,
        use_amp=True,
        log_interval=100,
        save_interval=2_500,
        keep_every=50_000,
        sample_interval=10_000,
        eval_interval=10_000,
        encoder_dtype="bfloat16",
        model=AUTOMATIC,
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=5_000),
        ema=EmaConfig(lengths=(0.05, 0.1)),
        sampling=Sampling(steps=28),
        samples=SampleGridConfig(prompts=PROMPTS),
        evaluation=EvalConfig(prompts=0, images=512),
    )


def coyo_256_pixels() -> TrainConfig:
    """Returns the headline run without an autoencoder: pixels in patches of 8 x 8.

    Command: ``pinxit train --recipe coyo_256_pixels``, streamed, or with ``--dataset_path DIR``
    from ``pinxit prepare coyo --vae none --out DIR``. The network predicts the picture (Li & He
    2025, arXiv:2511.13720). Times are shifted towards the noise by 4, the side of the picture over
    64, in training and in sampling: neighbouring pixels are alike, so noise of the same strength
    hides less of a larger picture (Hoogeboom et al. 2023, arXiv:2301.11093).
    Hardware: that of `coyo_256`; docs/plan.md has the figures. No figure of this recipe has been
    measured. To plan again: ``pinxit plan --recipe coyo_256_pixels --target tpu-v3-8``.
    """
    return replace(on_pixels(coyo_256(), image_size=256), name="coyo_256_pixels")


def on_pixels(base: TrainConfig, *, image_size: int) -> TrainConfig:
    """Returns a recipe for latents as one for pixels, with the choices of `coyo_256_pixels`."""
    shift = max(1.0, image_size / 64)
    return replace(
        base,
        model=replace(base.model, use_stable_vae=False, patch_size=8, prediction="latents"),
        objective=FlowMatching(time=TimeSampling(shift=shift)),
        sampling=replace(base.sampling, shift=shift),
    )


def coyo_256_a100() -> TrainConfig:
    """Returns `coyo_256` under the name of an older version, which had settings for one A100.

    Command: ``pinxit train --recipe coyo_256_a100 --dataset_path DIR``. Hardware: as `coyo_256`,
    which chooses the same settings for any device.
    """
    return replace(coyo_256(), name="coyo_256_a100")


def coyo_256_v100() -> TrainConfig:
    """Returns `coyo_256` under the name of an older version, which had settings for one V100.

    Command: ``pinxit train --recipe coyo_256_v100 --dataset_path DIR``. Hardware: as `coyo_256`,
    which chooses the same settings for any device.
    """
    return replace(coyo_256(), name="coyo_256_v100")


def coyo_512() -> TrainConfig:
    """Returns the second stage at 512 pixels: `coyo_256`'s model for a tenth as many steps more.

    Command: ``pinxit prepare coyo --image_size 512 --out DIR`` and ``pinxit train --recipe coyo_512
    --init_from runs/coyo_256 --dataset_path DIR``. `init_from` takes a run, a checkpoint or a
    release. The times of training and of sampling are shifted towards the noise by 2, the square
    root of the ratio of the token numbers, which is 4 (Esser et al. 2024, arXiv:2403.03206).
    Hardware: that of `coyo_256`; docs/plan.md has the figures. No figure of this recipe has been
    measured. To plan again: ``pinxit plan --recipe coyo_512 --target tpu-v3-8``.
    """
    base = coyo_256()
    return replace(
        base,
        name="coyo_512",
        init_from="runs/coyo_256",
        image_size=512,
        max_steps=50_000,
        keep_every=10_000,
        model=AUTOMATIC,
        optimizer=replace(base.optimizer, learning_rate=5e-5, warmup_steps=1_000),
        objective=FlowMatching(time=TimeSampling(shift=2.0)),
        sampling=replace(base.sampling, shift=2.0),
    )


def coyo_256_pod() -> TrainConfig:
    """Returns the headline run with batches of 4,096, for a pod slice of 128 chips or more.

    Command, on every host: ``pinxit train --recipe coyo_256_pod --dataset_path DIR``, with DIR
    on storage that all hosts share. Hardware: 128 to 256 TPU chips, such as v4-256, v5e-256 or
    v3-512. The learning rate is four times that for batches of 256, since it grows with the square
    root of the batch size. Planned: 0.25 s per step, 16,000 images per second and 2.2 hours on a
    v3-512, not counting waits for data. No figure of this recipe has been measured. To plan again:
    ``pinxit plan --recipe coyo_256_pod --target tpu-v3-512``.
    """
    base = coyo_256()
    return replace(
        base,
        name="coyo_256_pod",
        model=ModelConfig(preset="large", remat="full", scan_blocks=True),
        batch_size=4_096,
        gradient_accumulation_steps=1,
        max_steps=31_250,
        log_interval=20,
        save_interval=500,
        keep_every=5_000,
        sample_interval=2_000,
        eval_interval=2_000,
        optimizer=replace(base.optimizer, learning_rate=4e-4, warmup_steps=2_000),
    )


def source_256(dataset: str) -> TrainConfig:
    """Returns `coyo_256` for another set of photographs: ``laion2b``, ``cc12m``, ``folder`` ...

    Command: ``pinxit train --dataset_name cc12m``, or ``--recipe cc12m_256``. Hardware and hours
    are those of `coyo_256`. On a smaller machine, use ``--preset base`` and a smaller
    ``--batch_size``. Small datasets need fewer steps (``--max_steps``). No figure of this recipe
    has been measured.
    """
    return replace(coyo_256(), name=f"{dataset}_256", dataset_name=dataset, model=AUTOMATIC)


def coyo_test() -> TrainConfig:
    """Returns a short test of the headline run: 64 pixels, bundled encoders, the tiny preset.

    Command: ``python train_coyo_vae.py --test``. Hardware: any CPU. Time: about two minutes, most
    of it for fetching some 1,200 images and for compiling. Expected: the loss falls, but the
    pictures are meaningless, because the bundled encoders were trained on drawn scenes only.
    """
    return replace(
        coyo_256(),
        name="coyo_test",
        image_size=64,
        batch_size=8,
        max_steps=150,
        use_amp=False,
        encoder_dtype="float32",
        text_encoder="tiny",
        vae="tiny",
        log_interval=10,
        save_interval=50,
        sample_interval=0,
        eval_interval=0,
        filters=FilterConfig(min_side=64),
        model=ModelConfig(preset="tiny"),
        optimizer=OptimizerConfig(name="muon", learning_rate=4e-3, warmup_steps=20),
        ema=EmaConfig(lengths=(0.1,)),
        sampling=Sampling(steps=8),
        samples=SampleGridConfig(prompts=PROMPTS[:2], seeds=(0,)),
        evaluation=EvalConfig(prompts=0, images=32, batch_size=16),
    )
