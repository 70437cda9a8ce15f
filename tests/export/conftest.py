"""Releases of each kind, and their exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from exported import random_release, t5_folder
from tiny_dc_ae import CONFIG, dc_ae_folder
from tiny_t5gemma import write_t5gemma

from pinxit.cli.main import main
from pinxit.sampling import Sampling


@pytest.fixture(scope="session")
def releases(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models by name: latents of CLIP with either autoencoder, of T5 and T5Gemma, and pixels
    of CLIP."""
    root = tmp_path_factory.mktemp("releases")
    t5 = t5_folder(root / "t5-encoder")
    t5gemma = write_t5gemma(root / "t5gemma-encoder")
    counting = replace(CONFIG, decoder_norm_types=("rms_norm", "rms_norm", "batch_norm"))
    dc_ae = dc_ae_folder(root / "dc-ae", counting)
    pixels = {"vae": "none", "prediction": "latents", "patch_size": 4, "bottleneck_size": 6}
    return {
        "clip": random_release(root / "clip", text_encoder=str(bundle), vae=str(bundle)),
        "dc_ae": random_release(
            root / "dc_ae", text_encoder=str(bundle), vae=str(dc_ae), patch_size=1
        ),
        "t5": random_release(
            root / "t5",
            text_encoder=str(t5),
            vae=str(bundle),
            text_max_tokens=20,
            caption_cleaning="light",
            sampling=Sampling(steps=4, guidance_scale=2.5, shift=3.0),
        ),
        "t5gemma": random_release(
            root / "t5gemma", text_encoder=str(t5gemma), vae=str(bundle), text_max_tokens=24
        ),
        "pixel": random_release(
            root / "pixel",
            text_encoder=str(bundle),
            resolution_embeds=True,
            caption_cleaning="light",
            **pixels,
        ),
    }


@pytest.fixture(scope="session")
def exports(releases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The exports of the releases and of the shipped checkpoint ("shipped"), by name."""
    root = tmp_path_factory.mktemp("exports")
    for name, release in releases.items():
        assert main(["export", str(release), "--out", str(root / name), "--samples", "0"]) == 0
    assert main(["export", "--out", str(root / "shipped"), "--samples", "1"]) == 0
    return {name: root / name for name in (*releases, "shipped")}
