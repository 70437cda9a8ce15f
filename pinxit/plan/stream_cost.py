"""The program that a streamed run computes beside its step: it encodes the images that arrive.

The autoencoder runs on the devices that train, a few images at a time (`StreamedLoader`). Its time
adds to that of the step, because a device runs one program at a time. Its memory adds too, because
the buffers of both programs may exist at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinxit.devices import flops
from pinxit.devices.mesh import batch_sharding, process_count, replicated
from pinxit.devices.transfer import encoding_of
from pinxit.train.abstract_program import AbstractProgram, device_bytes
from pinxit.train.input.encode_chunk import stream_chunk


@dataclass(frozen=True)
class StreamEncoding:
    """The encoding of one chunk of images, ready to compile."""

    lowered: jax.stages.Lowered
    images: int
    """Number of images in a chunk, over all devices."""
    flops: dict[str, float]
    """Operations for a chunk, by the dtype of their factors."""
    weights: int
    """Bytes of the autoencoder's weights on each device."""
    transferred: int
    """Bytes that pass between the host and the devices for each image: the image, and its latents
    back to the host and again to the step."""

    def to_json(self, batch_size: int) -> dict[str, Any]:
        """Returns what the plan needs to know, for a step of `batch_size` images."""
        return {
            "images": self.images,
            "chunks_per_step": batch_size / self.images,
            "flops": sum(self.flops.values()),
            "flops_run": self.flops,
            "weights": self.weights,
            "transferred": self.transferred,
        }


def stream_encoding(program: AbstractProgram) -> StreamEncoding:
    """Lowers the program that encodes a chunk of images for the devices of `program`."""
    config, parts = program.config, program.parts
    autoencoder, mesh = parts.autoencoder, parts.mesh
    images = stream_chunk(
        config.image_size, config.batch_size, devices=mesh.size, processes=process_count(mesh)
    )
    shape = (images, config.image_size, config.image_size, 3)

    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)),
        autoencoder.params,
    )
    pixels = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=batch_sharding(mesh))
    traced = jax.jit(encoding_of(autoencoder)).trace(params, pixels)
    latents = np.prod(traced.out_info.shape[1:]) * np.dtype(np.float32).itemsize
    return StreamEncoding(
        lowered=traced.lower(),
        images=images,
        flops=flops.count_by_dtype(traced.jaxpr),
        weights=device_bytes(params),
        transferred=int(np.prod(shape[1:]) + 2 * latents),
    )
