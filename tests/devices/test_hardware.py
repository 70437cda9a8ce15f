"""What devices are taken to compute well."""

from __future__ import annotations

import pytest

from pinxit.devices.hardware import Hardware


@pytest.mark.parametrize(
    ("hardware", "amp", "encoders"),
    [
        (Hardware("cpu"), "bfloat16", "bfloat16"),
        (Hardware("tpu", "TPU v3"), "bfloat16", "bfloat16"),
        (Hardware("gpu", "Tesla V100", 7.0), "float16", "float32"),
        (Hardware("gpu", "NVIDIA A100", 8.0), "bfloat16", "bfloat16"),
    ],
)
def test_half_precision(hardware: Hardware, amp: str, encoders: str):
    assert hardware.amp_dtype == amp
    assert hardware.encoder_dtype("bfloat16") == encoders
    assert hardware.encoder_dtype("float32") == "float32"
