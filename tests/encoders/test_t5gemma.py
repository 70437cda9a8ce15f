"""T5Gemma's encoder: masks, types, files, configs, and the shape of 2B-2B; golden values and
test_t5gemma_parity.py have its equations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_t5gemma import SIZES, write_t5gemma

from pinxit.config import UsageError
from pinxit.encoders import t5gemma, weights
from pinxit.encoders.t5gemma import T5GemmaConfig
from pinxit.encoders.text_encoder_catalogue import abstract_text_encoder, load_text_encoder

forward = jax.jit(t5gemma.t5gemma_forward, static_argnums=1)
TYPES = ("sliding_attention", "full_attention", "sliding_attention")
TINY = T5GemmaConfig(**SIZES, layer_types=TYPES)
MASK = np.arange(30)[None] < np.array([30, 11])[:, None]
IDS = np.where(MASK, np.random.default_rng(0).integers(11, 400, MASK.shape), 0).astype(np.int32)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_t5gemma(tmp_path_factory.mktemp("t5gemma"))


def test_masked_tokens_reach_no_other(directory):
    params, config = t5gemma.load_t5gemma(directory)
    changed = np.where(MASK, IDS, 7)
    ours, other = (np.asarray(forward(params, config, ids, MASK)) for ids in (IDS, changed))
    np.testing.assert_array_equal(ours[MASK], other[MASK])
    short = forward(params, config, IDS[1:, :11], MASK[1:, :11])
    np.testing.assert_allclose(ours[1, :11], short[0], atol=1e-5 * np.abs(ours).max())


def test_a_row_without_tokens_is_finite(directory):
    params, config = t5gemma.load_t5gemma(directory)
    states = forward(params, config, 0 * IDS, np.zeros_like(MASK))
    assert np.isfinite(states).all()


def test_padding_on_the_left_shifts_the_states(directory):
    params, config = t5gemma.load_t5gemma(directory)
    right = np.asarray(forward(params, config, IDS, MASK))[1, :11]
    left = np.asarray(forward(params, config, np.roll(IDS, 19, 1), np.roll(MASK, 19, 1)))[1, 19:]
    np.testing.assert_allclose(left, right, atol=1e-5 * np.abs(right).max())


def test_a_window_reaches_its_width_to_either_side(directory):
    params, config = t5gemma.load_t5gemma(directory)
    alone = T5GemmaConfig(
        **{**vars(config), "num_hidden_layers": 1, "layer_types": ("sliding_attention",)}
    )
    states = np.asarray(forward(params, alone, IDS[:1], MASK[:1]))[0]
    changed = IDS[:1].copy()
    changed[0, 15] = 11 + (changed[0, 15] - 10) % 300
    other = np.asarray(forward(params, alone, changed, MASK[:1]))[0]
    differs = np.abs(states - other).max(axis=-1) > 1e-6
    assert np.flatnonzero(differs).tolist() == list(range(15 - 7, 15 + 7 + 1))


def test_bfloat16_follows_the_parameters(directory):
    params, config = t5gemma.load_t5gemma(directory)
    half, _ = t5gemma.load_t5gemma(directory, dtype="bfloat16")
    ours, wide = forward(half, config, IDS, MASK), forward(params, config, IDS, MASK)
    assert ours.dtype == jnp.bfloat16
    error = np.sqrt(jnp.square(ours.astype(jnp.float32) - wide).mean() / jnp.square(wide).mean())
    assert 0 < error < 0.05


def test_float16_is_refused_by_name(directory):
    half = jax.tree.map(lambda x: x.astype(jnp.float16), t5gemma.load_t5gemma(directory)[0])
    with pytest.raises(UsageError, match="in which T5Gemma overflows; valid: float32, bfloat16"):
        t5gemma.t5gemma_forward(half, TINY, IDS, MASK)
    with pytest.raises(UsageError, match="in which T5Gemma overflows"):
        t5gemma.load_t5gemma(directory, dtype="float16")


def test_save_then_load(tmp_path):
    params = t5gemma.init_t5gemma(TINY, jax.random.key(0))
    assert not params["norm"]["scale"].any()
    t5gemma.save_t5gemma(tmp_path, params, TINY)
    loaded, config = t5gemma.load_t5gemma(tmp_path)
    assert config == TINY
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    states = forward(params, config, IDS, MASK)
    assert 0.9 < np.asarray(states)[MASK].std() < 1.1


@pytest.mark.parametrize("prefix", ["encoder.", "model.encoder."])
def test_a_whole_t5gemma_gives_its_encoder(prefix, directory, tmp_path):
    params, config = t5gemma.load_t5gemma(directory)
    tensors = load_file(directory / t5gemma.WEIGHTS)
    whole = {prefix + name: tensor for name, tensor in tensors.items()}
    decoder = prefix.replace("encoder", "decoder")
    whole |= {decoder + "layers.0.cross_attn.q_proj.weight": np.ones((4, 4), np.float32)}
    save_file(
        whole | {"lm_head.out_proj.weight": np.ones((4, 4), np.float32)}, tmp_path / t5gemma.WEIGHTS
    )
    value = weights.read_config(directory / "config.json")
    decoders = value["encoder"] | {"is_decoder": True, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(value | {"decoder": decoders}))
    loaded, again = t5gemma.load_t5gemma(tmp_path)
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_a_tensor_of_another_network_is_named(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "copy")
    value = weights.read_config(directory / "config.json")
    value["encoder"] |= {"num_hidden_layers": 2, "layer_types": None, "num_key_value_heads": 4}
    (tmp_path / "copy" / "config.json").write_text(json.dumps(value))
    with pytest.raises(UsageError, match=r"unexpected layers.2.*k_proj.weight has shape") as error:
        t5gemma.load_t5gemma(tmp_path / "copy")
    assert "\n" not in str(error.value)


def test_every_parameter_is_placed(directory):
    asked = {}

    def sharding(path, shape):
        asked[path] = shape
        return jax.sharding.SingleDeviceSharding(jax.devices()[0])

    params, _ = t5gemma.load_t5gemma(directory, sharding=sharding)
    assert asked == {path: x.shape for path, x in weights.flatten(params).items()}


def test_2b_by_shape():
    encoder = abstract_text_encoder("t5gemma", dtype="bfloat16")
    assert (encoder.kind, encoder.width, encoder.max_tokens) == ("t5gemma", 2304, 256)
    flat = weights.flatten(encoder.params)
    assert len(flat) == 26 * 11 + 2
    assert sum(np.prod(leaf.shape) for leaf in flat.values()) == 2_614_341_888
    ids = jax.ShapeDtypeStruct((2, 256), jnp.int32)
    out = jax.eval_shape(encoder.apply, encoder.params, ids)
    assert (out.tokens.shape, out.tokens.dtype) == ((2, 256, 2304), jnp.bfloat16)
    assert out.mask.shape == (2, 256) and out.pooled is None


OWN = {"model_type": "t5_gemma_module"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"model_type": "gemma2"}, "model_type is 'gemma2'; known: t5gemma, t5_gemma_module$"),
        ({"model_type": "t5gemma2", "encoder": OWN}, "model_type is 't5gemma2'; known: t5gemma,"),
        ({"model_type": "t5gemma"}, "encoder is missing"),
        ({"model_type": "t5gemma", "encoder": [1]}, r"encoder is \[1\]; it must be an object"),
        ({"model_type": "t5gemma", "encoder": {"model_type": "gemma2"}}, "'gemma2'"),
        (OWN | {"hidden_activation": "silu"}, "'silu'; known: gelu_pytorch_tanh"),
        (OWN | {"attention_bias": True}, "attention_bias is True; known: false"),
        (OWN | {"is_decoder": True}, "is_decoder is True; known: false"),
        (OWN | {"num_key_value_heads": 3}, "num_attention_heads is 8; it must be a multiple of"),
        (OWN | {"head_dim": 5}, "head_dim is 5; it must be even"),
        (OWN | {"layer_types": ["full_attention"]}, "one type for each of the 26 layers"),
        (
            OWN | {"num_hidden_layers": 1, "layer_types": ["chunked_attention"]},
            "'chunked_attention'; known: sliding_attention, full_attention",
        ),
        (OWN | {"sliding_window": None}, "sliding_window is None, but layer_types has sliding"),
        (OWN | {"sliding_window": 0}, "sliding_window is 0; it must be at least 1"),
        (OWN | {"attn_logit_softcapping": 0}, "attn_logit_softcapping is 0.0; it must be more"),
        (OWN | {"attn_logit_softcapping": "50"}, "attn_logit_softcapping is '50'; it must be a nu"),
        (OWN | {"rope_parameters": 5}, "rope_parameters is 5; it must be an object"),
        (OWN | {"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'; known: default"),
        (OWN | {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_type 'linear'"),
        (OWN | {"rope_parameters": {"factor": 2}}, "rope_parameters has factor; known: rope_theta"),
        (OWN | {"rope_parameters": {"rope_theta": -1}}, "rope_theta is -1.0; it must be more than"),
    ],
)
def test_bad_configs_are_refused(value, words):
    with pytest.raises(UsageError, match=words) as error:
        T5GemmaConfig.from_json(value)
    assert "\n" not in str(error.value)


def test_old_and_new_spellings():
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 500}}
    old = {"rope_theta": 500.0, "rope_scaling": None, "torch_dtype": "bfloat16"}
    assert T5GemmaConfig.from_json(OWN | new) == T5GemmaConfig(rope_theta=500.0)
    assert T5GemmaConfig.from_json(OWN | old) == T5GemmaConfig(rope_theta=500.0)
    assert T5GemmaConfig.from_json({"model_type": "t5gemma", "encoder": {}}) == T5GemmaConfig()
    open_ = {"attn_logit_softcapping": None, "sliding_window": None}
    full = {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}
    config = T5GemmaConfig.from_json(OWN | open_ | full)
    assert config.attn_logit_softcapping is config.sliding_window is None
    assert T5GemmaConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_pickles_and_damaged_files_are_refused(directory, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(directory, root)
    body = (root / t5gemma.WEIGHTS).read_bytes()
    (root / t5gemma.WEIGHTS).write_bytes(body[: len(body) // 2])
    with pytest.raises(UsageError, match="is not a whole safetensors file"):
        load_text_encoder(root)
    (root / t5gemma.WEIGHTS).unlink()
    (root / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UsageError, match=r"pickled weights.*run code when opened"):
        load_text_encoder(root)
    (root / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"has no tokenizer.json .*save_pretrained\(DIR\)"):
        load_text_encoder(root)
