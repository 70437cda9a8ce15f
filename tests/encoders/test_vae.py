"""The KL autoencoder: shapes, files, and agreement with diffusers."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pinxit.encoders import vae, weights
from pinxit.encoders.vae import AutoencoderKLConfig

TINY = AutoencoderKLConfig(
    block_out_channels=(8, 16),
    layers_per_block=1,
    latent_channels=4,
    norm_num_groups=4,
    sample_size=16,
)
encode_moments = jax.jit(vae.encode_moments, static_argnums=1)
decode = jax.jit(vae.decode_latents, static_argnums=1)
VARIANTS = {
    "attention": TINY,
    "plain": dataclasses.replace(
        TINY, use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False
    ),
    "three levels": dataclasses.replace(TINY, block_out_channels=(8, 8, 12), layers_per_block=2),
}
FOUR_LEVELS = dataclasses.replace(TINY, block_out_channels=(4, 8, 16, 16), layers_per_block=2)
FAMILIES = {
    "SD": FOUR_LEVELS,
    "SDXL": dataclasses.replace(FOUR_LEVELS, scaling_factor=0.13025),
    "SD3": dataclasses.replace(
        FOUR_LEVELS,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.5305,
        shift_factor=0.0609,
    ),
    "Flux": dataclasses.replace(
        FOUR_LEVELS,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        force_upcast=False,
    ),
}
"""The released families' configs at a thirty-second of their widths."""


def images(size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2, size, size + 4, 3)).astype(np.float32)


@pytest.mark.parametrize("name", VARIANTS)
def test_shapes(name):
    config = VARIANTS[name]
    params = vae.init_vae(config, jax.random.key(0))
    mean, logvar = encode_moments(params, config, images())
    cells = (2, 8 // config.downsample, 12 // config.downsample, 4)
    assert mean.shape == logvar.shape == cells
    assert decode(params, config, mean).shape == (2, 8, 12, 3)
    assert np.isfinite(mean).all()


def test_logvar_is_clipped():
    params = vae.init_vae(TINY, jax.random.key(0))
    params["quant_conv"]["bias"] = jnp.full(8, 1e4)
    assert float(encode_moments(params, TINY, images())[1].max()) == 20.0


def test_gradients_are_finite():
    params = vae.init_vae(TINY, jax.random.key(0))

    @jax.jit
    def loss(params):
        mean, logvar = encode_moments(params, TINY, images())
        return jnp.square(decode(params, TINY, mean) - images()).mean() + logvar.mean()

    leaves = jax.tree.leaves(jax.grad(loss)(params))
    assert all(np.isfinite(g).all() for g in leaves)
    assert sum(float(jnp.abs(g).max()) > 0 for g in leaves) > 0.8 * len(leaves)


def test_save_then_load(tmp_path):
    config = dataclasses.replace(TINY, scaling_factor=0.5, shift_factor=0.25)
    params = vae.init_vae(config, jax.random.key(1))
    vae.save_vae(tmp_path, params, config)
    loaded, loaded_config = vae.load_vae(tmp_path)
    assert loaded_config == config
    assert weights.read_config(tmp_path / "config.json")["shift_factor"] == 0.25
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_old_attention_names_load(tmp_path):
    params = vae.init_vae(TINY, jax.random.key(1))
    vae.save_vae(tmp_path, params, TINY)
    rename_attention(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, vae.load_vae(tmp_path)[0], params)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"act_fn": "gelu"}, "act_fn is 'gelu'"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"]}, "down_block_types"),
        ({"latents_mean": [0.0]}, "latents_mean"),
        ({"norm_num_groups": 3}, "multiple of norm_num_groups"),
        ({"latent_channels": 0}, "latent_channels is 0"),
        ({"latent_channels": "4"}, "latent_channels is '4'; it must be a whole number"),
        ({"block_out_channels": 8}, "block_out_channels is 8; give one width per level"),
        (
            {"_class_name": "AutoencoderKLWan"},
            "describes a 'AutoencoderKLWan'; known: AutoencoderKL",
        ),
    ],
)
def test_foreign_configs_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        AutoencoderKLConfig.from_json(TINY.to_json() | change)


def test_the_config_of_a_text_encoder_is_refused():
    with pytest.raises(ValueError, match="describes a 'clip_text_model'; known: AutoencoderKL"):
        AutoencoderKLConfig.from_json({"model_type": "clip_text_model", "hidden_size": 8})


def test_configs_survive_the_round_trip():
    for config in (*VARIANTS.values(), *FAMILIES.values()):
        assert AutoencoderKLConfig.from_json(config.to_json()) == config
    defaults = AutoencoderKLConfig.from_json({"_class_name": "AutoencoderKL", "shift_factor": None})
    assert defaults == AutoencoderKLConfig(shift_factor=0.0, force_upcast=True)


def test_bfloat16_parameters_give_bfloat16_activations(tmp_path):
    """The largest error is at most 5 % of the largest value (measured: about 2 %)."""
    vae.save_vae(tmp_path, vae.init_vae(TINY, jax.random.key(1)), TINY)
    wide, narrow = (vae.load_vae(tmp_path, dtype=dtype)[0] for dtype in ("float32", "bfloat16"))
    exact, rough = (encode_moments(params, TINY, images())[0] for params in (wide, narrow))
    pairs = [(rough, exact), (decode(narrow, TINY, exact), decode(wide, TINY, exact))]
    for ours, other in pairs:
        assert ours.dtype == jnp.bfloat16
        difference = np.abs(ours.astype(jnp.float32) - other).max() / np.abs(other).max()
        assert 1e-4 < difference < 0.05


def test_image_size_must_divide():
    with pytest.raises(ValueError, match="9x9 is not divisible by the autoencoder's factor 2"):
        vae.encode_moments(
            vae.init_vae(TINY, jax.random.key(0)), TINY, np.zeros((1, 9, 9, 3), np.float32)
        )


@pytest.mark.parity
@pytest.mark.parametrize("name", [*VARIANTS, *FAMILIES])
def test_agrees_with_diffusers(name, tmp_path):
    theirs = their_model((VARIANTS | FAMILIES)[name], tmp_path)
    params, config = vae.load_vae(tmp_path)
    assert config == (VARIANTS | FAMILIES)[name]
    agrees(params, config, theirs)


@pytest.mark.parity
def test_old_attention_names_agree_with_diffusers(tmp_path):
    """Both read a file of 2022, and read the same."""
    diffusers = pytest.importorskip("diffusers")
    expected = their_model(TINY, tmp_path)
    rename_attention(tmp_path)
    theirs = diffusers.AutoencoderKL.from_pretrained(tmp_path).eval()
    for ours, other in zip(theirs.parameters(), expected.parameters(), strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), other.detach().numpy())
    agrees(*vae.load_vae(tmp_path), theirs)


@pytest.mark.parity
def test_diffusers_opens_what_we_write(tmp_path):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    params = vae.init_vae(TINY, jax.random.key(2))
    vae.save_vae(tmp_path, params, TINY)
    theirs = diffusers.AutoencoderKL.from_pretrained(tmp_path).eval()
    assert theirs.config.shift_factor == 0.0
    z = np.random.default_rng(0).standard_normal((1, 4, 6, 4)).astype(np.float32)
    with torch.no_grad():
        decoded = theirs.decode(torch.from_numpy(z.transpose(0, 3, 1, 2))).sample
    close(decode(params, TINY, z), decoded)


def rename_attention(directory) -> None:
    """Attention's tensors get the names they had in files of 2022."""
    renamed = {
        name.replace("to_q", "query")
        .replace("to_k", "key")
        .replace("to_v", "value")
        .replace("to_out.0", "proj_attn"): tensor
        for name, tensor in load_file(directory / vae.WEIGHTS).items()
    }
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in renamed
    save_file(renamed, directory / vae.WEIGHTS)


def their_model(config: AutoencoderKLConfig, directory):
    """A random model of `diffusers`, saved by it to `directory`."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL.from_config(config.to_json()).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    model.save_pretrained(directory)
    return model


def agrees(params, config: AutoencoderKLConfig, theirs) -> None:
    """Moments and decoded images are those of `theirs`."""
    torch = pytest.importorskip("torch")
    x = images(4 * config.downsample)[:, :, : 3 * config.downsample]
    with torch.no_grad():
        posterior = theirs.encode(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).latent_dist
        decoded = theirs.decode(posterior.mean).sample
    mean, logvar = encode_moments(params, config, x)
    close(mean, posterior.mean)
    close(logvar, posterior.logvar)
    close(decode(params, config, mean), decoded)


def close(ours, theirs, tolerance: float = 1e-5) -> None:
    theirs = theirs.numpy().transpose(0, 2, 3, 1)
    assert np.abs(np.asarray(ours) - theirs).max() <= tolerance * np.abs(theirs).max()
