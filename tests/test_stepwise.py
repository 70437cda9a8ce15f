"""Drawing step by step gives the bytes of drawing in one program."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from steps_of_pictures import started, step_by_step
from toy_pipeline import toy_model

from pinxit.flow.solvers import SOLVERS
from pinxit.model_loading import load_checkpoint
from pinxit.stepwise import StepBatch, has_steps

NOISE = np.random.default_rng(0)
IMAGE = Image.fromarray(NOISE.integers(0, 255, (80, 100, 3), np.uint8))
MASK = Image.fromarray((np.indices((80, 100))[1] * 2).astype(np.uint8))
GUIDANCE = {
    "on": {},
    "off": {"guidance_scale": 1.0},
    "interval": {"guidance_interval": (0.3, 0.8)},
    "zero_star": {"cfg_zero_star": True},
    "zero_init": {"zero_init": 0.3},
}
FORMS = {
    "even": {},
    "diffusers": {"spacing": "diffusers", "shift": 3.0},
    "one_step": {"steps": 1},
    "odd_size": {"size": (48, 80)},
    "image": {"image": IMAGE, "strength": 0.7},
    "masked": {"image": IMAGE, "mask": MASK},
}


@pytest.fixture(scope="module")
def toy():
    return toy_model(steps=5)


@pytest.fixture(scope="module")
def shipped():
    return load_checkpoint()


@pytest.fixture
def batched(monkeypatch):
    """Pictures are computed in batches, as on an accelerator."""
    for place in ("pinxit.pipeline", "pinxit.drawing"):
        monkeypatch.setattr(f"{place}.one_by_one", lambda: False)


def assert_equal_to_generate(model, **settings):
    settings = {"prompt": "a red circle", "seed": 7} | settings
    expected = model.generate(**settings, output_type="latent")
    (latents,) = step_by_step(model, [model.order(**settings)])
    np.testing.assert_array_equal(latents, np.asarray(expected))


@pytest.mark.parametrize(
    ("solver", "guidance", "form"),
    [
        ("euler", "on", "image"),
        ("heun", "zero_init", "odd_size"),
        ("dpmpp_2m", "interval", "masked"),
    ],
)
def test_a_picture_has_the_bytes_of_generate(toy, solver, guidance, form):
    assert_equal_to_generate(toy, solver=solver, **GUIDANCE[guidance], **FORMS[form])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_shipped_model_draws_the_bytes_of_generate(shipped, solver, guidance, form):
    assert_equal_to_generate(shipped, solver=solver, **GUIDANCE[guidance], **FORMS[form])


def test_other_prompts_steps_seeds_and_scales_use_one_program(toy):
    from pinxit import stepwise

    orders = [toy.order("a tree", solver="euler"), toy.order("a house", steps=3, solver="euler")]
    orders.append(toy.order("a car", seed=9, guidance_scale=3.5, shift=2.0, solver="euler"))
    step_by_step(toy, orders[:1])
    before = stepwise._advance._cache_size()
    step_by_step(toy, orders)
    assert stepwise._advance._cache_size() == before


@pytest.mark.parametrize(
    "shared",
    [
        {"solver": "heun"},
        pytest.param(
            {"guidance_interval": (0.3, 0.8), "solver": "dpmpp_2m"}, marks=pytest.mark.slow
        ),
    ],
)
def test_rows_at_different_steps_do_not_change_each_other(toy, batched, shared):
    """Five pictures share four rows, and join and leave at different steps."""
    settings = [
        {"prompt": "a tree", "seed": 3},
        {"prompt": "a red house", "steps": 3, "guidance_scale": 3.5},
        {"prompt": "a car", "negative_prompt": "blue", "shift": 2.0},
        {"prompt": "", "seed": 11, "spacing": "diffusers"},
        {"prompt": "a boat", "steps": 3},
    ]
    orders = [toy.order(**each, **shared) for each in settings]
    assert {order.batch_size for order in orders} == {4}
    together = step_by_step(toy, orders)
    for each, order, latents in zip(settings, orders, together, strict=True):
        expected = toy.generate(**each, **shared, output_type="latent")
        np.testing.assert_array_equal(step_by_step(toy, [order])[0], np.asarray(expected))
        np.testing.assert_array_equal(latents, np.asarray(expected))


@pytest.mark.slow
def test_masks_of_several_pictures_share_a_batch(toy, batched):
    other = Image.fromarray(255 - np.asarray(MASK))
    settings = [
        {"image": IMAGE, "mask": MASK},
        {"image": IMAGE.rotate(180), "mask": other, "steps": 3, "strength": 0.8},
    ]
    orders = [toy.order("a tree", **each) for each in settings]
    for each, latents in zip(settings, step_by_step(toy, orders), strict=True):
        expected = toy.generate("a tree", **each, output_type="latent")
        np.testing.assert_array_equal(latents, np.asarray(expected))


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_predictions_approach_the_picture(toy, solver):
    order = toy.order("a tree", steps=8, solver=solver)
    form, picture = started(toy, order, 0)
    batch = StepBatch(form, toy.params)
    row, errors, predictions = batch.add(picture), [], []
    while not batch.is_finished(row):
        predictions.append(np.asarray(batch.advance())[row])
    end = np.asarray(batch.latents(row))[0]
    errors = [float(np.abs(each - end).mean()) for each in predictions]
    assert errors[-1] < 0.3 * errors[0]
    assert errors[-1] < 0.05
    if solver == "euler":
        np.testing.assert_allclose(predictions[-1], end, atol=1e-6)


@pytest.mark.parametrize(
    ("solver", "steps"),
    [
        ("euler", [1, 2, 3]),
        ("dpmpp_2m", [1, 2, 3]),
        ("heun", [0, 1, 1, 2, 3]),
        ("midpoint", [0, 1, 1, 2, 2, 3]),
    ],
)
def test_steps_are_counted_when_they_are_complete(toy, solver, steps):
    _, picture = started(toy, toy.order("a tree", steps=3, solver=solver), 0)
    evaluations = range(1, picture.evaluations + 1)
    assert [picture.steps_after(count) for count in evaluations] == steps


def test_a_users_own_solver_has_no_steps(monkeypatch):
    monkeypatch.setitem(SOLVERS, "own", lambda velocity_fn, x, times, conditioning: x)
    assert not has_steps("own")
    assert all(has_steps(name) for name in SOLVERS if name != "own")


def test_rows_are_given_out_once(toy, batched):
    form, picture = started(toy, toy.order("a tree"), 0)
    batch = StepBatch(form, toy.params)
    rows = [batch.add(picture) for _ in range(4)]
    assert sorted(rows) == [0, 1, 2, 3] and batch.free == 0
    with pytest.raises(StopIteration):
        batch.add(picture)
    batch.remove(2)
    assert (batch.free, batch.add(picture)) == (1, 2)
    batch.advance()
    batch.advance()
    assert [batch.evaluations(row) for row in range(4)] == [2, 2, 2, 2]
