"""A child process that makes each device compute something; prints JSON.

Its own process, so that a device that hangs or is taken by another program harms nobody, and so
that the memory of a GPU is not taken for longer than this takes.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

SIDE = 256


def main() -> dict[str, Any]:
    """What the devices are, and whether the product of two matrices of small integers is exact."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    begun = time.perf_counter()
    devices = jax.local_devices()
    found: dict[str, Any] = {"backend": jax.default_backend(), "devices": []}
    found["start_seconds"] = time.perf_counter() - begun
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 4, (SIDE, SIDE)).astype(np.float32) for _ in range(2))
    expected = (a @ b).sum(axis=0)

    @jax.jit
    def product(a: Any, b: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return jnp.sum(a @ b, axis=0)

    for device in devices:
        begun = time.perf_counter()
        result = np.asarray(product(jax.device_put(a, device), jax.device_put(b, device)))
        stats = device.memory_stats() or {}
        found["devices"].append(
            {
                "id": device.id,
                "kind": str(device.device_kind),
                "platform": device.platform,
                "right": bool(np.array_equal(result, expected)),
                "seconds": time.perf_counter() - begun,
                "bytes_limit": stats.get("bytes_limit"),
                "bytes_in_use": stats.get("bytes_in_use"),
                "compute_capability": getattr(device, "compute_capability", None),
            }
        )
    return found


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    print(json.dumps(main()))
