"""The network: config, functional face, equal ways to run it, masking, learning."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pinxit.arrays import Conditioning
from pinxit.models.transformer import (
    PRESETS,
    TransformerConfig,
    abstract,
    apply,
    init_params,
    preset,
)

DEBUG = preset("debug", context_dim=16)
BATCH, LENGTH = 4, 5


def make_inputs(config, batch=BATCH, height=8, width=6):
    keys = jax.random.split(jax.random.key(3), 3)
    x_t = jax.random.normal(keys[0], (batch, height, width, config.in_channels))
    tokens = jax.random.normal(keys[1], (batch, LENGTH, config.context_dim))
    mask = jnp.arange(LENGTH)[None, :] < jnp.array([5, 3, 2, 1])[:batch, None]
    return x_t, jnp.linspace(0.1, 0.9, batch), Conditioning(tokens=tokens, mask=mask)


@functools.cache
def awake_params(config):
    """Random parameters with nothing at zero, so that the blocks have an effect."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        spread = leaf.shape[-2] ** -0.5 if path[-1].key == "kernel" else 0.1
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(centre + spread * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree.map_with_path(draw, abstract(config)[1])


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, x_t, t, conditioning):
    return apply(config, params, x_t, t, conditioning)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_shape(name):
    config = preset(name)
    _, params = abstract(config)
    for leaf in jax.tree.leaves(params["blocks"]):
        assert leaf.shape[0] == config.depth
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_heads": 3}, "num_heads: 3 does not divide hidden_size 64; valid: 1, 2, 4, 8, 16"),
        ({"num_heads": 64}, "num_heads: 64 gives heads of width 1; .*even and at least 4"),
        ({"depth": 0}, "depth: 0 is not valid; it must be at least 1"),
        ({"patch_size": -2}, "patch_size: -2 is not valid"),
        ({"modulation_rank": -1}, "modulation_rank: -1 is not valid; it must be 0"),
        ({"rope_theta": 1.0}, "rope_theta: 1.0 is not valid; it must be more than 1"),
        ({"bottleneck_size": 0}, "bottleneck_size: 0 is not valid"),
        ({"width": 3}, "model: unknown field 'width'; known: hidden_size, depth"),
    ],
)
def test_wrong_fields_are_named(fields, words):
    with pytest.raises(ValueError, match=words):
        preset("debug", **fields)


@pytest.mark.parametrize("name", ["modulation", "prediction", "dtype", "attention", "remat"])
def test_unknown_choices_are_named(name):
    config = preset("debug")
    object.__setattr__(config, name, "wrong")  # as where types are not checked
    with pytest.raises(ValueError, match=f"{name}: unknown 'wrong'; known: {getattr(DEBUG, name)}"):
        config.__post_init__()


def test_an_unknown_preset_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown 'huge'; known: debug, tiny, small, base, large"):
        preset("huge")


@pytest.mark.parametrize(
    ("height", "channels", "context", "words"),
    [
        (7, 4, 16, "7x6 cells does not divide.*patch_size 2"),
        (8, 3, 16, "3 channels; in_channels is 4"),
        (8, 4, 12, "tokens of width 12; context_dim is 16"),
    ],
)
def test_wrong_inputs_are_named(height, channels, context, words):
    _, params = abstract(DEBUG)
    shapes = dataclasses.replace(DEBUG, in_channels=channels, context_dim=context)
    x_t, t, conditioning = make_inputs(shapes, height=height)
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(functools.partial(apply, DEBUG), params, x_t, t, conditioning)


def test_parameters_are_plain_nested_dicts_and_start_silent():
    params = init_params(DEBUG, jax.random.key(0))
    graphdef, shapes = abstract(DEBUG)
    assert hash(graphdef) == hash(abstract(DEBUG)[0])
    assert type(params) is type(params["blocks"]["attention"]) is dict
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    output = forward(DEBUG, params, *make_inputs(DEBUG))
    np.testing.assert_array_equal(output, np.zeros_like(output))


def test_the_same_key_gives_the_same_parameters_and_layers_differ():
    one, two = (init_params(DEBUG, jax.random.key(5)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    kernel = np.asarray(one["blocks"]["attention"]["query"]["kernel"])
    assert np.abs(kernel[0] - kernel[1]).max() > 0.01
    assert kernel.std() == pytest.approx((1 / DEBUG.hidden_size) ** 0.5, rel=0.05)


@functools.cache
def loss_and_gradient(config):
    inputs = make_inputs(config)

    def loss(params):
        return jnp.mean(jnp.square(apply(config, params, *inputs)))

    return jax.jit(jax.value_and_grad(loss))(awake_params(config))


@pytest.mark.parametrize(
    "changes",
    [
        {"scan_blocks": False},
        {"scan_blocks": False, "remat": "dots"},
        {"remat": "full"},
        {"remat": "dots"},
        {"remat": "dots", "scan_unroll": 2},
        {"remat": "offload"},
    ],
    ids=str,
)
def test_scanned_unrolled_and_rematerialised_agree(changes):
    loss, gradient = loss_and_gradient(DEBUG)
    config = dataclasses.replace(DEBUG, **changes)
    other_loss, other_gradient = loss_and_gradient(config)
    np.testing.assert_allclose(other_loss, loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5),
        other_gradient,
        gradient,
    )


def test_padding_has_no_effect_and_text_has():
    params = awake_params(DEBUG)
    x_t, t, conditioning = make_inputs(DEBUG)
    output = forward(DEBUG, params, x_t, t, conditioning)
    noise = jax.random.normal(jax.random.key(9), conditioning.tokens.shape)
    visible = conditioning.mask[:, :, None]
    padding = jnp.where(visible, conditioning.tokens, noise)
    other = dataclasses.replace(conditioning, tokens=padding)
    np.testing.assert_array_equal(forward(DEBUG, params, x_t, t, other), output)
    words = dataclasses.replace(conditioning, tokens=jnp.where(visible, noise, padding))
    changed = np.abs(forward(DEBUG, params, x_t, t, words) - output)
    assert np.all(changed.max(axis=(1, 2, 3)) > 1e-3)


def test_samples_of_a_batch_do_not_meet():
    params, (x_t, t, conditioning) = awake_params(DEBUG), make_inputs(DEBUG)
    whole = forward(DEBUG, params, x_t, t, conditioning)
    single = jax.tree.map(lambda x: x[2:3], (x_t, t, conditioning))
    np.testing.assert_allclose(forward(DEBUG, params, *single), whole[2:3], atol=1e-5)


def test_the_model_tells_places_apart():
    """Equal patches answer differently by their place next to one that differs."""
    params, (x_t, t, conditioning) = awake_params(DEBUG), make_inputs(DEBUG)
    flat = jnp.zeros_like(x_t).at[:, :2, :2].set(1.0)
    output = np.asarray(forward(DEBUG, params, flat, t, conditioning))
    assert np.abs(output[:, 0, 4] - output[:, 6, 4]).max() > 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_computes_near_fp32_with_fp32_parameters_and_output(dtype):
    config = dataclasses.replace(DEBUG, dtype=dtype)
    params, inputs = awake_params(DEBUG), make_inputs(DEBUG)
    exact = forward(DEBUG, params, *inputs)
    with jax.numpy_dtype_promotion("strict"):  # a silent mix of dtypes would raise
        rough = forward(config, params, *inputs)
        graph = str(jax.make_jaxpr(functools.partial(apply, config))(params, *inputs))
    assert rough.dtype == jnp.float32
    assert "bf16" in graph or "f16" in graph
    error = np.abs(np.asarray(rough - exact)).mean() / np.abs(np.asarray(exact)).mean()
    assert 1e-6 < error < 0.05
    shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


def test_a_prediction_of_latents_becomes_a_velocity():
    config = dataclasses.replace(DEBUG, prediction="latents")
    params, (x_t, _, conditioning) = awake_params(DEBUG), make_inputs(DEBUG)
    t = jnp.array([0.0, 0.02, 0.5, 1.0])
    raw = forward(DEBUG, params, x_t, t, conditioning)
    floor = np.array([0.05, 0.05, 0.5, 1.0])[:, None, None, None]
    actual = forward(config, params, x_t, t, conditioning)
    np.testing.assert_allclose(actual, (x_t - raw) / floor, rtol=1e-5, atol=1e-5)


def test_a_bottleneck_and_resolution_embeddings_take_part():
    config = preset(
        "debug", context_dim=16, bottleneck_size=6, resolution_embeds=True, in_channels=3
    )
    params = awake_params(config)
    assert params["bottleneck_in"]["kernel"].shape == (12, 6)
    inputs = make_inputs(config)
    embedder = jax.tree.map(jnp.zeros_like, params["resolution_in"])
    without = forward(config, params | {"resolution_in": embedder}, *inputs)
    assert np.abs(forward(config, params, *inputs) - without).max() > 1e-3


def test_the_debug_preset_memorises_four_samples_and_every_parameter_learns():
    x_t, t, conditioning = make_inputs(DEBUG)
    target = jax.random.normal(jax.random.key(4), x_t.shape)
    optimizer = optax.adam(3e-3)

    def loss_of(params):
        return jnp.mean(jnp.square(apply(DEBUG, params, x_t, t, conditioning) - target))

    @jax.jit
    def step(params, state):
        loss, gradient = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    start = params = init_params(DEBUG, jax.random.key(0))
    state, losses = optimizer.init(params), []
    for number in range(200):
        params, state, loss = step(params, state)
        losses.append(float(loss))
        if number == 4:
            unmoved = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), start, params)
            assert not any(jax.tree.leaves(unmoved)), unmoved
    print("first loss", losses[0], "last", losses[-1])
    assert losses[1] < losses[0]
    assert losses[-1] < 0.01 * losses[0]


def test_a_config_makes_its_own_functions_only_once():
    assert abstract(TransformerConfig(64, 2, 2)) is abstract(TransformerConfig(64, 2, 2))


def test_maps_per_block_start_silent_and_have_no_correction():
    config = dataclasses.replace(DEBUG, modulation="per_block", modulation_rank=7)
    assert config.modulation_rank == 0
    assert config == dataclasses.replace(DEBUG, modulation="per_block")
    params = init_params(config, jax.random.key(0))
    assert set(params["blocks"]["modulation"]) == {"kernel", "bias"}
    output = forward(config, params, *make_inputs(config))
    np.testing.assert_array_equal(output, np.zeros_like(output))
