"""Sampling loops over the blocks of all but the smallest networks."""

import pytest

from pinxit.models.sampling_config import for_sampling
from pinxit.models.transformer import preset


@pytest.mark.parametrize(
    ("name", "dtype", "looped"),
    [
        ("tiny", "float32", False),
        ("small", "float32", True),
        ("base", "float32", True),
        ("small", "bfloat16", False),
    ],
)
def test_large_networks_are_looped_in_float32(name, dtype, looped):
    config = preset(name, scan_blocks=False, dtype=dtype, attention="cudnn")
    changed = for_sampling(config)
    assert (changed.scan_blocks, changed.attention) == (looped, "xla")


def test_a_loop_stays():
    config = preset("tiny", scan_blocks=True)
    assert for_sampling(config) == config
