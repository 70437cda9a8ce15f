"""The config.json of a deep compression autoencoder, diffusers' ``AutoencoderDC``.

The encoder and the decoder have the same number of levels, listed finest first. A level has ResNet
blocks or blocks with linear attention, and each level after the first halves the grid. The first
level may have no blocks. Then the image is halved by the first convolution, and the last
convolution doubles the grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pinxit.config import UsageError
from pinxit.encoders.config_fields import finite_positive, known_fields

RES_BLOCK, VIT_BLOCK = "ResBlock", "EfficientViTBlock"
RMS_NORM, BATCH_NORM = "rms_norm", "batch_norm"
UNSHUFFLE, INTERPOLATE = "pixel_unshuffle", "interpolate"
CHOICES = {
    "block_types": (RES_BLOCK, VIT_BLOCK),
    "norm_types": (RMS_NORM, BATCH_NORM),
    "act_fns": ("silu", "swish", "relu", "gelu", "mish"),
    "downsample_block_type": (UNSHUFFLE, "Conv", "conv"),
    "upsample_block_type": ("pixel_shuffle", INTERPOLATE),
}
"""The values that a setting may have, by the end of its name."""
EACH_LEVEL = {
    "encoder_block_types": RES_BLOCK,
    "decoder_block_types": RES_BLOCK,
    "decoder_norm_types": RMS_NORM,
    "decoder_act_fns": "silu",
}
"""The settings that may be one text for all levels, and diffusers' default."""


@dataclass(frozen=True)
class AutoencoderDCConfig:
    """The shape of an autoencoder, with the field names and defaults of diffusers' config.json."""

    in_channels: int = 3
    latent_channels: int = 32
    attention_head_dim: int = 32
    """The width of an attention head. A grid of more cells than this uses linear attention."""
    encoder_block_types: tuple[str, ...] = (RES_BLOCK,) * 6
    decoder_block_types: tuple[str, ...] = (RES_BLOCK,) * 6
    encoder_block_out_channels: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024)
    """The width of each level, finest first."""
    decoder_block_out_channels: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024)
    encoder_layers_per_block: tuple[int, ...] = (2, 2, 2, 3, 3, 3)
    """The number of blocks of each level. Only the first may be 0."""
    decoder_layers_per_block: tuple[int, ...] = (3, 3, 3, 3, 3, 3)
    encoder_qkv_multiscales: tuple[tuple[int, ...], ...] = ((), (), (), (5,), (5,), (5,))
    """The sizes of the depthwise convolutions of queries, keys and values, a list per level. Each
    adds as many heads as there are without it."""
    decoder_qkv_multiscales: tuple[tuple[int, ...], ...] = ((), (), (), (5,), (5,), (5,))
    upsample_block_type: str = "pixel_shuffle"
    downsample_block_type: str = UNSHUFFLE
    decoder_norm_types: tuple[str, ...] = (RMS_NORM,) * 6
    """The norm of each level of the decoder. The encoder has RMS norms."""
    decoder_act_fns: tuple[str, ...] = ("silu",) * 6
    """The activation of each level's ResNet blocks in the decoder. The encoder's are SiLU."""
    encoder_out_shortcut: bool = True
    decoder_in_shortcut: bool = True
    decoder_conv_act_fn: str = "relu"
    """The activation in front of the decoder's last convolution."""
    scaling_factor: float = 1.0

    def __post_init__(self) -> None:
        if self.in_channels != 3:
            problem = "it must be 3, because images are RGB"
            raise UsageError(f"in_channels is {self.in_channels}; {problem}")
        for name in ("latent_channels", "attention_head_dim"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for side in ("encoder", "decoder"):
            self._check_levels(side)
            self._check_widths(side)
        encoder, decoder = self.encoder_block_out_channels, self.decoder_block_out_channels
        if len(encoder) != len(decoder):
            raise UsageError(
                f"decoder_block_out_channels has {len(decoder)} levels; it must have as many as "
                f"encoder_block_out_channels, {len(encoder)}"
            )
        for name in ("upsample_block_type", "downsample_block_type"):
            _choice(name, getattr(self, name), CHOICES[name])
        _choice("decoder_conv_act_fn", self.decoder_conv_act_fn, CHOICES["act_fns"])
        finite_positive("scaling_factor", self.scaling_factor)

    @property
    def downsample(self) -> int:
        """The number of image pixels along a side of one latent cell."""
        return 2 ** (len(self.encoder_block_out_channels) - 1)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AutoencoderDCConfig:
        """Reads diffusers' config.json; refuses settings that diffusers or Pinxit do not have."""
        kind = value.get("_class_name", "AutoencoderDC")
        if kind != "AutoencoderDC":
            raise UsageError(f"config.json describes a {kind!r}; known: AutoencoderDC")
        value = dict(value)
        for name, default in EACH_LEVEL.items():
            entry = default if value.get(name) is None else value[name]
            if isinstance(entry, str):
                side = name.partition("_")[0]
                widths = value.get(f"{side}_block_out_channels")
                count = len(widths) if isinstance(widths, list | tuple) else 6
                value[name] = (entry,) * count
        return cls(**known_fields(cls, value))

    def to_json(self) -> dict[str, Any]:
        """Returns diffusers' config.json for this autoencoder."""
        fields = {name: _lists(getattr(self, name)) for name in self.__dataclass_fields__}
        return {"_class_name": "AutoencoderDC", "_diffusers_version": "0.42.1", **fields}

    def _check_levels(self, side: str) -> None:
        """Checks that each setting of a side has one entry of the right kind per level."""
        name = f"{side}_block_out_channels"
        widths = getattr(self, name)
        if not widths or min(widths) < 1:
            raise UsageError(f"{name} is {_lists(widths)}; give one width per level, at least 1")
        for end in ("block_types", "layers_per_block", "qkv_multiscales", "norm_types", "act_fns"):
            name = f"{side}_{end}"
            if name not in self.__dataclass_fields__:
                continue
            entries = getattr(self, name)
            if len(entries) != len(widths):
                raise UsageError(
                    f"{name} is {_lists(entries)}; give one entry for each of the "
                    f"{len(widths)} levels of {side}_block_out_channels"
                )
            for entry in entries:
                if end in CHOICES:
                    _choice(name, entry, CHOICES[end])
        name = f"{side}_layers_per_block"
        layers = getattr(self, name)
        if layers[0] < 0 or min(layers[1:] or layers) < 1:
            problem = "give the number of blocks per level; only the first of several may be 0"
            raise UsageError(f"{name} is {_lists(layers)}; {problem}")
        name = f"{side}_qkv_multiscales"
        sizes = getattr(self, name)
        if any(size < 1 or size % 2 == 0 for row in sizes for size in row):
            problem = "give one list of odd sizes of kernels per level"
            raise UsageError(f"{name} is {_lists(sizes)}; {problem}")

    def _check_widths(self, side: str) -> None:
        """Checks that each level's width suits its neighbours, its heads and the latents."""
        name = f"{side}_block_out_channels"
        widths, types = getattr(self, name), getattr(self, f"{side}_block_types")
        start = f"{name} is {_lists(widths)}; "
        first = first_level(getattr(self, f"{side}_layers_per_block"))
        for width, wider in zip(widths[first:], widths[first + 1 :], strict=False):
            if 4 * width % wider:
                raise UsageError(f"{start}4 x {width} must be a multiple of the next, {wider}")
        unshuffled = side == "encoder" and self.downsample_block_type == UNSHUFFLE
        if bad := [width for width in widths[1:] if unshuffled and width % 4]:
            problem = f"{bad[0]} must be a multiple of 4, because downsample_block_type is"
            raise UsageError(f"{start}{problem} {UNSHUFFLE!r}")
        if bad := [
            width
            for width, kind in zip(widths, types, strict=True)
            if kind == VIT_BLOCK and width < self.attention_head_dim
        ]:
            head = f"attention_head_dim is {self.attention_head_dim}"
            raise UsageError(f"{head}; it must be at most the width {bad[0]} of an {VIT_BLOCK}")
        shortcut = self.encoder_out_shortcut if side == "encoder" else self.decoder_in_shortcut
        if shortcut and widths[-1] % self.latent_channels:
            raise UsageError(
                f"latent_channels is {self.latent_channels}; the last width {widths[-1]} of {name} "
                "must be a multiple of it, because of the shortcut"
            )


def first_level(layers: tuple[int, ...]) -> int:
    """Returns the index of the finest level that has blocks: 1 if the first has none, else 0."""
    return 0 if layers[0] else 1


def _choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{name} has {value!r}; known: {', '.join(known)}")


def _lists(value: Any) -> Any:
    """Returns nested tuples as lists, as JSON has them."""
    return [_lists(item) for item in value] if isinstance(value, tuple) else value
