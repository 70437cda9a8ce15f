"""Classifier-free guidance, its interval, and CFG-Zero*."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.arrays import Conditioning
from pinxit.flow.guidance import Guidance, GuidanceForm, guided

BATCH = 3


def make(values):
    tokens = jnp.asarray(values, jnp.float32)[:, None, None]
    return Conditioning(tokens=tokens, mask=jnp.ones(tokens.shape[:2], bool))


CONDITIONING, NULL = make([1.0, 2.0, 3.0]), make([-1.0])
X = jax.random.normal(jax.random.key(0), (BATCH, 2, 2, 1))
T = jnp.array([0.1, 0.5, 0.9])


def field(x_t, t, conditioning):
    """Differs by sample, time and conditioning."""
    token = conditioning.tokens[:, :1, :1, None]
    return jnp.sin(x_t * token) + t[:, None, None, None] * token


def with_guidance(velocity_fn, null, guidance):
    return guided(velocity_fn, null, guidance.form, guidance.numbers())


def conditional():
    return field(X, T, CONDITIONING)


def unconditional():
    return field(X, T, make([-1.0] * BATCH))


@pytest.mark.parametrize("scale", [0.0, 2.5, 7.5])
def test_guidance_is_null_plus_scale_times_the_difference(scale):
    expected = unconditional() + scale * (conditional() - unconditional())
    actual = with_guidance(field, NULL, Guidance(scale=scale))(X, T, CONDITIONING)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_scale_one_makes_no_second_evaluation():
    assert with_guidance(field, NULL, Guidance(scale=1.0)) is field


def test_both_evaluations_are_one_doubled_batch():
    sizes = []

    def counting(x_t, t, conditioning):
        sizes.append((x_t.shape[0], t.shape[0], conditioning.tokens.shape[0]))
        return field(x_t, t, conditioning)

    with_guidance(counting, NULL, Guidance(scale=3.0))(X, T, CONDITIONING)
    assert sizes == [(2 * BATCH, 2 * BATCH, 2 * BATCH)]


def test_outside_the_interval_the_prompt_is_followed_plainly():
    guidance = Guidance(scale=3.0, interval=(0.3, 0.8))
    actual = with_guidance(field, NULL, guidance)(X, T, CONDITIONING)
    strong = unconditional() + 3.0 * (conditional() - unconditional())
    expected = np.where((np.arange(BATCH) == 1)[:, None, None, None], strong, conditional())
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("t", "evaluations"), [(0.5, 2 * BATCH), (0.9, BATCH)])
def test_outside_the_interval_half_the_work_is_done(t, evaluations):
    rows = []

    def counting(x_t, t, conditioning):
        jax.debug.callback(lambda x: rows.append(x.shape[0]), x_t)
        return field(x_t, t, conditioning)

    guidance = Guidance(scale=3.0, interval=(0.3, 0.8))
    jax.jit(with_guidance(counting, NULL, guidance))(X, jnp.full(BATCH, t), CONDITIONING)
    jax.effects_barrier()
    assert rows == [evaluations]


def test_zero_star_scales_the_null_velocity_by_its_projection():
    actual = with_guidance(field, NULL, Guidance(scale=3.0, zero_star=True))(X, T, CONDITIONING)
    c, u = np.asarray(conditional()), np.asarray(unconditional())
    s = np.sum(c * u, (1, 2, 3), keepdims=True) / np.sum(u * u, (1, 2, 3), keepdims=True)
    np.testing.assert_allclose(actual, s * u + 3.0 * (c - s * u), rtol=1e-4, atol=1e-5)


def test_zero_init_holds_still_at_the_start():
    guidance = Guidance(scale=3.0, zero_init=0.2)
    actual = with_guidance(field, NULL, guidance)(X, T, CONDITIONING)
    expected = with_guidance(field, NULL, Guidance(scale=3.0))(X, T, CONDITIONING)
    np.testing.assert_array_equal(actual[2], np.zeros_like(X[2]))
    np.testing.assert_allclose(actual[:2], expected[:2])


def test_a_negative_prompt_may_differ_by_sample():
    null = make([-1.0, 0.0, 1.0])
    expected = field(X, T, null) + 2.0 * (conditional() - field(X, T, null))
    actual = with_guidance(field, null, Guidance(scale=2.0))(X, T, CONDITIONING)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({}, GuidanceForm()),
        ({"scale": 1.0, "zero_star": True, "interval": (0.1, 0.9)}, GuidanceForm(on=False)),
        ({"interval": (0.1, 1.0)}, GuidanceForm(limited=True)),
        ({"zero_star": True, "zero_init": 0.1}, GuidanceForm(zero_star=True, zero_init=True)),
    ],
)
def test_the_form_says_which_parts_are_in_use(fields, form):
    assert Guidance(**fields).form == form


def test_the_numbers_are_arguments_of_one_program():
    traces = []

    @partial(jax.jit, static_argnames="form")
    def velocity(numbers, form):
        traces.append(form)
        return guided(field, NULL, form, numbers)(X, T, CONDITIONING)

    for fields in ({"scale": 2.0}, {"scale": 7.5}, {"scale": 1.0}, {"interval": (0.3, 0.8)},
                   {"interval": (0.0, 0.6), "scale": 2.0}):  # fmt: skip
        guidance = Guidance(**fields)
        expected = with_guidance(field, NULL, guidance)(X, T, CONDITIONING)
        actual = velocity(guidance.numbers(), guidance.form)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    assert traces == [GuidanceForm(), GuidanceForm(on=False), GuidanceForm(limited=True)]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"interval": (0.8, 0.3)}, "interval: .*0 <= low < high <= 1"),
        ({"zero_init": 1.0}, "zero_init: 1.0 is not valid"),
    ],
)
def test_wrong_settings_are_named(fields, words):
    with pytest.raises(ValueError, match=words):
        Guidance(**fields)
