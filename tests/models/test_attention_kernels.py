"""Attention by kernels equals XLA's; a kernel that a device cannot run is found out."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.arrays import Conditioning
from pinxit.cli.xla_environment import LIBRARIES
from pinxit.models import attention_kernels
from pinxit.models.attention_kernels import attend, fastest, works
from pinxit.models.transformer import abstract, apply, preset
from pinxit.processor import model_and_flags

HEADS, QUERIES, KEYS, WIDTH = 2, 24, 37, 16


def inputs(batch=2):
    parts = jax.random.split(jax.random.key(0), 3)
    query = jax.random.normal(parts[0], (batch, HEADS, QUERIES, WIDTH))
    key, value = (jax.random.normal(part, (batch, HEADS, KEYS, WIDTH)) for part in parts[1:])
    visible = jnp.arange(KEYS)[None, :] < jnp.array([KEYS, 20])[:batch, None]
    return query, key, value, visible


def energy(query, key, value, visible, implementation):
    return jnp.sum(jnp.sin(attend(query, key, value, visible, implementation)))


def test_hidden_keys_have_no_weight():
    query, key, value, visible = inputs()
    whole = attend(query, key, value, visible)
    cut = attend(query[1:], key[1:, :, :20], value[1:, :, :20], visible[1:, :20])
    np.testing.assert_allclose(whole[1:], cut, atol=1e-6)


def test_the_gradient_is_that_of_plain_softmax():
    def plain(query, key, value, visible):
        scores = jnp.einsum("bknf,bkmf->bknm", query, key) * WIDTH**-0.5
        scores = jnp.where(visible[:, None, None, :], scores, -jnp.inf)
        return jnp.sum(jnp.sin(jax.nn.softmax(scores, axis=-1) @ value))

    arrays = inputs()
    found = jax.grad(energy, argnums=(0, 1, 2))(*arrays, "xla")
    for ours, reference in zip(found, jax.grad(plain, argnums=(0, 1, 2))(*arrays), strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-6)
    assert float(jnp.abs(found[1][1, :, 20:]).max()) == 0.0


def test_the_tpu_kernel_agrees_with_its_gradient():
    """Lengths that fill no block; the kernel is interpreted."""
    from jax.experimental.pallas import tpu as pltpu

    arrays = [x[1:, :1] if x.ndim == 4 else x[1:] for x in inputs()]
    expected = jax.grad(energy, argnums=(0, 1, 2))(*arrays, "xla")
    with pltpu.force_tpu_interpret_mode():
        output = attend(*arrays, "pallas")
        found = jax.grad(energy, argnums=(0, 1, 2))(*arrays, "pallas")
    assert output.shape == (1, QUERIES, WIDTH)
    np.testing.assert_allclose(output, attend(*arrays), atol=1e-5)
    for ours, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-5)


CUT = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from pinxit.models import attention_kernels as module
from pinxit.models.attention_kernels import attend
seen = []

def kernel(query, *others):  # interpreted kernels wait for one another, and there are few threads
    seen.append(query.shape)
    return attend(query, *others)

module._flash = kernel
mesh = Mesh(np.asarray(jax.devices()).reshape(2, 1, 2), ("data", "fsdp", "tensor"))
parts = jax.random.split(jax.random.key(0), 3)
query, key, value = (jax.random.normal(part, (4, 2, 8, 8)) for part in parts)
visible = np.arange(8)[None, :] < np.array([8, 5, 3, 1])[:, None]

def run(*args):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return attend(*args, "pallas")

cut = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
placed = [jax.device_put(x, cut) for x in (query, key, value, visible)]
found = jax.jit(run)(*placed)
assert seen == [(2, 1, 8, 8)], seen
np.testing.assert_allclose(found, attend(query, key, value, visible), atol=1e-5)
print("equal on", len(found.sharding.device_set))
"""


def test_the_tpu_kernel_runs_on_each_devices_part():
    flags = "--xla_force_host_platform_device_count=4"
    environ = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CUT]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert "equal on 4" in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("platform", "kind", "dtype", "capability", "expected"),
    [
        ("cpu", "cpu", "bfloat16", 0.0, "xla"),
        ("gpu", "Tesla V100", "float16", 7.0, "xla"),
        ("gpu", "NVIDIA A100", "bfloat16", 8.0, "cudnn"),
        ("gpu", "NVIDIA A100", "float32", 8.0, "xla"),
        ("tpu", "TPU v3", "bfloat16", 0.0, "xla"),
        ("tpu", "TPU v5 lite", "bfloat16", 0.0, "pallas"),
    ],
)
def test_the_program_follows_the_device(platform, kind, dtype, capability, expected):
    assert fastest(platform, kind, dtype, capability=capability) == expected


@pytest.mark.parametrize("implementation", ["cudnn", "pallas"])
def test_kernels_that_a_cpu_cannot_run_are_found_out(implementation):
    shapes = {"heads": 2, "head_dim": 16, "queries": 8, "keys": 10}
    assert works("xla", **shapes, dtype="bfloat16") == ""
    assert works(implementation, **shapes, dtype="bfloat16") != ""


def test_a_kernel_with_wrong_numbers_is_found_out(monkeypatch):
    def wrong(query, key, value, visible):
        return attend(query, key, value, jnp.ones_like(visible))

    monkeypatch.setitem(sys.modules["pinxit.models.attention_kernels"].PROGRAMS, "pallas", wrong)
    said = works("pallas", heads=2, head_dim=16, queries=8, keys=16, dtype="float32")
    assert "differs" in said


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_of_many_scores_are_computed_again(dtype, monkeypatch):
    *arrays, visible = inputs()
    arrays = [x.astype(dtype) for x in arrays]

    def pulled():
        output, pull = jax.vjp(lambda *arrays: attend(*arrays, visible), *arrays)
        return output, pull(jnp.cos(output))

    output, gradients = pulled()
    monkeypatch.setattr(attention_kernels, "STORED_SCORES", QUERIES * KEYS)
    again, same = pulled()
    np.testing.assert_array_equal(again, output)
    for ours, reference in zip(same, gradients, strict=True):
        wide = ours.astype(jnp.float32)
        np.testing.assert_allclose(wide, reference.astype(jnp.float32), rtol=1e-5, atol=1e-6)


def layers_gradient(unroll: bool, rows: int):
    """The lowering of the gradient of six layers of attention of an array over itself."""

    def layer(x, _):
        head = x[:, None]
        return x + attend(head, head, head, jnp.ones((1, rows), bool)), None

    def loss(x):
        return jnp.sum(jnp.square(jax.lax.scan(layer, x, length=6, unroll=6 if unroll else 1)[0]))

    return jax.jit(jax.grad(loss)).trace(jax.ShapeDtypeStruct((1, rows, 8), jnp.float32))


@pytest.mark.parametrize("unroll", [False, True])
def test_a_cpu_stores_no_weights_of_many_scores(unroll, monkeypatch):
    """Also if the layers are a loop, whose stack of weights the compiler then leaves out."""
    rows = 256

    def temporary():
        compiled = layers_gradient(unroll, rows).lower().compile()
        return compiled.memory_analysis().temp_size_in_bytes

    stored = temporary()
    monkeypatch.setattr(attention_kernels, "STORED_SCORES", rows * rows)
    assert stored > 6 * rows * rows * 4 > 4 * rows * rows * 4 > temporary()


@pytest.mark.parametrize(("platform", "products"), [("cpu", 7), ("tpu", 6), ("cuda", 6)])
def test_only_a_cpu_computes_weights_again(platform, products, monkeypatch):
    """Elsewhere the scores in fp32 took more memory than the weights that they replace."""
    monkeypatch.setattr(attention_kernels, "STORED_SCORES", 16 * 16)
    text = layers_gradient(False, 16).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.dot_general") == products
    assert "optimization_barrier" not in text


@pytest.mark.skipif("avx512_bf16" not in model_and_flags()[1].split(), reason="needs AVX512-BF16")
def test_products_of_bfloat16_are_not_computed_in_float32_on_a_cpu():
    """XLA would take the transposes of queries, keys and values into the products."""
    config = preset("debug", dtype="bfloat16", scan_blocks=False, in_channels=4, context_dim=16)
    shape = jax.ShapeDtypeStruct

    def loss(params, x, tokens):
        conditioning = Conditioning(tokens=tokens, mask=jnp.ones((2, 8), bool))
        return jnp.mean(jnp.square(apply(config, params, x, jnp.full(2, 0.5), conditioning)))

    shapes = abstract(config)[1], shape((2, 8, 8, 4), jnp.float32), shape((2, 8, 16), jnp.float32)
    name, value = LIBRARIES["ynn"].removeprefix("--").split("=")
    program = jax.jit(jax.grad(loss)).lower(*shapes).compile({name: value}).as_text()
    types = dict(re.findall(r"%([\w.-]+)(?: =|:) (\w+\[[\d,]*\])", program))
    products = re.findall(r"= f32\[(2,2,[\d,]+)\]\S* dot\(%([\w.-]+), %([\w.-]+)\)", program)
    assert len(products) >= 10, "attention's products of two blocks and their gradients"
    wide = [each for each in products if {types[each[1]][:3], types[each[2]][:3]} != {"bf1"}]
    assert not wide
