"""A step's time from the compiler's figures."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from pinxit.devices.flops import count_by_dtype
from pinxit.plan.gpu_roofline import MATMUL_SHARE
from pinxit.plan.step_time import step_time
from pinxit.plan.targets import get_target
from pinxit.recipes import mock
from pinxit.train.abstract_program import abstract_program
from pinxit.train.settings import ModelConfig, TrainConfig

TRAFFIC = {"other_bytes": 0.0, "kernels": 1.0, "collective_bytes": {}}


def test_each_product_counts_at_the_peak_of_its_own_dtype():
    flops = {"float16": 125e12, "float32": 15.7e12}
    time = step_time({"flops_run": flops, "traffic": TRAFFIC}, get_target("v100-16"))
    assert time is not None
    assert time.device == pytest.approx(2 / MATMUL_SHARE)  # a second each at the two peaks
    eight = step_time({"flops_run": flops, "traffic": TRAFFIC}, get_target("8xv100-16"))
    assert eight is not None and eight.device == pytest.approx(time.device / 8)


def test_float32_encoders_in_a_half_precision_step_are_told_apart(bundle: Path):
    settings = mock().__dict__ | {
        "text_encoder": str(bundle),
        "vae": str(bundle),
        "use_amp": True,
        "encode_in_step": True,
        "model": ModelConfig(preset="debug", remat="none", scan_blocks=True),
    }
    program = abstract_program(TrainConfig(**settings).resolved())
    counts = count_by_dtype(program.trace().jaxpr)
    autoencoder, images = program.parts.autoencoder, program.columns["images"]
    pixels = jax.ShapeDtypeStruct(images.shape, jnp.float32)
    encoder = count_by_dtype(jax.make_jaxpr(autoencoder.encode)(autoencoder.params, pixels))
    assert counts["bfloat16"] > 0
    assert counts["float32"] >= encoder["float32"] > 0
    assert list(encoder) == ["float32"]
