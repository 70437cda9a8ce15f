"""T5's encoder against transformers' T5EncoderModel, on weights that transformers wrote."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_t5 import SIZES

from pinxit.encoders import t5, weights
from pinxit.encoders.t5 import T5Config

pytestmark = pytest.mark.parity
forward = jax.jit(t5.t5_forward, static_argnums=1)
BASE = {
    "vocab_size": 32128,
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 12,
    "num_heads": 12,
    "feed_forward_proj": "gated-gelu",
}
"""google/t5-v1_1-base."""


def their_model(directory, **config):
    """A random encoder of `transformers` with position biases that matter, saved by it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.T5EncoderModel(transformers.T5Config(**config)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * p.std().nan_to_num(1.0) * torch.randn_like(p))
        name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        model.get_parameter(name).normal_()
    model.save_pretrained(directory)
    return model


def inputs(vocab_size: int, shape: tuple[int, int]):
    rng = np.random.default_rng(0)
    ids = rng.integers(3, vocab_size, shape).astype(np.int32)
    lengths = np.linspace(shape[1], 1, shape[0]).astype(int)
    mask = np.arange(shape[1])[None] < lengths[:, None]
    return np.where(mask, ids, 0).astype(np.int32), mask


def states(model, ids, mask) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        out = model(input_ids=torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask))
    return out.last_hidden_state.float().numpy()


def error(ours, theirs) -> float:
    """Largest difference, as a part of the largest number; padding counts."""
    return float(np.abs(np.asarray(ours, np.float32) - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("kind", ["gated-gelu", "relu"])
def test_agrees_with_transformers(kind, tmp_path):
    model = their_model(tmp_path, **SIZES, feed_forward_proj=kind)
    params, config = t5.load_t5(tmp_path)
    assert config == T5Config(**SIZES, feed_forward_proj=kind)
    ids, mask = inputs(SIZES["vocab_size"], (4, 50))
    expected = states(model, ids, mask)
    assert error(forward(params, config, ids, mask), expected) <= 1e-5
    unmasked = forward(params, config, ids, np.ones_like(mask))
    assert error(unmasked, expected) > 1e-2


def test_agrees_in_bfloat16(tmp_path):
    torch = pytest.importorskip("torch")
    model = their_model(tmp_path, **SIZES, feed_forward_proj="gated-gelu")
    ids, mask = inputs(SIZES["vocab_size"], (4, 50))
    exact = states(model, ids, mask)
    params, config = t5.load_t5(tmp_path, dtype="bfloat16")
    ours = forward(params, config, ids, mask)
    theirs = states(model.to(torch.bfloat16), ids, mask)
    assert ours.dtype == jnp.bfloat16
    print(f"bfloat16: ours {error(ours, exact):.1e}, transformers {error(theirs, exact):.1e}")
    assert error(ours, exact) <= min(0.05, 1.5 * error(theirs, exact))


def test_a_whole_t5_of_transformers_gives_its_encoder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(**SIZES, num_decoder_layers=1, tie_word_embeddings=False)
    model = transformers.T5ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    params, ours = t5.load_t5(tmp_path)
    ids, mask = inputs(SIZES["vocab_size"], (2, 20))
    assert error(forward(params, ours, ids, mask), states(model.encoder, ids, mask)) <= 1e-5


def test_transformers_opens_what_we_write(t5_directory):
    transformers = pytest.importorskip("transformers")
    model, report = transformers.T5EncoderModel.from_pretrained(
        t5_directory, output_loading_info=True
    )
    assert not any(report.values())
    params, config = t5.load_t5(t5_directory)
    ids, mask = inputs(config.vocab_size, (2, 20))
    assert error(forward(params, config, ids, mask), states(model.eval(), ids, mask)) <= 1e-5


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 20), (32, 256), (64, 128)])
def test_buckets_agree_wherever_a_row_can_reach(buckets, distance):
    torch = pytest.importorskip("torch")
    attention = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    places = torch.arange(600)
    theirs = attention._relative_position_bucket(
        places[None, :] - places[:, None], num_buckets=buckets, max_distance=distance
    )
    config = T5Config(
        relative_attention_num_buckets=buckets, relative_attention_max_distance=distance
    )
    np.testing.assert_array_equal(t5.relative_buckets(config, 600), theirs.numpy())


def test_xxl_has_the_names_and_shapes_of_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sizes = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    sizes |= {"feed_forward_proj": "gated-gelu"}
    with torch.device("meta"):
        model = transformers.T5EncoderModel(transformers.T5Config(**sizes))
    theirs = {name: tuple(p.shape) for name, p in model.named_parameters()}
    flat = weights.flatten(t5.t5_shapes(T5Config(**sizes)))
    ours = {
        weights.tensor_name(path): shape[::-1] if path.endswith(".kernel") else shape
        for path, shape in flat.items()
    }
    assert ours == theirs


@pytest.mark.slow
def test_agrees_at_the_size_of_t5_base(tmp_path):
    model = their_model(tmp_path, **BASE)
    ids, mask = inputs(BASE["vocab_size"], (2, 77))
    exact = states(model, ids, mask)
    params, config = t5.load_t5(tmp_path)
    wide = error(forward(params, config, ids, mask), exact)
    half = forward(t5.load_t5(tmp_path, dtype="bfloat16")[0], config, ids, mask)
    print(f"t5-v1_1-base: float32 {wide:.1e}, bfloat16 {error(half, exact):.1e}")
    assert wide <= 1e-5
    assert error(half, exact) <= 0.05
