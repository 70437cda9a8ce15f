"""From settings to parts: encoders, network, optimiser, step; checked, not yet run."""

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
from pinxit.config import UsageError
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
from pinxit.evaluate.judge import Judge, load_judge
from pinxit.models.transformer import TransformerConfig, abstract, apply, init_params, preset
from pinxit.pipeline import TextToImage
from pinxit.train.datasets import DATASETS, PREPARED
from pinxit.train.encode_step import make_encode
from pinxit.train.optimizer import build_optimizer
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState, init_state
from pinxit.train.step import ApplyFn, EncodeFn, LossScaling, StepFn, make_train_step


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    model: TransformerConfig
    """The network."""
    autoencoder: Autoencoder
    """Frozen; the identity for pixel models."""
    text_encoder: TextEncoder
    """Frozen."""
    optimizer: optax.GradientTransformation
    """With its schedule."""
    mesh: Mesh
    """All devices."""
    judge: Judge | None
    """Reads scenes' attributes; None for other datasets."""
    loss_scaling: LossScaling | None
    """For float16."""
    encoders: dict[str, str]
    """Fingerprints of the frozen weights, kept with every checkpoint."""
    notes: tuple[str, ...] = ()
    """What was found while building and should be said."""

    def encoder_in_step(self, config: TrainConfig) -> Autoencoder | None:
        """The autoencoder where it runs in the step."""
        return self.autoencoder if config.encode_in_step else None


def check_sizes(sizes: Sequence[tuple[int, int]], parts: Parts) -> None:
    """Raises unless images of these (width, height) are cut into whole tokens."""
    grid = TokenGrid(parts.autoencoder.stats.downsample, parts.model.patch_size)
    if wrong := grid.misfits(sizes):
        raise grid.refuse("images.buckets", ", ".join(f"{w} x {h}" for w, h in wrong))


def model_config(
    config: TrainConfig, *, channels: int, width: int, hardware: Hardware
) -> TransformerConfig:
    """The network's shape: the preset, what encoders and hardware dictate, the overrides."""
    given = config.model.overrides()
    dtype = given.get("dtype", hardware.amp_dtype if config.use_amp else "float32")
    dictated = {"in_channels": channels, "context_dim": width, "dtype": dtype}
    dictated["attention"] = hardware.attention(dtype)
    return preset(config.model.preset, **dictated | given)


def build_mesh(
    config: TrainConfig,
    devices: Sequence[Any] | None = None,
    *,
    memory_bytes: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Mesh:
    """The mesh of a run, before its encoders are known: `make_mesh` with the size of its state.

    The text encoder's width is taken to be CLIP's; another one changes the size by a percent.
    """
    model = preset(config.model.preset, **config.model.overrides())
    mesh = make_mesh(
        config.mesh,
        devices,
        state_bytes=state_bytes(config, model),
        memory_bytes=memory_bytes,
        say=say,
    )
    check_batch(config.batch_size, config.gradient_accumulation_steps, mesh)
    check_tensor(mesh, heads=model.num_heads)
    return mesh


def state_bytes(config: TrainConfig, model: TransformerConfig) -> int:
    """What parameters, averages and optimiser take together, by their shapes."""
    optimizer = build_optimizer(config.optimizer, config.max_steps, num_heads=model.num_heads)
    state = jax.eval_shape(
        partial(init_state, optimizer=optimizer, ema=config.ema), abstract(model)[1]
    )
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def encoder_dtype(config: TrainConfig, mesh: Mesh) -> str:
    """The encoders' arithmetic on the devices of `mesh`."""
    return hardware_of(mesh.devices.flat[0]).encoder_dtype(config.encoder_dtype)


def _said_of(dtype: str, config: TrainConfig) -> str:
    same = dtype == config.encoder_dtype
    return (
        "" if same else f"the encoders compute in {dtype}: this card has no {config.encoder_dtype}"
    )


def build(config: TrainConfig, *, say: Callable[[str], None] = lambda line: None) -> Parts:
    """The parts of a run with resolved settings; raises for settings that do not fit together."""
    mesh = build_mesh(config, say=say)
    dtype = encoder_dtype(config, mesh)
    autoencoder = load_autoencoder(config.autoencoder, dtype=dtype)
    text_encoder = load_text_encoder(
        config.text_encoder,
        max_tokens=config.text_max_tokens,
        dtype=dtype,
        clean=get_cleaner(config.caption_cleaning),
        sharding=weight_sharding(mesh),
    )
    parts = assemble(config, autoencoder, text_encoder, mesh)
    side = config.image_size // autoencoder.stats.downsample // parts.model.patch_size
    model, said = tried_attention(parts.model, tokens=side**2, text_tokens=text_encoder.max_tokens)
    judged = config.dataset_name == "scenes" and config.evaluation.prompts > 0
    return replace(
        parts,
        model=model,
        judge=load_judge() if judged else None,
        encoders=encoder_fingerprints(text_encoder, autoencoder),
        notes=tuple(note for note in (said, _said_of(dtype, config)) if note),
    )


def assemble(
    config: TrainConfig, autoencoder: Autoencoder, text_encoder: TextEncoder, mesh: Mesh
) -> Parts:
    """The parts around two encoders, whose parameters may be shapes; no judge, no fingerprints."""
    stats = autoencoder.stats
    hardware = hardware_of(mesh.devices.flat[0])
    model = model_config(
        config, channels=stats.channels, width=text_encoder.width, hardware=hardware
    )
    grid = TokenGrid(stats.downsample, model.patch_size)
    if grid.misfits([(config.image_size, config.image_size)]):
        raise grid.refuse("image_size", config.image_size)
    return Parts(
        model=model,
        autoencoder=autoencoder,
        text_encoder=text_encoder,
        optimizer=build_optimizer(config.optimizer, config.max_steps, num_heads=model.num_heads),
        mesh=mesh,
        judge=None,
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
    if config.dataset_name in (*DATASETS, PREPARED) or devices == 1:
        return TextColumns(parts.text_encoder, cache=cache)
    if cache:
        problem = f"not possible: on {devices} devices a stream's captions are read in the step"
        raise UsageError("cache_text", True, problem=problem, valid="0, or a prepared dataset")
    return TextColumns(parts.text_encoder, cache=False)


def network(model: TransformerConfig, mesh: Mesh) -> ApplyFn:
    """The network as the step applies it. A kernel that XLA cannot cut is told of the mesh."""
    plain = partial(apply, model)
    if model.attention != "pallas":
        return plain

    def told(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return plain(*args)

    return told


def _fresh(config: TrainConfig, parts: Parts) -> TrainState:
    """The state before the first step."""
    params = init_params(parts.model, jax.random.key(config.seed))
    scale = parts.loss_scaling.initial if parts.loss_scaling else 1.0
    return init_state(params, parts.optimizer, ema=config.ema, loss_scale=scale)


def abstract_state(config: TrainConfig, parts: Parts) -> TrainState:
    """The shapes of the state."""
    return jax.eval_shape(partial(_fresh, config, parts))


def build_state(config: TrainConfig, parts: Parts) -> TrainState:
    """The state before the first step, made where it lies: no device ever holds all of it."""
    shardings = state_shardings(abstract_state(config, parts), parts.mesh)
    return jax.jit(partial(_fresh, config, parts), out_shardings=shardings)()


def _cut_by_samples(encode: EncodeFn, mesh: Mesh) -> EncodeFn:
    """`encode`, whose outputs lie as the batch does, however its weights are cut."""
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
        accumulation=config.gradient_accumulation_steps,
        ema=config.ema,
        loss_scaling=parts.loss_scaling,
        out_shardings=(shardings, replicated(parts.mesh)),
    )


def build_pipeline(config: TrainConfig, parts: Parts, params: Any) -> TextToImage:
    """The pipeline that draws with `params`."""
    return TextToImage(
        params,
        parts.model,
        text_encoder=parts.text_encoder,
        autoencoder=parts.autoencoder,
        image_size=config.image_size,
        sampling=config.sampling,
        name=config.name,
    )
