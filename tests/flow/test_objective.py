"""Flow matching: the loss, caption dropout, independence of how a batch is cut, loss by time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.arrays import Batch, Conditioning
from pinxit.flow.objective import FlowMatching
from pinxit.flow.path import interpolate
from pinxit.flow.time import TimeSampling

KEY = jax.random.key(7)
SIZE = 64


def make_batch(size=SIZE):
    rng = np.random.default_rng(0)
    conditioning = Conditioning(
        tokens=rng.normal(size=(size, 3, 5)).astype(np.float32),
        mask=np.arange(3)[None, :] < rng.integers(1, 4, (size, 1)),
        pooled=rng.normal(size=(size, 2)).astype(np.float32),
    )
    null = Conditioning(
        tokens=np.full((1, 3, 5), 9.0, np.float32),
        mask=np.array([[True, True, False]]),
        pooled=np.full((1, 2), -9.0, np.float32),
    )
    latents = rng.normal(size=(size, 4, 4, 2)).astype(np.float32)
    return Batch(latents=latents, conditioning=conditioning, index=np.arange(size) + 100, null=null)


def rows(batch, chosen):
    conditioning = jax.tree.map(lambda x: x[chosen], batch.conditioning)
    return dataclasses.replace(
        batch,
        latents=batch.latents[chosen],
        conditioning=conditioning,
        index=batch.index[chosen],
    )


class Recorder:
    """A model that remembers what it was fed and answers something that depends on all of it."""

    def __call__(self, x_t, t, conditioning):
        self.x_t, self.t, self.conditioning = x_t, t, conditioning
        hint = jnp.mean(conditioning.tokens, axis=(1, 2)) * t
        return 0.3 * x_t + hint[:, None, None, None]


def test_a_perfect_model_has_no_loss():
    batch, objective = make_batch(), FlowMatching()
    noise, _, _ = objective.draw(KEY, batch)

    def perfect(x_t, t, conditioning):
        return noise - batch.latents

    assert float(objective.loss(perfect, batch, key=KEY)[0]) == 0


def test_the_loss_is_the_mean_squared_error_to_the_velocity():
    batch, objective, model = make_batch(), FlowMatching(), Recorder()
    loss, metrics = objective.loss(model, batch, key=KEY)
    noise, t, _ = objective.draw(KEY, batch)
    x_t = interpolate(jnp.asarray(batch.latents), noise, t)
    np.testing.assert_allclose(model.x_t, x_t)
    answer = model(x_t, t, model.conditioning)
    expected = np.mean((answer - (noise - batch.latents)) ** 2)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-6)


def test_dropped_captions_are_exactly_the_null_conditioning_and_others_untouched():
    batch, objective, model = make_batch(), FlowMatching(caption_dropout=0.4), Recorder()
    objective.loss(model, batch, key=KEY)
    _, _, dropped = objective.draw(KEY, batch)
    assert 0.2 < np.mean(dropped) < 0.6
    fed = model.conditioning
    for name in ("tokens", "mask", "pooled"):
        kept, null = getattr(batch.conditioning, name), getattr(batch.null, name)
        for i, drop in enumerate(np.asarray(dropped)):
            np.testing.assert_array_equal(getattr(fed, name)[i], null[0] if drop else kept[i])


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_dropout_of_none_and_all(dropout):
    _, _, dropped = FlowMatching(caption_dropout=dropout).draw(KEY, make_batch())
    assert np.all(np.asarray(dropped) == bool(dropout))


@pytest.mark.parametrize("parts", [2, 8])
def test_the_result_does_not_depend_on_how_the_batch_is_cut(parts):
    batch, objective, model = make_batch(), FlowMatching(), Recorder()
    whole, metrics = objective.loss(model, batch, key=KEY)
    order = np.random.default_rng(1).permutation(SIZE)
    cut = [objective.loss(model, rows(batch, part), key=KEY) for part in np.split(order, parts)]
    np.testing.assert_allclose(np.mean([loss for loss, _ in cut]), whole, rtol=1e-5)
    for name in ("loss_by_t_sum", "loss_by_t_count"):
        total = sum(part[name] for _, part in cut)
        np.testing.assert_allclose(total, metrics[name], rtol=1e-5)


def test_draws_depend_on_the_index_and_the_key():
    batch, objective = make_batch(), FlowMatching()
    again = objective.draw(KEY, rows(batch, np.array([5])))
    for drawn, single in zip(objective.draw(KEY, batch), again, strict=True):
        np.testing.assert_array_equal(drawn[5], single[0])
    _, t, _ = objective.draw(KEY, batch)
    assert np.unique(t).size == SIZE
    _, other, _ = objective.draw(jax.random.key(8), batch)
    assert not np.any(np.asarray(t) == np.asarray(other))


def test_loss_by_time_sums_to_the_loss_and_counts_to_the_batch():
    batch, model = make_batch(), Recorder()
    objective = FlowMatching(time=TimeSampling("uniform"), bins=4)
    loss, metrics = objective.loss(model, batch, key=KEY)
    _, t, _ = objective.draw(KEY, batch)
    expected = np.histogram(t, bins=4, range=(0, 1))[0]
    np.testing.assert_array_equal(metrics["loss_by_t_count"], expected)
    np.testing.assert_allclose(metrics["loss_by_t_sum"].sum() / SIZE, loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"caption_dropout": 1.5}, "caption_dropout: 1.5 is not valid; it must be from 0 to 1"),
        ({"bins": 0}, "bins: 0 is not valid; it must be at least 1"),
    ],
)
def test_wrong_settings_are_named(fields, words):
    with pytest.raises(ValueError, match=words):
        FlowMatching(**fields)
