"""A child process that tests each device with a small computation and prints JSON.

It is a separate process so that `pinxit doctor` survives a device that hangs or that another
program uses, and so that GPU memory is freed as soon as the test ends.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

SIDE = 256
"""Rows and columns of the test matrices."""


def main() -> dict[str, Any]:
    """Lists the devices and whether each multiplies two matrices of small integers exactly."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    start = time.perf_counter()
    devices = jax.local_devices()
    report: dict[str, Any] = {"backend": jax.default_backend(), "devices": []}
    report["start_seconds"] = time.perf_counter() - start
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 4, (SIDE, SIDE)).astype(np.float32) for _ in range(2))
    expected = (a @ b).sum(axis=0)

    @jax.jit
    def product(a: Any, b: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return jnp.sum(a @ b, axis=0)

    for device in devices:
        start = time.perf_counter()
        result = np.asarray(product(jax.device_put(a, device), jax.device_put(b, device)))
        stats = device.memory_stats() or {}
        report["devices"].append(
            {
                "id": device.id,
                "kind": str(device.device_kind),
                "platform": device.platform,
                "right": bool(np.array_equal(result, expected)),
                "seconds": time.perf_counter() - start,
                "bytes_limit": stats.get("bytes_limit"),
                "bytes_in_use": stats.get("bytes_in_use"),
                "compute_capability": getattr(device, "compute_capability", None),
            }
        )
    return report


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    print(json.dumps(main()))
