"""The training step: pieces equal the whole, bad steps are skipped, one compilation."""

import jax
import numpy as np
import pytest
from toys import FROZEN, Poisoned, assert_trees_equal, loader, make, params, poisoned, run_steps

from pinxit.train.step import LossScaling


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_accumulation_equals_the_big_batch(name: str):
    whole, metrics = run_steps(*make(name=name), 5)
    pieces, in_pieces = run_steps(*make(name=name, accumulation=4), 5)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(pieces.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    for a, b in zip(metrics, in_pieces, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
        np.testing.assert_allclose(a["loss_by_t_sum"], b["loss_by_t_sum"], rtol=1e-5)
        np.testing.assert_array_equal(a["loss_by_t_count"], b["loss_by_t_count"])


def test_the_same_twice_and_learning():
    first, metrics = run_steps(*make(), 30)
    second, _ = run_steps(*make(), 30)
    assert_trees_equal(first, second)
    losses = [m["loss"] for m in metrics]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_the_step_compiles_once():
    traces = []

    class Counting(Poisoned):
        def loss(self, model, batch, *, key):
            traces.append(1)
            return super().loss(model, batch, key=key)

    run_steps(*make(objective=Counting()), 6)
    assert len(traces) == 1


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted():
    step, state = make(objective=poisoned(2, 3, 5))
    before, _ = run_steps(step, state, 2)
    kept = jax.device_get((before.params, before.ema, before.opt_state))
    after, metrics = run_steps(step, before, 2)
    assert_trees_equal(jax.tree.leaves(kept[0]), jax.tree.leaves(jax.device_get(after.params)))
    assert_trees_equal(kept[1:], jax.device_get((after.ema, after.opt_state)))
    assert [m["consecutive"] for m in metrics] == [1, 2]
    after, metrics = run_steps(step, after, 4)
    assert [m["consecutive"] for m in metrics] == [0, 1, 0, 0]
    assert int(after.skipped) == 3
    assert int(after.step) == 8
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.ema))


def test_loss_scaling_changes_nothing_but_reacts_to_overflow():
    plain, _ = run_steps(*make(), 4)
    scaled, _ = run_steps(*make(loss_scaling=LossScaling(initial=1024.0)), 4)
    for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(scaled.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    scaling = LossScaling(initial=1024.0, growth_interval=2)
    _, metrics = run_steps(*make(loss_scaling=scaling, objective=poisoned(3)), 6)
    assert [float(m["loss_scale"]) for m in metrics] == [1024, 2048, 2048, 1024, 1024, 2048]


def test_the_state_is_donated():
    step, state = make()
    kernel = state.params["out"]["kernel"]
    step(state, FROZEN, loader().batch(0))
    assert kernel.is_deleted()


def test_parameters_are_not_shared_with_their_averages():
    _, state = make()
    assert_trees_equal(state.ema["ema_0.1"], params())
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state.params, state.ema))]
    assert len(set(pointers)) == len(pointers)
