"""The network's config for sampling, which differs from that for training in how it computes.

Unrolled blocks, which are for training, are a burden in sampling: XLA copies the kernels of all
blocks before the loop over the steps (420 MiB for `base`), and compiles for twice as long, to save
5 to 13 % of the time.
"""

from __future__ import annotations

import math
from dataclasses import replace

import jax

from pinxit.models.transformer import TransformerConfig, abstract

FEW_PARAMETERS = 2**22
"""Number of parameters in all blocks up to which copies of them do not matter. `tiny` has fewer."""


def for_sampling(config: TransformerConfig) -> TransformerConfig:
    """Returns the config with XLA's attention, which runs on every device, and looped blocks.

    Blocks of few parameters stay as they are. In half precision they do too, since the copies are
    needed for rounding anyway.
    """
    config = replace(config, attention="xla")
    if (
        config.scan_blocks
        or config.dtype != "float32"
        or _block_parameters(config) < FEW_PARAMETERS
    ):
        return config
    return replace(config, scan_blocks=True)


def _block_parameters(config: TransformerConfig) -> int:
    blocks = abstract(config)[1]["blocks"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(blocks))
