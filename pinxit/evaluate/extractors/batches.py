"""Runs a network on pictures in batches of one fixed size, on all devices of this process.

Every device runs the same program on its own batch, and the batch does not follow any setting. So
a picture's features have the same bytes for any number of pictures and devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from pinxit.devices.each_device import copied, mesh_of, on_each
from pinxit.fixed_batches import padded

BATCH = 32
"""Number of pictures that a device computes together."""


class BatchedNetwork:
    """A network that computes rows of features of any number of prepared inputs."""

    def __init__(
        self, apply: Callable[[Any, Any], Float[Array, "b d"]], params: Any, *, batch: int = BATCH
    ) -> None:
        """Computes ``apply(params, inputs)``, for `batch` inputs on each device."""
        self._apply, self._params, self._batch = apply, params, batch
        self._programs: dict[int, tuple[Any, Any]] = {}

    def __call__(self, inputs: Iterable[np.ndarray]) -> Float[np.ndarray, "n d"]:
        """Returns the features of the inputs, which must all have one shape and be at least one."""
        rows = list(inputs)
        results = []
        while rows:
            devices = jax.local_devices() if len(rows) > self._batch else jax.local_devices()[:1]
            size = self._batch * len(devices)
            now, rows = rows[:size], rows[size:]
            program, params = self._program(devices)
            features = program(params, np.stack(padded(now, size)))
            results.append(np.asarray(features, np.float32)[: len(now)])
        return np.concatenate(results)

    def _program(self, devices: Sequence[Any]) -> tuple[Any, Any]:
        if len(devices) not in self._programs:
            mesh = mesh_of(devices)
            program = jax.jit(on_each(self._apply, mesh, shared=1))
            self._programs[len(devices)] = program, copied(self._params, mesh)
        return self._programs[len(devices)]
