"""The transformer: it predicts the velocity from noisy latents, a time and a text.

Its image tokens attend to text and image tokens, and the time modulates each block (adaLN-zero,
Peebles & Xie 2022, arXiv:2212.09748)::

    x = x + gate_a * attention((1 + scale_a) * norm(x) + shift_a, text)
    x = x + gate_m * mlp((1 + scale_m) * norm(x) + shift_m)

The six modulations come from one map shared by all blocks, plus a table row and a low-rank
correction per block. `pinxit.models.diffusers_prx` merges them exactly into the form of diffusers'
`PRXTransformer2DModel`, whose blocks have a whole map each. With `modulation` "per_block" ours do
too. Parameters are fp32, and the parameters of the blocks are stacked over depth. `init_params` and
`apply` are the functional API, with parameters in a plain nested dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, cast, get_args, get_type_hints

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from pinxit.arrays import Conditioning
from pinxit.config import UsageError, from_json
from pinxit.models.attention import Attention, Rotation, rope
from pinxit.models.layers import (
    TIME_FEATURES,
    BlockModulation,
    Embedder,
    GatedMLP,
    Linear,
    patchify,
    sinusoids,
    unpatchify,
)
from pinxit.models.norms import gated_sum, modulated_norm
from pinxit.models.products import PRODUCT

MIN_TIME = 0.05
"""Below this time, a prediction of the latents is divided by this value instead of the time."""

Params = dict[str, Any]
"""Parameters of a `Transformer` as nested dicts of fp32 arrays."""


@dataclass(frozen=True)
class TransformerConfig:
    """The settings that determine the network. `PRESETS` has the usual sizes."""

    hidden_size: int
    """Width of the model."""
    depth: int
    """Number of blocks."""
    num_heads: int
    """Number of attention heads. They must divide `hidden_size` into even widths of at least 4."""
    patch_size: int = 2
    """Side of a patch (one token) in latent cells."""
    in_channels: int = 4
    """Channels of the latents; 3 for pixels."""
    context_dim: int = 768
    """Width of the text encoder's tokens."""
    mlp_ratio: float = 3.5
    """Hidden width of the gated MLP, relative to `hidden_size`."""
    modulation: Literal["shared", "per_block"] = "shared"
    """Whether the blocks share one map from the condition to their modulation, or each block has a
    whole map of its own, as in diffusers. Shared maps have ``6 d^2`` parameters once, not per
    block."""
    modulation_rank: int = 32
    """Rank of each block's own correction to the shared modulation; 0 for none. Maps per block need
    no correction: there it is 0, whatever value is given."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies. On small grids, a small base keeps more of them useful."""
    time_factor: float = 1000.0
    """Factor by which the time is multiplied inside the sinusoids."""
    time_max_period: int = 10000
    """Longest period of the sinusoids."""
    bottleneck_size: int | None = None
    """Width of a bottleneck in the patch embedding, for large pixel patches. None by default."""
    resolution_embeds: bool = False
    """Whether the modulation also sees the grid's height and width."""
    prediction: Literal["velocity", "latents"] = "velocity"
    """The quantity that the last layer predicts. In either case the model returns a velocity."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype of the computation. Parameters are always fp32."""
    attention: Literal["xla", "cudnn", "pallas"] = "xla"
    """The implementation of attention (see `pinxit.models.attention_kernels`)."""
    remat: Literal["none", "dots", "full", "offload"] = "none"
    """The part of a block that the backward pass recomputes: "none", "dots" (everything except
    matrix products) or "full". "offload" recomputes like "dots", but stores the products in the
    host's memory."""
    scan_blocks: bool = True
    """Whether the blocks run in a loop. Unrolled blocks compile slower, but run faster on CPU."""
    scan_unroll: int = 1
    """Number of blocks in one iteration of that loop."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in ("modulation", "prediction", "dtype", "attention", "remat"):
            value, known = getattr(self, name), get_args(hints[name])
            if value not in known:
                raise UsageError(f"{name}: unknown {value!r}; known: {', '.join(known)}")
        for name in ("hidden_size", "depth", "num_heads", "patch_size", "in_channels",
                     "context_dim", "time_max_period", "scan_unroll"):  # fmt: skip
            _require(isinstance(getattr(self, name), int), self, name, "a whole number")
            _require(getattr(self, name) >= 1, self, name, "at least 1")
        _require(self.modulation_rank >= 0, self, "modulation_rank", "0 (none) or more")
        if self.modulation == "per_block":
            object.__setattr__(self, "modulation_rank", 0)
        _require(self.rope_theta > 1, self, "rope_theta", "more than 1")
        _require(math.isfinite(self.mlp_ratio), self, "mlp_ratio", "a finite number")
        _require(self.mlp_hidden >= 1, self, "mlp_ratio", "large enough for one hidden unit")
        if self.bottleneck_size is not None:
            _require(self.bottleneck_size >= 1, self, "bottleneck_size", "at least 1, or none")
        if self.hidden_size % self.num_heads:
            raise UsageError(
                f"num_heads: {self.num_heads} does not divide hidden_size {self.hidden_size}; "
                f"valid: {', '.join(map(str, self._valid_heads()))}"
            )
        if self.num_heads not in self._valid_heads():
            raise UsageError(
                f"num_heads: {self.num_heads} gives heads of width {self.head_dim}; it must be "
                f"even and at least 4, valid: {', '.join(map(str, self._valid_heads())) or 'none'}"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def mlp_hidden(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    def _valid_heads(self) -> list[int]:
        d = self.hidden_size
        return [k for k in range(1, d // 4 + 1) if d % k == 0 and d // k % 2 == 0]


def _require(valid: bool, config: TransformerConfig, name: str, rule: str) -> None:
    if not valid:
        raise UsageError(f"{name}: {getattr(config, name)!r} is not valid; it must be {rule}")


PRESETS: dict[str, dict[str, Any]] = {
    "debug": {"hidden_size": 64, "depth": 2, "num_heads": 2, "modulation_rank": 4},
    "tiny": {"hidden_size": 192, "depth": 6, "num_heads": 6, "patch_size": 1, "rope_theta": 10.0,
             "mlp_ratio": 8 / 3, "scan_blocks": False},
    "small": {"hidden_size": 384, "depth": 12, "num_heads": 6},
    "base": {"hidden_size": 768, "depth": 12, "num_heads": 12},
    "large": {"hidden_size": 1024, "depth": 24, "num_heads": 16},
    "xlarge": {"hidden_size": 1152, "depth": 28, "num_heads": 16},
}  # fmt: skip
"""Model sizes by name. `debug` is for tests, `tiny` for the CPU demo."""


def from_stored(
    model: Mapping[str, Any], *, in_channels: int, context_dim: int
) -> TransformerConfig:
    """Builds the config from the fields `model` that a run or a release stores.

    `model` has all fields, or a preset's name and the fields that differ from the preset. It may
    lack the fields that the encoders determine, which are the keyword arguments.
    """
    fields: dict[str, Any] = {"in_channels": in_channels, "context_dim": context_dim, **model}
    name = fields.pop("preset", None)
    return preset(name, **fields) if name else from_json(TransformerConfig, fields)


def preset(name: str, **overrides: Any) -> TransformerConfig:
    """Returns the preset called `name`, with the fields in `overrides` replaced."""
    if name not in PRESETS:
        raise UsageError(f"preset: unknown {name!r}; known: {', '.join(PRESETS)}")
    known = [field.name for field in fields(TransformerConfig)]
    if unknown := sorted(set(overrides) - set(known)):
        raise UsageError(f"model: unknown field {unknown[0]!r}; known: {', '.join(known)}")
    return TransformerConfig(**(PRESETS[name] | overrides))


class Block(nnx.Module):
    """One transformer block, or a stack of them (see `pinxit.models.layers`)."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs, stack: tuple[int, ...] = ()):
        width = config.hidden_size
        self.modulation = (
            BlockModulation(width, config.modulation_rank, rngs=rngs, stack=stack)
            if config.modulation == "shared"
            else Linear(width, 6 * width, rngs=rngs, stack=stack, init="zeros")
        )
        self.attention = Attention(
            width, config.num_heads, rngs=rngs, stack=stack, program=config.attention
        )
        self.mlp = GatedMLP(width, config.mlp_hidden, rngs=rngs, stack=stack)

    def __call__(
        self,
        x: Float[Array, "b n d"],
        text: Float[Array, "b l d"],
        mask: Bool[Array, "b l"],
        condition: Float[Array, "b d"],
        shared: Float[Array, "b m"] | None,
        rotation: Rotation,
    ) -> Float[Array, "b n d"]:
        own = self.modulation
        modulation = (
            own(condition) if isinstance(own, Linear) else own(condition, cast(Array, shared))
        )
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(modulation, 6, axis=-1)
        attended = self.attention(modulated_norm(x, shift_a, scale_a), text, mask, rotation)
        x = gated_sum(x, gate_a, attended)
        return gated_sum(x, gate_m, self.mlp(modulated_norm(x, shift_m, scale_m)))


class Transformer(nnx.Module):
    """The network. An instance is a `VelocityFn`."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.config = config
        width, cells = config.hidden_size, config.in_channels * config.patch_size**2
        self.bottleneck_in = (
            Linear(cells, config.bottleneck_size, rngs=rngs) if config.bottleneck_size else None
        )
        self.image_in = Linear(config.bottleneck_size or cells, width, rngs=rngs)
        self.text_in = Linear(config.context_dim, width, rngs=rngs)
        self.time_in = Embedder(TIME_FEATURES, width, rngs=rngs)
        self.resolution_in = (
            Embedder(TIME_FEATURES, width, rngs=rngs) if config.resolution_embeds else None
        )
        self.modulation = (
            Linear(width, 6 * width, rngs=rngs, init="zeros")
            if config.modulation == "shared"
            else None
        )
        self.blocks = Block(config, rngs=rngs, stack=(config.depth,))
        self.final_modulation = Linear(width, 2 * width, rngs=rngs, init="zeros")
        self.final_out = Linear(width, cells, rngs=rngs, init="zeros")

    def __call__(
        self,
        x_t: Float[Array, "b h w c"],
        t: Float[Array, " b"],
        conditioning: Conditioning,
    ) -> Float[Array, "b h w c"]:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        height, width = x_t.shape[1:3]
        self._check(x_t.shape, conditioning)
        x = patchify(x_t.astype(dtype), config.patch_size)
        if self.bottleneck_in is not None:
            x = self.bottleneck_in(x)
        x = self.image_in(x)
        text = self.text_in(jnp.asarray(conditioning.tokens, dtype))
        condition = self._condition(t, height, width)
        x = self._run_blocks(x, text, jnp.asarray(conditioning.mask), condition, height, width)
        shift, scale = jnp.split(self.final_modulation(condition), 2, axis=-1)
        tokens = self.final_out(modulated_norm(x, shift, scale)).astype(jnp.float32)
        output = unpatchify(tokens, config.patch_size, height, width)
        if config.prediction == "velocity":
            return output
        floor = jnp.maximum(t.astype(jnp.float32), MIN_TIME)[:, None, None, None]
        return (x_t.astype(jnp.float32) - output) / floor

    def _condition(self, t: Float[Array, " b"], height: int, width: int) -> Float[Array, "b d"]:
        """Computes the condition of all modulations: SiLU of the embedded time (and resolution)."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        period = config.time_max_period
        times = sinusoids(t, TIME_FEATURES, factor=config.time_factor, max_period=period)
        embedded = self.time_in(times.astype(dtype))
        if self.resolution_in is not None:
            sides = [
                sinusoids(
                    jnp.full(t.shape, float(side)),
                    TIME_FEATURES // 2,
                    factor=1.0,
                    max_period=period,
                )
                for side in (height, width)
            ]
            embedded += self.resolution_in(jnp.concatenate(sides, axis=-1).astype(dtype))
        return jax.nn.silu(embedded)

    def _run_blocks(
        self,
        x: Float[Array, "b n d"],
        text: Float[Array, "b l d"],
        mask: Bool[Array, "b l"],
        condition: Float[Array, "b d"],
        height: int,
        width: int,
    ) -> Float[Array, "b n d"]:
        config = self.config
        patch = config.patch_size
        rotation = rope(height // patch, width // patch, config.head_dim, config.rope_theta)
        shared = None if self.modulation is None else self.modulation(condition)
        graphdef, stacked = nnx.split(self.blocks)

        def step(x: Array, layer: Any) -> Array:
            return nnx.merge(graphdef, layer)(x, text, mask, condition, shared, rotation)

        step = _rematerialised(step, config.remat)
        if config.scan_blocks:
            turn, unroll = (lambda x, layer: (step(x, layer), None)), config.scan_unroll
            return jax.lax.scan(turn, x, stacked, unroll=unroll)[0]
        leaves, tree = jax.tree.flatten(stacked)
        # The gradient of a split is one concatenation; that of indexing is a padded copy per layer.
        layers = zip(*(jax.lax.split(leaf, [1] * config.depth) for leaf in leaves), strict=True)
        for layer in layers:
            x = step(x, jax.tree.unflatten(tree, [jnp.squeeze(leaf, 0) for leaf in layer]))
        return x

    def _check(self, shape: tuple[int, ...], conditioning: Conditioning) -> None:
        config = self.config
        if shape[1] % config.patch_size or shape[2] % config.patch_size:
            raise ValueError(
                f"x_t: a grid of {shape[1]}x{shape[2]} cells does not divide into patches; "
                f"height and width must be multiples of patch_size {config.patch_size}"
            )
        if shape[3] != config.in_channels:
            raise ValueError(f"x_t: {shape[3]} channels; in_channels is {config.in_channels}")
        if conditioning.tokens.shape[-1] != config.context_dim:
            raise ValueError(
                f"conditioning: tokens of width {conditioning.tokens.shape[-1]}; "
                f"context_dim is {config.context_dim}"
            )


def _rematerialised(step: Callable[..., Array], remat: str) -> Callable[..., Array]:
    if remat == "none":
        return step
    policies = jax.checkpoint_policies
    policy = {
        "full": None,
        "dots": policies.save_only_these_names(PRODUCT),
        "offload": policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[PRODUCT],
            offload_src="device",
            offload_dst="pinned_host",
        ),
    }[remat]
    return jax.checkpoint(step, policy=policy)


@cache
def abstract(config: TransformerConfig) -> tuple[nnx.GraphDef, Params]:
    """Returns the network's static part and its parameters' shapes, without computing anything."""
    model = nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    return graphdef, nnx.to_pure_dict(state)


def init_params(config: TransformerConfig, key: Array) -> Params:
    """Initialises parameters. Gates and last layer start at zero, so the first output is zero."""

    @jax.jit
    def init(key: Array) -> Params:
        return nnx.to_pure_dict(nnx.state(Transformer(config, rngs=nnx.Rngs(key))))

    return init(key)


def apply(
    config: TransformerConfig,
    params: Params,
    x_t: Float[Array, "b h w c"],
    t: Float[Array, " b"],
    conditioning: Conditioning,
) -> Float[Array, "b h w c"]:
    """Computes the velocity at `x_t`. Bind `config` and `params` to get a `VelocityFn`."""
    graphdef, _ = abstract(config)
    return nnx.merge(graphdef, params)(x_t, t, conditioning)
