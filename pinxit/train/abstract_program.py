"""The training step of a run as shapes, with nothing loaded and nothing allocated.

`abstract_program` builds the same step that `run` compiles, from settings and a list of devices,
and the shapes and shardings of its arguments. The devices may be present or only described
(`jax.experimental.topologies`), so ``program.lower().compile()`` can compile for hardware that is
absent. Encoders are shapes too.

A device also holds what its program does not read: encoders that run beside the step, copies of
weights that the step reads with another sharding, and the next batches. `bytes_by_part` counts
everything, and `unread_bytes` what must be added to the program's own memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from pinxit.data.image_column import image_column
from pinxit.devices.mesh import (
    batch_sharding,
    frozen_shardings,
    state_shardings,
    weight_sharding,
)
from pinxit.encoders.abstract_autoencoder import abstract_autoencoder
from pinxit.encoders.text_columns import TextColumns, name_of
from pinxit.encoders.text_encoder_catalogue import abstract_text_encoder
from pinxit.encoders.weights import Sharding
from pinxit.train import build
from pinxit.train.build import (
    Parts,
    assemble,
    build_mesh,
    build_step,
    encoder_dtype,
    text_columns_for,
)
from pinxit.train.loop import IN_FLIGHT
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
        """Returns the size of the arrays that one device holds during training, in bytes.

        It is the device that holds the most. Activations and gradients are not included.
        """
        moments = self.state.opt_state
        return {
            "parameters": device_bytes(self.state.params),
            "optimiser": device_bytes(moments),
            "ema": device_bytes(self.state.ema),
            "encoders": device_bytes(self.frozen),
            "encoders beside the step": self.idle_encoder_bytes(),
            "inputs": (1 + IN_FLIGHT) * device_bytes(self.columns),
        }

    def unread_bytes(self, traced: jax.stages.Traced) -> int:
        """Returns the bytes of `bytes_by_part` that are no arguments of the compiled step.

        JAX removes arguments that the traced step does not read, but their arrays stay.
        """
        arguments = jax.tree.leaves((self.state, self.frozen, self.columns))
        outputs = [True] * len(traced.jaxpr.out_avals)
        _, is_read = dce_jaxpr(traced.jaxpr.jaxpr, outputs)
        pairs = zip(arguments, is_read, strict=True)
        dropped = [argument for argument, read in pairs if not read]
        waiting = IN_FLIGHT * device_bytes(self.columns)
        return device_bytes(dropped) + waiting + self.idle_encoder_bytes()

    def idle_encoder_bytes(self) -> int:
        """Returns the bytes of encoders on the first device that are not in `frozen`.

        A run keeps each encoder where it was loaded, for samples and the validation loss: text
        encoders sharded over the devices of a process, the autoencoder on the first device. The
        step's arguments are the same memory where they have the same sharding, and copies elsewhere
        and on several processes.
        """
        mesh = self.parts.mesh
        several = len({device.process_index for device in mesh.devices.flat}) > 1
        sharding = weight_sharding(mesh)
        total = 0
        for i, part in enumerate(self.text.parts):
            in_step = self.frozen["text"].get(str(i))
            total += _idle_bytes(part.params, in_step, sharding, always=several)
        return total + _idle_bytes(
            self.parts.autoencoder.params, self.frozen.get("vae"), None, always=several
        )


def _idle_bytes(params: Any, in_step: Any, sharding: Sharding | None, *, always: bool) -> int:
    """Returns the bytes of loaded weights on the first device without those that the step shares.

    `in_step` has the shapes that the step reads, or is None. With `always`, they are copies.
    """
    total = 0
    copies = jax.tree.leaves(in_step) if in_step is not None else None
    for i, leaf in enumerate(jax.tree.leaves(params)):
        shape = tuple(leaf.shape)
        local = shape if sharding is None else sharding("", shape).shard_shape(shape)
        shares = copies is not None and not always
        if shares and copies is not None:
            shares = copies[i].sharding.shard_shape(shape) == local
        total += 0 if shares else math.prod(local) * np.dtype(leaf.dtype).itemsize
    return total


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
