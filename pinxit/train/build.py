"""Builds the parts of a run from its settings: encoders, network, optimiser and step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from pinxit.arrays import Autoencoder, Batch, TextEncoder
from pinxit.config import UsageError, full_names
from pinxit.devices.hardware import Hardware, hardware_of, tried_attention
from pinxit.devices.mesh import (
    batch_sharding,
    check_batch,
    check_tensor,
    make_mesh,
    replicated,
    state_shardings,
    weight_sharding,
)
from pinxit.encoders.autoencoder import load_autoencoder
from pinxit.encoders.caption_cleaning import get_cleaner
from pinxit.encoders.fingerprint import encoder_fingerprints
from pinxit.encoders.text_columns import TextColumns
from pinxit.encoders.text_encoder_catalogue import load_text_encoder
from pinxit.encoders.token_grid import TokenGrid
from pinxit.models.transformer import TransformerConfig, abstract, apply, init_params, preset
from pinxit.pipeline import TextToImage
from pinxit.train.encode_step import make_encode
from pinxit.train.optimizer import build_optimizer
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState, init_state
from pinxit.train.step import ApplyFn, EncodeFn, LossScaling, StepFn, make_train_step


@dataclass(frozen=True)
class Parts:
    """The parts of a run."""

    model: TransformerConfig
    """Configuration of the network."""
    autoencoder: Autoencoder
    """Frozen autoencoder, which is the identity for pixel models."""
    text_encoder: TextEncoder
    """Frozen text encoder."""
    optimizer: optax.GradientTransformation
    """Optimiser with its learning-rate schedule."""
    mesh: Mesh
    """Mesh of all devices."""
    loss_scaling: LossScaling | None
    """Loss scaling for float16, else None."""
    encoders: dict[str, str]
    """Fingerprints of the frozen weights, which every checkpoint stores."""
    notes: tuple[str, ...] = ()
    """Messages to show to the user."""

    @property
    def grid(self) -> TokenGrid:
        """The division of an image into tokens."""
        return TokenGrid(self.autoencoder.stats.downsample, self.model.patch_size)

    def encoder_in_step(self, config: TrainConfig) -> Autoencoder | None:
        """Returns the autoencoder if it runs in the step, else None."""
        return self.autoencoder if config.encode_in_step else None


def check_sizes(sizes: Sequence[tuple[int, int]], parts: Parts) -> None:
    """Raises unless images of these sizes (width, height) divide into whole tokens."""
    if wrong := parts.grid.misfits(sizes):
        raise parts.grid.refuse("images.buckets", ", ".join(f"{w} x {h}" for w, h in wrong))


def model_config(
    config: TrainConfig, *, channels: int, width: int, hardware: Hardware
) -> TransformerConfig:
    """Returns the network's configuration: the preset, values from encoders and hardware,
    overrides."""
    overrides = config.model.overrides()
    dtype = overrides.get("dtype", hardware.amp_dtype if config.use_amp else "float32")
    required = {"in_channels": channels, "context_dim": width, "dtype": dtype}
    required["attention"] = hardware.attention(dtype)
    with full_names("model"):
        return preset(config.model.preset, **required | overrides)


def build_mesh(
    config: TrainConfig,
    devices: Sequence[Any] | None = None,
    *,
    memory_bytes: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Mesh:
    """Makes the mesh of a run before its encoders are known: `make_mesh` with the state's size.

    It assumes the width of CLIP for the text encoder. Another width changes the size by a percent.
    """
    with full_names("model"):
        model = preset(config.model.preset, **config.model.overrides())
    mesh = make_mesh(
        config.mesh,
        devices,
        state_bytes=state_bytes(config, model),
        memory_bytes=memory_bytes,
        say=say,
    )
    check_batch(config.batch_size, config.pieces, mesh)
    check_tensor(mesh, heads=model.num_heads)
    return mesh


def state_bytes(config: TrainConfig, model: TransformerConfig) -> int:
    """Returns the total size of parameters, averages and optimiser, in bytes, from their shapes."""
    optimizer = build_optimizer(config.optimizer, config.max_steps, num_heads=model.num_heads)
    state = jax.eval_shape(
        partial(init_state, optimizer=optimizer, ema=config.ema), abstract(model)[1]
    )
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def encoder_dtype(config: TrainConfig, mesh: Mesh) -> str:
    """Returns the dtype in which the encoders compute on the devices of `mesh`."""
    return hardware_of(mesh.devices.flat[0]).encoder_dtype(config.encoder_dtype)


def _dtype_note(dtype: str, config: TrainConfig) -> str:
    same = dtype == config.encoder_dtype
    return (
        "" if same else f"the encoders compute in {dtype}: this GPU has no {config.encoder_dtype}"
    )


def build(config: TrainConfig, *, say: Callable[[str], None] = lambda line: None) -> Parts:
    """Builds the parts of a run from resolved settings. Raises if the settings do not fit
    together."""
    mesh = build_mesh(config, say=say)
    dtype = encoder_dtype(config, mesh)
    autoencoder = load_autoencoder(config.autoencoder, dtype=dtype)
    with full_names(max_tokens="text_max_tokens"):
        text_encoder = load_text_encoder(
            config.text_encoder,
            max_tokens=config.text_max_tokens,
            dtype=dtype,
            clean=get_cleaner(config.caption_cleaning),
            sharding=weight_sharding(mesh),
        )
    parts = assemble(config, autoencoder, text_encoder, mesh)
    tokens = parts.grid.tokens(config.image_size)
    model, note = tried_attention(parts.model, tokens=tokens, text_tokens=text_encoder.max_tokens)
    return replace(
        parts,
        model=model,
        encoders=encoder_fingerprints(text_encoder, autoencoder),
        notes=tuple(note for note in (note, _dtype_note(dtype, config)) if note),
    )


def assemble(
    config: TrainConfig, autoencoder: Autoencoder, text_encoder: TextEncoder, mesh: Mesh
) -> Parts:
    """Builds the parts around two encoders, whose parameters may be shapes. Omits
    fingerprints."""
    stats = autoencoder.stats
    hardware = hardware_of(mesh.devices.flat[0])
    model = model_config(
        config, channels=stats.channels, width=text_encoder.width, hardware=hardware
    )
    grid = TokenGrid(stats.downsample, model.patch_size)
    if grid.misfits([(config.image_size, config.image_size)]):
        raise grid.refuse("image_size", config.image_size)
    samples = config.samples
    if samples.width_and_height and grid.misfits([samples.width_and_height]):
        raise grid.refuse("samples.size", " ".join(map(str, samples.size)))
    return Parts(
        model=model,
        autoencoder=autoencoder,
        text_encoder=text_encoder,
        optimizer=build_optimizer(config.optimizer, config.max_steps, num_heads=model.num_heads),
        mesh=mesh,
        loss_scaling=LossScaling() if model.dtype == "float16" else None,
        encoders={},
    )


def text_columns_for(config: TrainConfig, parts: Parts) -> TextColumns:
    """Returns how a run stores captions, as token ids or embeddings; a feed may refine it.

    A stream on several devices stores no embeddings, because a second thread would compute them:
    all devices must start programs that communicate in the same order. Raises `UsageError` for
    settings that ask for it.
    """
    cache, devices = config.cache_text, parts.mesh.size
    if not config.streamed or devices == 1:
        return TextColumns(parts.text_encoder, cache=cache)
    if cache:
        problem = f"not possible: on {devices} devices a stream encodes captions in the step"
        raise UsageError("cache_text", True, problem=problem, valid="0, or a prepared dataset")
    return TextColumns(parts.text_encoder, cache=False)


def network(model: TransformerConfig, mesh: Mesh) -> ApplyFn:
    """Returns the network's function for the step. Pallas kernels, which XLA cannot shard, get the
    mesh."""
    plain = partial(apply, model)
    if model.attention != "pallas":
        return plain

    def with_mesh(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return plain(*args)

    return with_mesh


def _compiler_options(parts: Parts, dtype: str) -> dict[str, Any]:
    """Returns XLA's options for a program that computes in `dtype`.

    On a CPU in float32, LLVM's optimisation level 1 takes half to nine tenths of the time of the
    default, and the program is as fast. In bfloat16 it is slower by 5 % (LOG.md).
    """
    fast = parts.mesh.devices.flat[0].platform == "cpu" and dtype == "float32"
    return {"xla_backend_optimization_level": 1} if fast else {}


def _fresh(config: TrainConfig, parts: Parts) -> TrainState:
    """Returns the state before the first step."""
    params = init_params(parts.model, jax.random.key(config.seed))
    scale = parts.loss_scaling.initial if parts.loss_scaling else 1.0
    return init_state(params, parts.optimizer, ema=config.ema, loss_scale=scale)


def abstract_state(config: TrainConfig, parts: Parts) -> TrainState:
    """Returns the shapes of the state."""
    return jax.eval_shape(partial(_fresh, config, parts))


def build_state(config: TrainConfig, parts: Parts) -> TrainState:
    """Creates the state before the first step, sharded from the start: no device holds all of
    it."""
    shardings = state_shardings(abstract_state(config, parts), parts.mesh)
    options = _compiler_options(parts, "float32")
    make = partial(_fresh, config, parts)
    return jax.jit(make, out_shardings=shardings, compiler_options=options)()


def _cut_by_samples(encode: EncodeFn, mesh: Mesh) -> EncodeFn:
    """Returns `encode` with outputs sharded like the batch, independently of its weights'
    sharding."""
    if mesh.size == 1:
        return encode
    pin = partial(jax.lax.with_sharding_constraint, shardings=batch_sharding(mesh))

    def pinned(frozen: Any, columns: dict[str, Any]) -> Batch:
        batch = encode(frozen, columns)
        conditioning = jax.tree.map(pin, batch.conditioning)
        return replace(batch, latents=pin(batch.latents), conditioning=conditioning)

    return pinned


def build_step(config: TrainConfig, parts: Parts, state: TrainState, text: TextColumns) -> StepFn:
    """Returns the jitted step of this run, which reads captions as `text` stores them.

    `state` may be shapes.
    """
    shardings = state_shardings(state, parts.mesh)
    return make_train_step(
        config.objective,
        network(parts.model, parts.mesh),
        parts.optimizer,
        encode=_cut_by_samples(
            make_encode(text, parts.encoder_in_step(config), chunk=config.encoder_chunk),
            parts.mesh,
        ),
        seed=config.seed,
        accumulation=config.pieces,
        ema=config.ema,
        loss_scaling=parts.loss_scaling,
        out_shardings=(shardings, replicated(parts.mesh)),
        compiler_options=_compiler_options(parts, parts.model.dtype),
    )


def build_pipeline(config: TrainConfig, parts: Parts, params: Any) -> TextToImage:
    """Builds the pipeline that samples with `params`."""
    return TextToImage(
        params,
        parts.model,
        text_encoder=parts.text_encoder,
        autoencoder=parts.autoencoder,
        image_size=config.image_size,
        sampling=config.sampling,
        name=config.name,
    )
