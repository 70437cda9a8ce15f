"""T5's encoder: the equations written out in NumPy, masks, types, files, and the shape of XXL."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_t5 import SIZES

from pinxit.encoders import t5, weights
from pinxit.encoders.t5 import T5Config

TINY = T5Config(**SIZES, feed_forward_proj="gated-gelu")
OLD = T5Config(**SIZES, feed_forward_proj="relu")
XXL = T5Config(
    d_model=4096, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
)
IDS = np.random.default_rng(0).integers(3, 192, (2, 30)).astype(np.int32)
MASK = np.arange(30)[None] < np.array([[30], [11]])
forward = jax.jit(t5.t5_forward, static_argnums=1)


def reference(params, config: T5Config, ids, mask):
    """One row at a time, one head at a time, in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    blocks = params["encoder"]["block"]
    table = blocks["0"]["layer"]["0"]["SelfAttention"]["relative_attention_bias"]["embedding"]

    def norm(layer, x):
        size = np.sqrt((x**2).mean(-1, keepdims=True) + config.layer_norm_epsilon)
        return x / size * layer["scale"][None]

    def attention(layer, x, keep):
        out, width = 0, config.d_kv
        for k in range(config.num_heads):
            part = slice(k * width, (k + 1) * width)
            q, key, v = (x @ layer[name]["kernel"][:, part] for name in "qkv")
            scores = q @ key.T
            for i in range(len(x)):
                for j in range(len(x)):
                    scores[i, j] += table[bucket(j - i), k]
            scores[:, ~keep] = -np.inf
            p = np.exp(scores - scores.max(-1, keepdims=True))
            out += p / p.sum(-1, keepdims=True) @ v @ layer["o"]["kernel"][part]
        return out

    def bucket(ahead):
        # 8 buckets: 0, 1 and two that widen, to either side; the widest starts at sqrt(2 * 20).
        n = abs(ahead)
        side = n if n < 2 else 2 + int(n >= np.sqrt(2 * 20))
        return side + 4 * (ahead > 0)

    def mlp(layer, x):
        if not config.gated:
            return np.maximum(x @ layer["wi"]["kernel"], 0) @ layer["wo"]["kernel"]
        h = x @ layer["wi_0"]["kernel"]
        h = h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        return h * (x @ layer["wi_1"]["kernel"]) @ layer["wo"]["kernel"]

    rows = []
    for row, keep in zip(ids, mask, strict=True):
        x = params["shared"]["embedding"][row]
        for i in range(config.num_layers):
            first, second = (blocks[str(i)]["layer"][name] for name in "01")
            x = x + attention(first["SelfAttention"], norm(first["layer_norm"], x), keep)
            x = x + mlp(second["DenseReluDense"], norm(second["layer_norm"], x))
        rows.append(norm(params["encoder"]["final_layer_norm"], x))
    return np.stack(rows)


def lively(config: T5Config, seed: int = 0):
    """Parameters without zeros or ones, and position biases that matter."""
    params = t5.init_t5(config, jax.random.key(seed))
    keys = iter(jax.random.split(jax.random.key(seed + 1), 100))
    return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), params)


@pytest.mark.parametrize("config", [TINY, OLD], ids=["gated-gelu", "relu"])
def test_the_equations(config):
    params = lively(config)
    hidden = forward(params, config, IDS, MASK)
    expected = reference(params, config, IDS, MASK)
    assert hidden.shape == (2, 30, 12)
    assert np.abs(hidden - expected).max() <= 1e-5 * np.abs(expected).max()


def test_buckets_of_the_usual_size():
    buckets = t5.relative_buckets(T5Config(), 300)
    ahead, behind = buckets[0], buckets[:, 0]
    assert behind[:9].tolist() == list(range(9))
    assert ahead[:9].tolist() == [0, *range(17, 25)]
    starts = [int(np.argmax(behind == i)) for i in range(16)]
    assert starts == [*range(8), 8, 12, 16, 23, 32, 46, 64, 91]
    np.testing.assert_array_equal(ahead[1:], behind[1:] + 16)
    assert behind[299] == 15
    for i in range(1, 300):
        assert (np.diag(buckets, i) == ahead[i]).all()


def test_masked_tokens_reach_nobody():
    params = lively(TINY)
    changed = np.where(MASK, IDS, 7)
    ours, other = (np.asarray(forward(params, TINY, ids, MASK)) for ids in (IDS, changed))
    np.testing.assert_array_equal(ours[MASK], other[MASK])
    assert np.abs(ours[~MASK] - other[~MASK]).max() > 0.1
    short = forward(params, TINY, IDS[1:, :11], MASK[1:, :11])
    np.testing.assert_allclose(ours[1, :11], short[0], atol=1e-5)


def test_bfloat16_follows_the_parameters():
    params = lively(TINY)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    ours, wide = forward(half, TINY, IDS, MASK), forward(params, TINY, IDS, MASK)
    assert ours.dtype == jnp.bfloat16
    error = np.abs(ours.astype(jnp.float32) - wide).max() / np.abs(wide).max()
    assert 0 < error < 0.05


def test_float16_is_refused_by_name(t5_directory):
    half = jax.tree.map(lambda x: x.astype(jnp.float16), lively(TINY))
    with pytest.raises(ValueError, match=r"float16, in which T5 overflows; valid: float32, bfl"):
        t5.t5_forward(half, TINY, IDS, MASK)
    with pytest.raises(ValueError, match="in which T5 overflows"):
        t5.load_t5(t5_directory, dtype="float16")


def test_fresh_parameters_have_scores_and_states_of_unit_size():
    config = T5Config(**SIZES | {"d_model": 256, "d_kv": 64, "d_ff": 512})
    params = t5.init_t5(config, jax.random.key(0))
    attention = params["encoder"]["block"]["0"]["layer"]["0"]["SelfAttention"]
    x = np.random.default_rng(0).standard_normal((500, 256)).astype(np.float32)
    q, k = (np.asarray(x @ attention[name]["kernel"])[:, :64] for name in ("q", "k"))
    assert 0.8 < (q @ k.T).std() < 1.2
    assert 0.9 < params["shared"]["embedding"].std() < 1.1


def test_save_then_load(tmp_path):
    params = lively(OLD)
    t5.save_t5(tmp_path, params, OLD)
    loaded, config = t5.load_t5(tmp_path)
    assert config == OLD
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    half, _ = t5.load_t5(tmp_path, dtype="bfloat16")
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.bfloat16)), half, params
    )


@pytest.mark.parametrize("names", ["shared", "embed_tokens", "both"])
def test_a_whole_t5_gives_its_encoder(names, tmp_path):
    params = lively(TINY)
    t5.save_t5(tmp_path, params, TINY)
    tensors = load_file(tmp_path / t5.WEIGHTS)
    if names != "shared":
        tensors[t5.COPY] = tensors["shared.weight"].copy()
    if names == "embed_tokens":
        del tensors["shared.weight"]
    tensors["lm_head.weight"] = np.ones((192, 12), np.float32)
    tensors["decoder.block.0.layer.0.SelfAttention.q.weight"] = np.ones((8, 12), np.float32)
    save_file(tensors, tmp_path / t5.WEIGHTS)
    loaded, _ = t5.load_t5(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_a_tensor_of_another_network_is_named(tmp_path):
    t5.save_t5(tmp_path, lively(TINY), TINY)
    value = weights.read_config(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps(value | {"feed_forward_proj": "relu"}))
    with pytest.raises(ValueError, match=r"missing .*wi.weight.*unexpected .*wi_0.weight"):
        t5.load_t5(tmp_path)


def test_every_parameter_is_placed(tmp_path):
    t5.save_t5(tmp_path, lively(TINY), TINY)
    asked = {}

    def sharding(path, shape):
        asked[path] = shape
        return jax.sharding.SingleDeviceSharding(jax.devices()[0])

    params, _ = t5.load_t5(tmp_path, sharding=sharding)
    assert asked == {path: x.shape for path, x in weights.flatten(params).items()}


def test_xxl_by_shape():
    shapes = t5.t5_shapes(XXL)
    flat = weights.flatten(shapes)
    assert len(flat) == 24 * 9 + 3
    assert sum(np.prod(shape) for shape in flat.values()) == 4_762_310_656
    leaves = {path: jax.ShapeDtypeStruct(shape, jnp.bfloat16) for path, shape in flat.items()}
    ids = jax.ShapeDtypeStruct((2, 77), jnp.int32)
    mask = jax.ShapeDtypeStruct((2, 77), bool)
    out = jax.eval_shape(
        lambda params, ids, mask: t5.t5_forward(params, XXL, ids, mask),
        weights.unflatten(leaves),
        ids,
        mask,
    )
    assert (out.shape, out.dtype) == ((2, 77, 4096), jnp.bfloat16)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"model_type": "umt5"}, "model_type is 'umt5'; known: t5; umt5 differs: each block"),
        ({"model_type": "bert"}, "model_type is 'bert'; known: t5$"),
        ({}, "model_type is None"),
        ({"model_type": "t5", "feed_forward_proj": "gated-silu"}, "known: gated-gelu, relu"),
        ({"model_type": "t5", "num_layers": 0}, "num_layers is 0"),
        ({"model_type": "t5", "relative_attention_num_buckets": 6}, "must be a multiple of 4"),
        ({"model_type": "t5", "relative_attention_max_distance": 8}, "more than a quarter"),
    ],
)
def test_bad_configs_are_refused(value, words):
    with pytest.raises(ValueError, match=words):
        T5Config.from_json(value)


def test_defaults_are_those_of_hugging_face():
    value = {"model_type": "t5", "num_layers": 12, "n_positions": 512, "dropout_rate": 0.1}
    assert T5Config.from_json(value) == T5Config(num_layers=12, feed_forward_proj="relu")
