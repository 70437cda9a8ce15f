"""Runs that an older version began, and objectives that say only their loss."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import pytest
from older_checkpoint import to_version_1
from rich.console import Console

from pinxit.checkpoint_files import arrays_of_checkpoint
from pinxit.cli.arguments import parse
from pinxit.cli.train_aliases import TRAIN_ALIASES
from pinxit.config import to_json
from pinxit.encoders.weights import flatten
from pinxit.flow.objective import OBJECTIVES, FlowMatching, velocity_error
from pinxit.stored_model import read_model
from pinxit.train.run import run
from pinxit.train.settings import (
    EmaConfig,
    EvalConfig,
    ModelConfig,
    SampleGridConfig,
    Sampling,
    TrainConfig,
    config_from_json,
)


@pytest.fixture
def config(bundle: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        name="old",
        dataset_name="mock",
        dataset_size=12,
        image_size=16,
        batch_size=4,
        max_steps=1,
        log_interval=1,
        sample_interval=0,
        text_encoder=str(bundle),
        vae=str(bundle),
        output_dir=str(tmp_path),
        model=ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2),
        ema=EmaConfig(lengths=(0.1,)),
        sampling=Sampling(steps=1, guidance_scale=2.0),
        samples=SampleGridConfig(prompts=("red light",), seeds=(3,)),
        evaluation=EvalConfig(prompts=0, images=10, batch_size=10),
    )


def as_before(config: dict) -> dict:
    """The settings as versions wrote them whose grids were part of the sampling settings."""
    old = json.loads(json.dumps(config))
    grid = old.pop("samples")
    old["sampling"] |= {name: grid[name] for name in ("prompts", "seeds")}
    for name in ("guidance_interval", "cfg_zero_star", "zero_init"):
        del old["sampling"][name]
    del old["objective"]["kind"]
    return old


def test_older_settings_are_read(config: TrainConfig):
    assert config_from_json(as_before(to_json(config))) == config
    assert config_from_json(to_json(config)) == config


def test_older_names_of_options_are_understood():
    words = ["--sampling.prompts", "a", "b", "--sampling.seeds", "7"]
    samples = parse(TrainConfig, words, default=TrainConfig(), aliases=TRAIN_ALIASES).samples
    assert samples == SampleGridConfig(prompts=("a", "b"), seeds=(7,))


def test_a_run_of_an_older_version_goes_on_and_is_read(config: TrainConfig):
    console = Console(file=io.StringIO(), width=200)
    folder = run(config, ["pinxit"], console=console).folder
    (checkpoint,) = (folder / "checkpoints").glob("step_*")
    saved = json.loads((checkpoint / "run.json").read_text())
    saved["config"] = as_before(saved["config"])
    (checkpoint / "run.json").write_text(json.dumps(saved))
    before = arrays_of_checkpoint(checkpoint)
    to_version_1(checkpoint)
    assert (checkpoint / "state").is_dir() and not list(checkpoint.glob("*.safetensors"))
    (folder / "config.json").write_text(json.dumps(saved["config"]))
    assert read_model(folder).sampling == {
        "steps": 1, "guidance_scale": 2.0, "solver": "euler", "shift": 1.0,
            "spacing": "even",
    }  # fmt: skip
    params = flatten(read_model(folder, ema="raw").params, separator="/")
    assert all((before[f"params/{name}"] == array).all() for name, array in params.items())
    assert run(replace(config, max_steps=2), ["pinxit"], console=console).step == 2
    assert json.loads((folder / "config.json").read_text())["objective"]["kind"] == "flow_matching"


@dataclass(frozen=True)
class LossAlone:
    """An objective that derives from nothing and has no metric but its loss."""

    caption_dropout: float = 0.0

    def loss(self, model, batch, *, key):
        noise, t, _ = FlowMatching().draw(key, batch)
        latents = jnp.asarray(batch.latents)
        error = self.error(model, latents, batch.conditioning, noise=noise, t=t)
        return jnp.mean(error), {"loss": jnp.mean(error)}

    def error(self, model, latents, conditioning, *, noise, t):
        error = velocity_error(model, latents, conditioning, noise=noise, t=t)
        return jnp.mean(jnp.abs(error), axis=(1, 2, 3))


def test_an_objective_may_say_its_loss_alone(config: TrainConfig, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "alone", LossAlone)
    changed = replace(config, objective=LossAlone(), gradient_accumulation_steps=2)
    result = run(changed, ["pinxit"], console=Console(file=io.StringIO(), width=200))
    assert result.status == "finished"
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] > 0 and "loss_by_t" not in rows[0]
