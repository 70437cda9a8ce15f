"""The training step of a run as shapes, with nothing loaded and nothing allocated.

`abstract_program` builds the same step that `run` compiles, from settings and a list of devices,
and the shapes and shardings of its arguments. The devices may be present or only described
(`jax.experimental.topologies`), so ``program.lower().compile()`` can compile for hardware that is
absent. Encoders are shapes too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinxit.data.image_column import image_column
from pinxit.devices.mesh import batch_sharding, frozen_shardings, state_shardings
from pinxit.encoders.abstract_autoencoder import abstract_autoencoder
from pinxit.encoders.text_columns import TextColumns, name_of
from pinxit.encoders.text_encoder_catalogue import abstract_text_encoder
from pinxit.train import build
from pinxit.train.build import (
    Parts,
    assemble,
    build_mesh,
    build_step,
    encoder_dtype,
    text_columns_for,
)
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState
from pinxit.train.step import StepFn


@dataclass(frozen=True)
class AbstractProgram:
    """A step and its arguments, as `jax.ShapeDtypeStruct`s with shardings."""

    config: TrainConfig
    """The resolved settings."""
    parts: Parts
    """Parts whose encoders have shapes instead of parameters."""
    text: TextColumns
    """Reader of the text columns inside the step."""
    step: StepFn
    """The jitted step."""
    state: TrainState
    frozen: Any
    """Weights of the encoders that run in the step, and the encoded empty prompt."""
    columns: dict[str, Any]
    """Columns of a batch."""

    def trace(self) -> jax.stages.Traced:
        """Traces the step."""
        step: Any = self.step
        return step.trace(self.state, self.frozen, self.columns)

    def lower(self) -> jax.stages.Lowered:
        """Lowers the step, ready to compile."""
        return self.trace().lower()

    def bytes_by_part(self) -> dict[str, int]:
        """Returns the size of the step's arguments on each device, in bytes."""
        moments = self.state.opt_state
        return {
            "parameters": device_bytes(self.state.params),
            "optimiser": device_bytes(moments),
            "ema": device_bytes(self.state.ema),
            "encoders": device_bytes(self.frozen),
            "inputs": device_bytes(self.columns),
        }


def device_bytes(tree: Any) -> int:
    """Returns the size of the arrays of `tree` on one device, in bytes, from their shardings."""

    def of(leaf: Any) -> int:
        return math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize

    return sum(of(leaf) for leaf in jax.tree.leaves(tree))


def abstract_program(
    config: TrainConfig,
    devices: Sequence[Any] | None = None,
    *,
    columns: Mapping[str, Any] | None = None,
    memory_bytes: int | None = None,
) -> AbstractProgram:
    """Builds the step of a run with these resolved settings on `devices` (default: those present).

    `columns` are one row's text columns, if they are known (shapes suffice). Otherwise captions
    have the text encoder's maximum length, as in prepared and streamed data. `memory_bytes` is a
    device's memory if the device cannot report it; ``--mesh auto`` depends on it. Raises
    `UsageError` if the settings do not fit together.
    """
    mesh = build_mesh(config, devices, memory_bytes=memory_bytes)
    dtype = encoder_dtype(config, mesh)
    parts = assemble(
        config,
        abstract_autoencoder(config.autoencoder, dtype=dtype),
        abstract_text_encoder(config.text_encoder, max_tokens=config.text_max_tokens, dtype=dtype),
        mesh,
    )
    state = placed_abstract_state(config, parts)
    text = text_columns_for(config, parts)
    rows = dict(columns) if columns is not None else text_columns(text)
    frozen = abstract_frozen(text, rows)
    if (autoencoder := parts.encoder_in_step(config)) is not None:
        frozen |= {"vae": autoencoder.params}
    return AbstractProgram(
        config=config,
        parts=parts,
        text=text,
        step=build_step(config, parts, state, text),
        state=state,
        frozen=_placed(frozen, frozen_shardings(frozen, mesh)),
        columns=_placed(_batch(config, parts, rows), batch_sharding(mesh)),
    )


def placed_abstract_state(config: TrainConfig, parts: Parts) -> TrainState:
    """Returns the shapes of `build_state`, with their shardings."""
    state = build.abstract_state(config, parts)
    return _placed(state, state_shardings(state, parts.mesh))


def text_columns(text: TextColumns) -> dict[str, Any]:
    """Returns the shapes of one row's text columns, as `TextColumns.whole` makes them."""
    rows: dict[str, Any] = {}
    for i, (part, cached) in enumerate(zip(text.parts, text.cached, strict=True)):
        length = part.max_tokens
        if cached:
            rows[name_of("text_tokens", i)] = _struct(1, length, part.width, dtype=jnp.float16)
            rows[name_of("text_mask", i)] = _struct(1, length, dtype=jnp.bool_)
        else:
            rows[name_of("token_ids", i)] = _struct(1, length, dtype=jnp.int32)
    return rows


def abstract_frozen(text: TextColumns, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the shapes of `TextColumns.frozen` for rows like these."""
    weights, empty = {}, {}
    for i, (part, cached) in enumerate(zip(text.parts, text.cached, strict=True)):
        if cached:
            tokens, mask = rows[name_of("text_tokens", i)], rows[name_of("text_mask", i)]
            # the encoder's own output, not the stored float16
            empty[name_of("text_tokens", i)] = _struct(1, *tokens.shape[1:], dtype=jnp.float32)
            empty[name_of("text_mask", i)] = _struct(1, *mask.shape[1:], dtype=jnp.bool_)
        else:
            ids = rows[name_of("token_ids", i)]
            empty[name_of("token_ids", i)] = _struct(1, *ids.shape[1:], dtype=jnp.int32)
            weights[str(i)] = part.params
    null = jax.eval_shape(text.conditioning, {"text": weights}, empty)
    return {"text": weights, "null": null}


def _batch(config: TrainConfig, parts: Parts, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns of a batch: latents or images, the text columns, and the sample
    indices."""
    size, stats = config.batch_size, parts.autoencoder.stats
    side, image = config.image_size // stats.downsample, config.image_size
    columns = {name: _struct(size, *row.shape[1:], dtype=row.dtype) for name, row in rows.items()}
    latents = _struct(size, side, side, stats.channels, dtype=jnp.float32)
    pixels = _struct(size, image, image, 3, dtype=jnp.uint8)
    encoded = config.encodes_ahead
    columns[image_column(encoded)] = latents if encoded else pixels
    columns["index"] = _struct(size, dtype=jnp.int32)
    return columns


def _struct(*shape: int, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _placed(tree: Any, shardings: Any) -> Any:
    """Returns the shapes of `tree` with shardings: either one for all leaves, or a tree of them."""
    if isinstance(shardings, jax.sharding.Sharding):
        one = shardings
        shardings = jax.tree.map(lambda _: one, tree)

    def placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(placed, tree, shardings)
