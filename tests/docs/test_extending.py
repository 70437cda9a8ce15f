"""The additions that docs/extending.md shows do what the page says."""

import io
import re
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from pinxit.arrays import Batch, Conditioning

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))


@pytest.fixture
def extensions(monkeypatch):
    """The names that docs/extending.md defines; its additions are taken back afterwards."""
    from pinxit.encoders.text_encoder_catalogue import TEXT_ENCODERS
    from pinxit.flow.solvers import SOLVERS
    from pinxit.train.datasets import DATASETS

    before = [(table, dict(table)) for table in (SOLVERS, DATASETS, TEXT_ENCODERS)]
    names: dict = {}
    exec(compile(blocks("docs/extending.md"), "docs/extending.md", "exec"), names)
    yield names
    for table, old in before:
        table.clear()
        table.update(old)


def nothing(count: int) -> Conditioning:
    return Conditioning(jnp.zeros((count, 1, 1)), jnp.ones((count, 1), bool))


def test_the_solver_has_order_two(extensions):
    """dx/dt = x from t = 1 to 0 ends at x / e."""

    def error(steps: int) -> float:
        times = jnp.linspace(1.0, 0.0, steps + 1)
        x = jnp.ones((1, 1, 1, 1))
        end = extensions["ralston"](lambda x, t, c: x, x, times, nothing(1))
        return abs(float(end[0, 0, 0, 0]) - np.exp(-1))

    assert error(4) / error(8) == pytest.approx(4, rel=0.25)


def test_the_objective_is_zero_for_the_exact_velocity(extensions):
    objective = extensions["HuberFlowMatching"]()
    latents = jnp.zeros((4, 2, 2, 1))
    batch = Batch(latents, nothing(4), jnp.arange(4), nothing(1))
    # With latents of zero, x_t = t * noise and the velocity is the noise.
    exact = lambda x_t, t, c: x_t / t[:, None, None, None]  # noqa: E731
    loss, _ = objective.loss(exact, batch, key=jax.random.key(0))
    assert float(loss) < 1e-6
    assert float(objective.loss(lambda x, t, c: 0 * x, batch, key=jax.random.key(0))[0]) > 0.3


def test_a_run_with_an_objective_of_ones_own(extensions, bundle, tmp_path):
    from pinxit.train.run import run
    from pinxit.train.run_folder import claim
    from pinxit.train.settings import EvalConfig, SampleGridConfig, Sampling

    config = replace(
        extensions["config"], text_encoder=str(bundle), vae=str(bundle), image_size=16,
        dataset_size=8, batch_size=4, max_steps=2, sample_interval=0, log_interval=1,
        output_dir=str(tmp_path), evaluation=EvalConfig(prompts=0, images=0),
        sampling=Sampling(steps=1),
        samples=SampleGridConfig(prompts=("red",), seeds=(0,)),
    )  # fmt: skip
    assert run(config, [], console=Console(file=io.StringIO())).status == "finished"
    claim(replace(config, max_steps=4).resolved())
    other = replace(config, max_steps=4, objective=extensions["HuberFlowMatching"](scale=0.3))
    with pytest.raises(ValueError, match=r"objective.scale \(was 0.2, is 0.3\)"):
        claim(other.resolved())


def test_the_dataset_is_deterministic_and_splits_differ(extensions):
    rows = extensions["discs"](5, 32, seed=0, split="train")
    np.testing.assert_array_equal(rows[3].image, rows[3].image)
    held_out = extensions["discs"](5, 32, seed=0, split="heldout")
    assert any((rows[i].image != held_out[i].image).any() for i in range(5))
    assert ("red" in rows[0].caption) == bool(rows[0].image[..., 0].any())


def test_the_metric_is_a_generator_of_names_and_values(extensions):
    class White:
        def generate(self, prompts, *, output_type):
            return np.full((len(prompts), 4, 4, 3), 255, np.uint8)

    assert list(extensions["brightness"](White(), ["a", "b"])) == [
        ("brightness/a", 1.0),
        ("brightness/b", 1.0),
    ]
