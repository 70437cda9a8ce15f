"""The deep compression autoencoder: shapes, files, configs, and agreement with diffusers."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from pinxit.config import UsageError
from pinxit.encoders import dc_ae, weights
from pinxit.encoders.abstract_autoencoder import SANA_DC_AE
from pinxit.encoders.dc_ae_config import RES_BLOCK, VIT_BLOCK, AutoencoderDCConfig

encode = jax.jit(dc_ae.encode_images, static_argnums=1)
decode = jax.jit(dc_ae.decode_raw, static_argnums=1)
NARROW = (8, 16, 32, 32, 64, 64)
SANA = dataclasses.replace(
    SANA_DC_AE,
    latent_channels=8,
    attention_head_dim=8,
    encoder_block_out_channels=NARROW,
    decoder_block_out_channels=NARROW,
    encoder_layers_per_block=(1, 1, 1, 1, 2, 1),
    decoder_layers_per_block=(1, 1, 1, 1, 2, 1),
)
"""Sana's and PRX's at a sixteenth of its widths and fewer layers."""
IMAGENET = AutoencoderDCConfig(
    latent_channels=8,
    attention_head_dim=8,
    encoder_block_types=(RES_BLOCK,) * 3 + (VIT_BLOCK,) * 3,
    decoder_block_types=(RES_BLOCK,) * 3 + (VIT_BLOCK,) * 3,
    encoder_block_out_channels=NARROW,
    decoder_block_out_channels=NARROW,
    encoder_layers_per_block=(0, 1, 2, 1, 1, 1),
    decoder_layers_per_block=(0, 2, 1, 1, 1, 1),
    encoder_qkv_multiscales=((),) * 6,
    decoder_qkv_multiscales=((),) * 6,
    decoder_norm_types=("batch_norm",) * 3 + ("rms_norm",) * 3,
    decoder_act_fns=("relu",) * 3 + ("silu",) * 3,
)
"""dc-ae-f32c32-in-1.0 and -mix-1.0 at a sixteenth of its widths and fewer layers."""
SMALL = AutoencoderDCConfig(
    latent_channels=4,
    attention_head_dim=4,
    encoder_block_types=(RES_BLOCK, VIT_BLOCK),
    decoder_block_types=(RES_BLOCK, VIT_BLOCK),
    encoder_block_out_channels=(8, 16),
    decoder_block_out_channels=(8, 16),
    encoder_layers_per_block=(1, 1),
    decoder_layers_per_block=(1, 1),
    encoder_qkv_multiscales=((), (5,)),
    decoder_qkv_multiscales=((), (5,)),
    decoder_norm_types=("rms_norm",) * 2,
    decoder_act_fns=("silu",) * 2,
    scaling_factor=0.5,
)
VARIANTS = {
    "Sana": SANA,
    "ImageNet": IMAGENET,
    "small": SMALL,
    "no shortcuts": dataclasses.replace(
        SMALL, encoder_out_shortcut=False, decoder_in_shortcut=False, latent_channels=6
    ),
    "two scales": dataclasses.replace(
        SMALL,
        encoder_qkv_multiscales=((), (3, 5)),
        decoder_qkv_multiscales=((), (5, 7)),
        downsample_block_type="conv",
        decoder_conv_act_fn="silu",
    ),
    "batch norm in attention": dataclasses.replace(
        SMALL,
        decoder_norm_types=("rms_norm", "batch_norm"),
        decoder_act_fns=("gelu", "mish"),
        upsample_block_type="interpolate",
    ),
    "heads that do not fill the width": dataclasses.replace(SMALL, attention_head_dim=6),
    "one level": dataclasses.replace(
        SMALL,
        encoder_block_types=(RES_BLOCK,),
        decoder_block_types=(RES_BLOCK,),
        encoder_block_out_channels=(8,),
        decoder_block_out_channels=(4,),
        encoder_layers_per_block=(1,),
        decoder_layers_per_block=(2,),
        encoder_qkv_multiscales=((),),
        decoder_qkv_multiscales=((),),
        decoder_norm_types=("batch_norm",),
        decoder_act_fns=("relu",),
    ),
}


def images(height: int, width: int, count: int = 2) -> np.ndarray:
    shape = (count, height, width, 3)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("name", VARIANTS)
def test_shapes(name):
    config = VARIANTS[name]
    params = dc_ae.init_dc_ae(config, jax.random.key(0))
    side = config.downsample
    z = encode(params, config, images(2 * side, 3 * side))
    assert z.shape == (2, 2, 3, config.latent_channels) and np.isfinite(z).all()
    decoded = decode(params, config, z)
    assert decoded.shape == (2, 2 * side, 3 * side, 3) and np.isfinite(decoded).all()


def test_gradients_are_finite():
    params = dc_ae.init_dc_ae(SMALL, jax.random.key(0))

    @jax.jit
    def loss(params):
        x = images(8, 12)
        return jnp.square(decode(params, SMALL, encode(params, SMALL, x)) - x).mean()

    leaves = jax.tree.leaves(jax.grad(loss)(params))
    assert all(np.isfinite(g).all() for g in leaves)
    assert sum(float(jnp.abs(g).max()) > 0 for g in leaves) > 0.8 * len(leaves)


@pytest.mark.parametrize("name", ["Sana", "ImageNet"])
def test_save_then_load(name, tmp_path):
    config = VARIANTS[name]
    params = dc_ae.init_dc_ae(config, jax.random.key(1))
    dc_ae.save_dc_ae(tmp_path, params, config)
    loaded, loaded_config = dc_ae.load_dc_ae(tmp_path)
    assert loaded_config == config
    assert weights.read_config(tmp_path / "config.json")["_class_name"] == "AutoencoderDC"
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    counters = [n for n in load_file(tmp_path / dc_ae.WEIGHTS) if n.endswith(dc_ae.COUNTER)]
    assert len(counters) == (0 if name == "Sana" else 3)


def test_the_published_size():
    """312 M parameters; in float32 they are the 1.25 GB of the published file."""
    shapes = weights.flatten(dc_ae.dc_ae_shapes(SANA_DC_AE))
    assert sum(math.prod(shape) for shape in shapes.values()) == 312_250_275
    assert (SANA_DC_AE.downsample, SANA_DC_AE.latent_channels) == (32, 32)


def test_configs_survive_the_round_trip():
    for config in (*VARIANTS.values(), SANA_DC_AE):
        assert AutoencoderDCConfig.from_json(config.to_json()) == config
    assert AutoencoderDCConfig.from_json({}) == AutoencoderDCConfig()


def test_one_text_stands_for_all_levels():
    value = SMALL.to_json() | {"decoder_norm_types": "rms_norm", "decoder_act_fns": "silu"}
    assert AutoencoderDCConfig.from_json(value) == SMALL
    value |= {"decoder_norm_types": None, "encoder_block_types": None}
    types = AutoencoderDCConfig.from_json(value).encoder_block_types
    assert types == (RES_BLOCK, RES_BLOCK)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"_class_name": "DCAE"}, "describes a 'DCAE'; known: AutoencoderDC"),
        ({"in_channels": 2}, "in_channels is 2; it must be 3, because images are RGB"),
        ({"latent_channels": 0}, "latent_channels is 0; it must be at least 1"),
        ({"latent_channels": 6}, "latent_channels is 6; the last width 16 of encoder_block_out"),
        ({"latent_channels": "4"}, "latent_channels is '4'; it must be a whole number"),
        ({"attention_head_dim": 17}, "attention_head_dim is 17; it must be at most the width 16"),
        ({"encoder_block_types": "EViTS5_GLU"}, "has 'EViTS5_GLU'; known: Res"),
        ({"encoder_block_types": [RES_BLOCK]}, "one entry for each of the 2 levels of encoder_b"),
        ({"decoder_block_types": [5, 5]}, r"block_types is \[5, 5\]; each entry must be text"),
        ({"decoder_norm_types": "layer_norm"}, "decoder_norm_types has 'layer_norm'; known: rms_n"),
        ({"decoder_act_fns": ["relu6", "silu"]}, "decoder_act_fns has 'relu6'; known: silu"),
        ({"decoder_conv_act_fn": "tanh"}, "decoder_conv_act_fn has 'tanh'; known: silu"),
        ({"encoder_block_out_channels": 8}, "encoder_block_out_channels is 8; it must be a list"),
        ({"encoder_block_out_channels": [8, 0]}, "give one width per level, at least 1"),
        ({"encoder_block_out_channels": []}, "give one width per level"),
        ({"encoder_block_out_channels": [8, True]}, "each entry must be a whole number"),
        ({"encoder_block_out_channels": [6, 16]}, "4 x 6 must be a multiple of the next, 16"),
        ({"decoder_block_out_channels": [6, 16]}, "decoder_block_out_channels .*4 x 6 must be a"),
        ({"encoder_block_out_channels": [8, 2], "attention_head_dim": 2, "latent_channels": 2},
         "2 must be a multiple of 4, because downsample_block_type is 'pixel_unshuffle'"),
        ({"encoder_layers_per_block": [1, 0]}, "only the first of several may be 0"),
        ({"decoder_layers_per_block": [1.5, 1]}, "layers_per_block is .* each entry must be a"),
        ({"encoder_qkv_multiscales": [[], [4]]}, "encoder_qkv_multiscales is .* odd sizes"),
        ({"encoder_qkv_multiscales": [[], 5]}, "encoder_qkv_multiscales is .* must be a list"),
        ({"encoder_qkv_multiscales": [[], [5.0]]}, "each entry must be a whole number"),
        ({"decoder_layers_per_block": [-1, 1]}, "only the first of several may be 0"),
        ({"upsample_block_type": "bilinear"}, "upsample_block_type has 'bilinear'; known: pixel_s"),
        ({"downsample_block_type": "pool"}, "downsample_block_type has 'pool'; known: pixel_uns"),
        ({"encoder_out_shortcut": "yes"}, "encoder_out_shortcut is 'yes'; it must be true or"),
        ({"scaling_factor": 0}, "scaling_factor is 0.0; it must be more than 0, and finite"),
    ],
)  # fmt: skip
def test_foreign_configs_are_refused(change, words):
    with pytest.raises(UsageError, match=words) as error:
        AutoencoderDCConfig.from_json(SMALL.to_json() | change)
    assert "\n" not in str(error.value)


def test_both_sides_have_as_many_levels():
    one, two = VARIANTS["one level"].to_json(), SMALL.to_json()
    mixed = two | {name: entry for name, entry in one.items() if name.startswith("decoder_")}
    with pytest.raises(UsageError, match="decoder_block_out_channels has 1 levels; it must have"):
        AutoencoderDCConfig.from_json(mixed)


def test_image_size_must_divide():
    with pytest.raises(UsageError, match="9x8 is not divisible by the autoencoder's factor 2"):
        dc_ae.encode_images(dc_ae.init_dc_ae(SMALL, jax.random.key(0)), SMALL, images(9, 8))


def test_bfloat16_parameters_give_bfloat16_activations(tmp_path):
    """The error's root mean square is at most 3 % of the values'."""
    dc_ae.save_dc_ae(tmp_path, dc_ae.init_dc_ae(SANA, jax.random.key(1)), SANA)
    wide, narrow = (dc_ae.load_dc_ae(tmp_path, dtype=dtype)[0] for dtype in ("float32", "bfloat16"))
    x = images(96, 64)
    exact = encode(wide, SANA, x)
    pairs = [(encode(narrow, SANA, x), exact)]
    pairs.append((decode(narrow, SANA, exact), decode(wide, SANA, exact)))
    for ours, other in pairs:
        assert ours.dtype == jnp.bfloat16
        difference = rms(np.asarray(ours, np.float32) - other) / rms(other)
        assert 1e-4 < difference < 0.03, difference


CASES = [(name, 2, 3) for name in VARIANTS] + [("Sana", 3, 5), ("Sana", 1, 1), ("small", 2, 2)]


@pytest.mark.parity
@pytest.mark.parametrize(("name", "height", "width"), CASES)
def test_agrees_with_diffusers(name, height, width, tmp_path):
    """On grids of more and of fewer cells than a head is wide, in float32."""
    torch = pytest.importorskip("torch")
    config = VARIANTS[name]
    theirs = their_model(config, tmp_path)
    params, loaded = dc_ae.load_dc_ae(tmp_path)
    assert loaded == config
    x = images(height * config.downsample, width * config.downsample)
    with torch.no_grad():
        latent = theirs.encode(first(torch, x)).latent
        decoded = theirs.decode(latent).sample
    assert latent.shape[2:] == (height, width)
    close(encode(params, config, x), last(latent))
    close(decode(params, config, last(latent)), last(decoded))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["Sana", "ImageNet"])
def test_agrees_with_diffusers_in_bfloat16(name, tmp_path):
    """Both stray from float32 by their rounding, ours by no more than theirs."""
    torch = pytest.importorskip("torch")
    config = VARIANTS[name]
    theirs = their_model(config, tmp_path)
    params, _ = dc_ae.load_dc_ae(tmp_path, dtype="bfloat16")
    x = images(96, 64)
    with torch.no_grad():
        latent = theirs.encode(first(torch, x)).latent
        decoded = theirs.decode(latent).sample
        theirs.to(torch.bfloat16)
        rough_latent = theirs.encode(first(torch, x).bfloat16()).latent.float()
        rough_decoded = theirs.decode(latent.bfloat16()).sample.float()
    for ours, rough, exact in (
        (encode(params, config, x), rough_latent, latent),
        (decode(params, config, last(latent)), rough_decoded, decoded),
    ):
        error, allowed = (rms(x - last(exact)) for x in (np.asarray(ours, np.float32), last(rough)))
        assert 0 < error < 1.25 * allowed < 0.1 * rms(last(exact)), (error, allowed)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["Sana", "ImageNet", "no shortcuts"])
def test_diffusers_opens_what_we_write(name, tmp_path):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    config = VARIANTS[name]
    params = dc_ae.init_dc_ae(config, jax.random.key(2))
    dc_ae.save_dc_ae(tmp_path, params, config)
    theirs, report = diffusers.AutoencoderDC.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    z = np.random.default_rng(0).standard_normal((1, 2, 3, config.latent_channels))
    with torch.no_grad():
        decoded = theirs.eval().decode(first(torch, z.astype(np.float32))).sample
    close(decode(params, config, z.astype(np.float32)), last(decoded))


@pytest.mark.parity
def test_the_full_size_has_the_tensors_of_diffusers():
    """Names, shapes and number of parameters, without memory for them."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    for config in (SANA_DC_AE, full_size_imagenet()):
        with torch.device("meta"):
            model = diffusers.AutoencoderDC.from_config(config.to_json())
        theirs = {
            name: tuple(tensor.shape)
            for name, tensor in model.state_dict().items()
            if not name.endswith(dc_ae.COUNTER)
        }
        params = weights.abstract_params(dc_ae.dc_ae_shapes(config), "float32")
        ours = {
            weights.tensor_name(path): weights._transposed(
                path, np.broadcast_to(0, leaf.shape), out=True
            ).shape
            for path, leaf in weights.flatten(params).items()
        }
        assert ours == theirs
        assert model.spatial_compression_ratio == config.downsample
        side = config.downsample
        z = jax.eval_shape(
            lambda p, x: dc_ae.encode_images(p, config, x),  # noqa: B023
            params,
            jax.ShapeDtypeStruct((1, 2 * side, side, 3), jnp.float32),
        )
        assert z.shape == (1, 2, 1, config.latent_channels)


def full_size_imagenet() -> AutoencoderDCConfig:
    """The config of dc-ae-f128c512-in-1.0: eight levels, the finest without blocks."""
    widths = (128, 256, 512, 512, 1024, 1024, 2048, 2048)
    types = (RES_BLOCK,) * 3 + (VIT_BLOCK,) * 5
    return AutoencoderDCConfig(
        latent_channels=512,
        encoder_block_types=types,
        decoder_block_types=types,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=(0, 4, 8, 2, 2, 2, 2, 2),
        decoder_layers_per_block=(0, 5, 10, 2, 2, 2, 2, 2),
        encoder_qkv_multiscales=((),) * 8,
        decoder_qkv_multiscales=((),) * 8,
        decoder_norm_types=("batch_norm",) * 3 + ("rms_norm",) * 5,
        decoder_act_fns=("relu",) * 3 + ("silu",) * 5,
    )


def their_model(config: AutoencoderDCConfig, directory):
    """A random model of `diffusers` with moments in its batch norms, saved by it."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.AutoencoderDC.from_config(config.to_json()).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    model.save_pretrained(directory)
    return model


def rms(values) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def first(torch, grid: np.ndarray):
    """A tensor with the channels first."""
    return torch.from_numpy(grid.transpose(0, 3, 1, 2).copy())


def last(tensor) -> np.ndarray:
    """An array with the channels last."""
    return tensor.numpy().transpose(0, 2, 3, 1)


def close(ours, theirs: np.ndarray, tolerance: float = 1e-5) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(np.asarray(ours) - theirs).max() <= tolerance * np.abs(theirs).max()
