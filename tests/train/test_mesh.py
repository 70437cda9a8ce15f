"""Eight (fake) devices compute what one computes."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from pinxit.train.mesh import check_batch, make_mesh

PROGRAM = """
import sys
import jax, numpy as np
sys.path.insert(0, sys.argv[1])
from toys import FROZEN, loader, make
from pinxit.train.mesh import batch_sharding, make_mesh, replicated, state_shardings
from pinxit.train import mesh as meshes
meshes.FSDP_MINIMUM = 1
assert jax.device_count() == 8

def trained(count, fsdp, accumulation):
    mesh = make_mesh(jax.devices()[:count])
    _, state = make()
    shardings = state_shardings(state, mesh, fsdp=fsdp)
    out = (shardings, replicated(mesh))
    step, _ = make(out_shardings=out, accumulation=accumulation)
    state = jax.device_put(state, shardings)
    for raw in loader(16).batches(0, 4):
        state, metrics = step(state, FROZEN, jax.device_put(raw, batch_sharding(mesh)))
    assert step._cache_size() == 1
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state.params, metrics["loss"]))]

one = trained(1, False, 1)
for count, fsdp, accumulation in ((8, False, 1), (8, True, 1), (8, False, 2), (2, True, 1)):
    for a, b in zip(one, trained(count, fsdp, accumulation), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
print("equal")
"""


def test_eight_devices_equal_one():
    here = Path(__file__).parent
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(here.parents[1]),
    }
    command = [sys.executable, "-c", PROGRAM, str(here)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


def test_a_batch_that_does_not_divide_is_named():
    mesh = make_mesh()
    assert mesh.size == jax.device_count()
    eight = make_mesh(np.repeat(np.asarray(jax.devices()), 8).tolist()[: jax.device_count()])
    check_batch(8, 2, eight)
    with pytest.raises(ValueError, match="batch_size"):
        check_batch(9, 2, mesh)
