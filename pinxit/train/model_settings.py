"""The settings of a run's network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from pinxit.config import positive as positive_or_none

AUTO = "auto"
"""The value of a setting that is chosen for the devices (`pinxit.train.auto_settings`)."""

POLICIES = ("none", "dots", "full")
"""Rematerialisation policies, from the fastest to the one that needs the least memory."""
SMALL_PRESETS = ("debug", "tiny")
"""Presets that fit any device. They have the bundled encoders and images of 64 pixels."""


MANY_TOKENS = 1024
"""Number of image tokens from which attention stores little
(`pinxit.models.attention_kernels.STORED_SCORES`)."""


def unrolled_on_cpu(preset: str, dtype: str, remat: str, tokens: int) -> bool:
    """Returns whether a CPU runs the blocks of a preset faster without a loop.

    A loop fills its stacks with zeros, writes them and reads them again. A step of `small` takes a
    tenth less time without. In half precision, XLA also converts the stacks to float32 and back.
    Recomputed blocks stack little, and so does attention over many tokens, where a loop takes
    a sixth less memory and 2 % more time. The blocks of `debug` are not worth their compilation.
    Those of `tiny` are unrolled by its preset.
    """
    if remat not in (AUTO, "none"):
        return False
    return dtype != "float32" or (preset not in SMALL_PRESETS and tokens < MANY_TOKENS)


def require_counts(
    prefix: str, config: Any, *, positive: tuple[str, ...], natural: tuple[str, ...]
) -> None:
    """Raises for the first field that is below 1 (`positive`) or below 0 (`natural`)."""
    for names, least in ((positive, 1), (natural, 0)):
        for name in names:
            value = getattr(config, name)
            positive_or_none(f"{prefix}{name}", value, minimum=least)


@dataclass(frozen=True)
class ModelConfig:
    """The network: a preset, and fields that override it. None keeps the preset's value."""

    preset: str = "tiny"
    """Named network size: debug, tiny, small, base, large or xlarge."""
    use_stable_vae: bool = True
    """Train on the autoencoder's latents. 0 trains on pixels."""
    patch_size: int | None = None
    """Side of a token, in latent cells, or in pixels without the autoencoder."""
    hidden_size: int | None = None
    """Width of the model's hidden layers."""
    depth: int | None = None
    """Number of transformer blocks."""
    num_heads: int | None = None
    """Number of attention heads. It must divide hidden_size."""
    mlp_ratio: float | None = None
    """Width of the MLP divided by hidden_size."""
    modulation: Literal["shared", "per_block"] | None = None
    """Map from the time to the modulation of the blocks. shared (the default of every preset) has
    one for all blocks. per_block has one in each, as the models of diffusers do, for --init_from
    such a model."""
    modulation_rank: int | None = None
    """Rank of each block's own modulation, which is added to the shared one. 0 disables it."""
    rope_theta: float | None = None
    """Base of the rotary position frequencies."""
    time_factor: float | None = None
    """Factor by which the time is multiplied inside its embedding. none means 1000."""
    time_max_period: int | None = None
    """Longest period of the embedding of the time. none means 10000."""
    bottleneck_size: int | None = None
    """Width of the bottleneck in the patch embedding (pixel models)."""
    resolution_embeds: bool | None = None
    """Tell the network the height and width of the latents. none means 0."""
    prediction: Literal["velocity", "latents"] | None = None
    """Output of the last layer. latents are converted to a velocity."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Dtype of the forward pass. none means float32, or the one that use_amp selects."""
    attention: Literal["xla", "cudnn", "pallas"] | None = None
    """Implementation of attention. none selects the one for the device, if it works there."""
    remat: Literal["auto", "none", "dots", "full", "offload"] = "auto"
    """Rematerialisation, which saves memory: none stores all activations, dots recomputes
    everything except matrix products, full recomputes whole blocks, offload is like dots but stores
    the products in the host's memory. auto takes the fastest that fits the devices."""
    scan_blocks: bool | Literal["auto"] = "auto"
    """Compile one block and loop over it. 0 unrolls the blocks. auto chooses together with
    remat."""
    scan_unroll: int | None = None
    """Number of blocks in one iteration of the loop of scan_blocks."""

    def __post_init__(self) -> None:
        """Refuses sizes that are not positive. `TransformerConfig` checks the rest."""
        names = ("patch_size", "hidden_size", "depth", "num_heads")
        names += ("bottleneck_size", "scan_unroll", "time_max_period")
        require_counts("model.", self, positive=names, natural=("modulation_rank",))

    def overrides(self) -> dict[str, Any]:
        """Returns the fields that override the preset, with their names in `TransformerConfig`."""
        own = ("preset", "use_stable_vae")
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}
        return {name: value for name, value in values.items() if value not in (None, AUTO)}
