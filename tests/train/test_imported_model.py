"""Models from PRX directories: continued by `pinxit train --init_from`, and evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from prx_folders import LATENT as NETWORK
from prx_folders import PIXEL, awake, write_prx

from pinxit.cli.main import main
from pinxit.cli.training_settings import training_settings
from pinxit.config import to_json
from pinxit.encoders import vae
from pinxit.model_loading import load_checkpoint
from pinxit.models.transformer import preset
from pinxit.recipes import mock
from pinxit.stored_model import Stored, read_model
from pinxit.train.init_from import TAKEN, settings_of
from pinxit.train.settings import TrainConfig

SHORT = (
    *("--recipe", "mock", "--dataset_size", "12", "--batch_size", "4", "--log_interval", "1"),
    *("--save_interval", "2", "--sampling.steps", "1", "--evaluation.images", "0"),
)


@pytest.fixture(scope="module")
def model(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prx(tmp_path_factory.mktemp("prx") / "model", bundle)


def settings(*argv: str) -> TrainConfig:
    return training_settings([*SHORT, *argv], prog="pinxit train").config


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_network_and_encoders_are_those_of_the_model(model: Path, here: Path):
    config = settings("--init_from", str(model))
    assert config.model.modulation == "per_block" and config.model.preset == "debug"
    assert (config.model.hidden_size, config.model.depth, config.model.mlp_ratio) == (16, None, 2.0)
    assert config.model.modulation_rank is None
    assert (config.text_encoder, config.vae) == (str(model), str(model))
    assert (config.caption_cleaning, config.text_max_tokens) == ("stock", None)
    assert config.image_size == mock().image_size or 16
    assert set(settings_of(read_model(model, weights=False))) == set(TAKEN)


def test_a_pixel_model_is_continued_on_pixels(bundle: Path, here: Path):
    directory = write_prx(here / "pixel", bundle, PIXEL)
    config = settings("--init_from", str(directory))
    assert not config.model.use_stable_vae
    assert (config.model.patch_size, config.model.bottleneck_size) == (4, 8)
    assert config.model.prediction == "latents" and config.model.resolution_embeds
    assert config.caption_cleaning == "light"


def test_options_count_and_the_preset_is_checked(model: Path, here: Path):
    config = settings("--init_from", str(model), "--caption_cleaning", "none", "--model.depth", "3")
    assert (config.caption_cleaning, config.model.depth) == ("none", 3)
    assert config.model.modulation == "per_block"
    named = settings("--init_from", str(model), "--preset", "small")
    assert named.model == mock().model.__class__(preset="small") and named.vae == str(model)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.depth", "3"], "init_from: .* is a different network: depth (2 instead of 3)"),
        (["--model.modulation", "shared"], "modulation ('per_block' instead of 'shared')"),
        (["--preset", "debug"], "hidden_size (16 instead of 64)"),
        (["--init_from", "nowhere"], "init_from: 'nowhere' is missing; valid: a run"),
    ],
)
def test_settings_that_differ_are_refused(
    options: list[str], words: str, model: Path, here: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["train", *SHORT, "--image_size", "16", "--init_from", str(model), *options]
    assert main(command) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    start, _, rest = words.partition(".*")
    assert start in last and rest in last


@pytest.mark.slow
def test_an_imported_model_is_fine_tuned_and_its_run_resumed(
    model: Path, here: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["train", *SHORT, "--image_size", "16", "--init_from", str(model), "--name", "fine"]
    assert main([*command, "--max_steps", "2"]) == 0
    printed = capsys.readouterr()
    assert f"pinxit: from {model}: the network, text_encoder {model}, vae {model}" in printed.err
    assert f"starting from {model} (pipeline PRXPipeline)" in printed.err.replace("\n", "")
    saved = json.loads((here / "runs/fine/config.json").read_text())
    assert saved["model"]["modulation"] == "per_block" and saved["vae"] == str(model)
    moved = model.rename(model.parent / "away")  # a resumed run does not need the model itself
    try:
        (model.parent / "model").mkdir()
        for part in ("vae", "text_encoder", "tokenizer"):
            (model / part).symlink_to(moved / part)
        assert main([*command, "--max_steps", "4"]) == 0
    finally:
        for part in ("vae", "text_encoder", "tokenizer"):
            (model / part).unlink()
        model.rmdir()
        moved.rename(model)
    assert "resuming after step 2" in capsys.readouterr().err
    trained = load_checkpoint(here / "runs/fine", ema="raw")
    assert trained.config.modulation == "per_block"
    moves = jax.tree.map(lambda a, b: np.abs(a - b).max(), trained.stored.params, awake(NETWORK))
    assert 0 < max(jax.tree.leaves(moves)) < 0.1
    assert trained.generate("red light from the left", steps=1).size == (16, 16)


def test_another_autoencoder_is_refused_by_its_weights(
    bundle: Path, model: Path, here: Path, capsys: pytest.CaptureFixture[str]
):
    shape = vae.AutoencoderKLConfig(
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=2, norm_num_groups=2
    )
    vae.save_vae(here / "other", vae.init_vae(shape, jax.random.key(9)), shape)
    command = ["train", *SHORT, "--image_size", "16", "--init_from", str(model), "--vae"]
    assert main([*command, str(here / "other")]) == 2
    assert "is not the weights that" in capsys.readouterr().err.splitlines()[-1]
    assert main([*command, str(bundle), "--max_steps", "1"]) == 0  # the same weights elsewhere


@pytest.mark.parametrize("pixels", [False, True])
def test_an_imported_model_is_evaluated(
    pixels: bool, model: Path, bundle: Path, here: Path, capsys: pytest.CaptureFixture[str]
):
    directory = write_prx(here / "pixel", bundle, PIXEL) if pixels else model
    options: list[Any] = ["--dataset_name", "mock", "--images", "16", "--batch_size", "8"]
    out = here / "evaluation.json"
    command = ["evaluate", "--checkpoint", str(directory), *options, "--out", str(out)]
    assert main(command) == 0
    record = json.loads(out.read_text())
    assert record["model"] == directory.name and record["pipeline"].startswith("PRX")
    assert np.isfinite(record["values"]["validation/loss"])


def test_a_preset_of_the_nearest_size_is_chosen():
    for name in ("debug", "tiny", "small", "base", "large", "xlarge"):
        config = preset(name, modulation="per_block")
        known = settings_of(Stored({}, to_json(config), "clip", "sd", 256, name))
        overrides = {n: v for n, v in known.items() if n.startswith("model.") and v is not None}
        expected = {"model.preset": name, "model.use_stable_vae": True}
        assert overrides == {**expected, "model.modulation": "per_block"}
