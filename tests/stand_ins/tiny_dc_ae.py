"""A deep compression autoencoder of the smallest size with every kind of block."""

from __future__ import annotations

from pathlib import Path

import jax

from pinxit.encoders import dc_ae
from pinxit.encoders.dc_ae_config import RES_BLOCK, VIT_BLOCK, AutoencoderDCConfig

CONFIG = AutoencoderDCConfig(
    latent_channels=4,
    attention_head_dim=4,
    encoder_block_types=(RES_BLOCK, VIT_BLOCK, VIT_BLOCK),
    decoder_block_types=(RES_BLOCK, VIT_BLOCK, VIT_BLOCK),
    encoder_block_out_channels=(4, 8, 8),
    decoder_block_out_channels=(4, 8, 8),
    encoder_layers_per_block=(1, 1, 1),
    decoder_layers_per_block=(1, 1, 1),
    encoder_qkv_multiscales=((), (5,), ()),
    decoder_qkv_multiscales=((), (5,), ()),
    decoder_norm_types=("rms_norm",) * 3,
    decoder_act_fns=("silu",) * 3,
    scaling_factor=0.41407,
)
"""Four pixels along a side of a latent cell."""


def dc_ae_folder(folder: Path, config: AutoencoderDCConfig = CONFIG) -> Path:
    """Writes an `AutoencoderDC` with random weights in diffusers' format."""
    dc_ae.save_dc_ae(folder, dc_ae.init_dc_ae(config, jax.random.key(1)), config)
    return folder
