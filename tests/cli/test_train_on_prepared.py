"""Training on a prepared dataset needs no setting that the dataset knows: prepare, then the printed
command, word for word."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_t5 import SIZES, sentencepiece_model, t5_pieces
from tiny_t5gemma import GEMMA_SETTINGS, template, write_t5gemma, write_tokenizer

from pinxit.cli.main import main
from pinxit.cli.training_settings import training_settings
from pinxit.config import UsageError
from pinxit.data.prepared.manifest import Manifest, Unfinished
from pinxit.encoders import t5
from pinxit.encoders.t5 import T5Config
from pinxit.train.settings import TrainConfig

ROOT = Path(__file__).parents[2]
SMALL = ("--preset", "debug", "--max_steps", "2", "--batch_size", "4")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures of two shapes, with captions, in a folder whose name has blanks."""
    folder = tmp_path_factory.mktemp("data") / "my own pictures"
    folder.mkdir()
    for number in range(16):
        shape = (48, 96, 3) if number % 2 else (64, 64, 3)
        noise = np.random.default_rng(number).integers(0, 255, shape, dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a picture with the number {number}")
    return folder


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a t5")
    config = T5Config(**SIZES, feed_forward_proj="gated-gelu")
    t5.save_t5(root, t5.init_t5(config, jax.random.key(3)), config)
    (root / "spiece.model").write_bytes(sentencepiece_model(t5_pieces()))
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the commands are given, without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def printed(pictures: Path, out: str, capsys, *more: object) -> list[str]:
    """Prepares the pictures, and returns the words of the command that is printed at the end."""
    words = ["prepare", "folder", "--dataset_path", pictures, "--out", out, "--engine", "inline"]
    words += ["--images.workers", 1, "--workers", 1, "--encode_batch", 4, *more]
    assert main([*map(str, words), "--filters.min_side", "none"]) == 0
    line = next(x for x in capsys.readouterr().err.splitlines() if x.startswith("to train: "))
    command = shlex.split(line.removeprefix("to train: "))
    assert command[0] == "pinxit"
    return command[1:]


def saved(name: str = "folder_256") -> dict:
    return json.loads((Path("runs") / name / "config.json").read_text())


def test_the_printed_command_trains_as_it_stands(pictures, here, capsys):
    command = printed(pictures, "an out dir", capsys, "--vae", "tiny", "--image_size", 32)
    assert command == ["train", "--dataset_path", "an out dir"]
    assert main([*command, "--max_steps", "2"]) == 0
    config = saved()
    assert config["dataset_name"] == "prepared" and config["image_size"] == 32
    assert config["vae"] == config["text_encoder"] == "tiny" and config["batch_size"] == 8
    assert config["model"]["preset"] == "tiny"  # no other recipe fits the bundled encoders
    assert main([*command, "--max_steps", "3"]) == 0  # it is resumed
    assert "resuming after step 2" in capsys.readouterr().err
    results = json.loads(Path("runs/folder_256/results.json").read_text())
    assert results["step"] == 3


@pytest.mark.slow
def test_without_an_autoencoder(pictures, here, capsys):
    command = printed(pictures, "out", capsys, "--vae", "none", "--image_size", 32)
    assert command == ["train", "--dataset_path", "out"]
    assert main([*command, *SMALL]) == 0
    config = saved()
    assert config["model"]["use_stable_vae"] is False and config["model"]["patch_size"] == 8
    assert config["model"]["prediction"] == "latents" and config["image_size"] == 32
    assert config["objective"]["time"]["shift"] == config["sampling"]["shift"] == 1.0


@pytest.mark.slow
def test_only_the_first_stage(pictures, here, capsys):
    more = ("--vae", "tiny", "--stage", "images", "--image_size", 36)
    command = printed(pictures, "out", capsys, *more)
    assert main([*command, *SMALL]) == 0
    assert saved()["model"]["patch_size"] == 4  # 8 does not divide 36


def test_stored_text(pictures, here, t5_folder, bundle, capsys):
    text = ("--store_text", 1, "--text_encoder", t5_folder, "--text_max_tokens", 12)
    more = ("--vae", bundle, "--image_size", 16, "--caption_cleaning", "light")
    command = printed(pictures, "out", capsys, *more, *text)
    assert main([*command, *SMALL]) == 0
    config = saved()
    assert config["text_encoder"] == str(t5_folder) and config["vae"] == str(bundle)
    assert config["text_max_tokens"] == 12 and config["caption_cleaning"] == "light"
    assert "runs inside each step" not in capsys.readouterr().err
    # another text encoder is not bound to the settings of the stored text
    other = [*command, *SMALL, "--name", "other", "--text_encoder", str(bundle)]
    assert main(other) == 0
    assert saved("other")["text_max_tokens"] is None
    # but the encoder of the stored text is
    assert main([*command, *SMALL, "--name", "third", "--text_max_tokens", "9"]) == 2
    assert "text_max_tokens: 9 is different from that of the stored text; valid: 12" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.parametrize("side", ["left", "right"])
def test_stored_text_of_t5gemma(side, pictures, here, bundle, capsys):
    folder = write_t5gemma(here / "t5gemma")
    # without <bos>, so that the empty prompt has no token
    settings = GEMMA_SETTINGS | {"padding_side": side}
    write_tokenizer(folder, settings, post_processor=template("$A"))
    text = ("--store_text", 1, "--text_encoder", folder, "--text_max_tokens", 48)
    more = ("--vae", bundle, "--image_size", 16, *text)
    command = printed(pictures, "out", capsys, *more)
    assert main([*command, *SMALL]) == 0
    assert saved()["text_encoder"] == str(folder) and saved()["text_max_tokens"] == 48
    assert main(["generate", "a red house", "--steps", "2", "--out", "pictures"]) == 0
    assert len(list(Path("pictures").glob("*.png"))) == 1


@pytest.mark.slow
def test_stored_text_of_clip(pictures, here, bundle, capsys):
    text = ("--store_text", 1, "--text_encoder", bundle)
    command = printed(pictures, "out", capsys, "--vae", bundle, "--image_size", 16, *text)
    assert main([*command, *SMALL]) == 0
    config = saved()
    assert config["text_encoder"] == str(bundle) and config["cache_text"] is True


@pytest.mark.slow
def test_aspect_ratio_buckets(pictures, here, bundle, capsys):
    more = ("--vae", bundle, "--image_size", 32, "--images.bucket_step", 8)
    command = printed(pictures, "out", capsys, *more)
    assert len(Manifest.read(here / "out").images["shapes"][0]) > 1
    assert main([*command, *SMALL, "--text_encoder", str(bundle)]) == 0
    assert saved()["image_size"] == 32


@pytest.mark.slow
def test_the_script_for_coyo(pictures, here, bundle, capsys):
    command = printed(pictures, "out", capsys, "--vae", bundle, "--image_size", 16)
    path = ROOT / "train_coyo_vae.py"
    spec = importlib.util.spec_from_file_location("train_coyo_vae", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    words = script.words_for([*command[1:], *SMALL, "--text_encoder", str(bundle)])
    assert main(["train", *words]) == 0
    assert saved("coyo_256")["image_size"] == 16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--image_size", "64"), "image_size: 64 is different from that of out; valid: 32"),
        (("--use_stable_vae", "1", "--vae", "tiny"), "a dataset without latents"),
        (("--images.bucket_step", "8"), "images.bucket_step: 8 is without effect in this run"),
    ],
)
def test_settings_that_contradict_are_refused(pictures, here, capsys, words, message):
    command = printed(pictures, "out", capsys, "--vae", "none", "--image_size", 32)
    assert main([*command, *SMALL, *words]) == 2
    assert message in capsys.readouterr().err


def test_another_autoencoder_is_refused(pictures, here, bundle, capsys):
    command = printed(pictures, "out", capsys, "--vae", bundle, "--image_size", 32)
    assert main([*command, *SMALL, "--vae", "tiny", "--text_encoder", "tiny"]) == 2
    assert "not the autoencoder that out was prepared with" in capsys.readouterr().err


def settings(*words: str) -> TrainConfig:
    return training_settings(words, prog="pinxit train").config.resolved()


@pytest.mark.slow
def test_a_run_keeps_the_settings_that_it_was_started_with(pictures, here, bundle, capsys):
    """A run of an older version had to name what the dataset knows, or used other encoders."""
    printed(pictures, "out", capsys, "--vae", "tiny", "--image_size", 32)
    own = ["--preset", "debug", "--image_size", "32", "--text_encoder", str(bundle)]
    older = ["train", "--recipe", "folder_256", "--dataset_path", "out", "--vae", "tiny", *own]
    assert main([*older, "--max_steps", "1", "--batch_size", "4"]) == 0
    again = settings("--dataset_path", "out")
    assert again.text_encoder == str(bundle) and again.model.preset == "debug"
    assert again.batch_size == 4 and again.optimizer.learning_rate == 1e-4
    other = settings("--dataset_path", "out", "--name", "other")
    assert other.text_encoder == "tiny" and other.model.preset == "tiny"


def test_settings_from_python(pictures, here, bundle, capsys):
    printed(pictures, "out", capsys, "--vae", bundle, "--image_size", 16)
    config = TrainConfig(dataset_path="out").resolved()
    assert (config.dataset_name, config.image_size) == ("prepared", 16)
    assert config.vae == str(bundle) and config.text_encoder == "tiny"
    assert config.resolved() == config


def test_a_plan_needs_no_settings_either(pictures, here, capsys):
    printed(pictures, "out", capsys, "--vae", "tiny", "--image_size", 32)
    words = ["plan", "--dataset_path", "out", "--preset", "debug", "--policies", "--json", "-"]
    assert main(words) == 0
    plan = json.loads(capsys.readouterr().out)
    assert "32" in json.dumps(plan)


def test_a_dataset_that_is_not_finished_is_named(here):
    (here / "out").mkdir()
    (here / "out" / "images.json").write_text('{"identity": {}, "notes": {}}')
    with pytest.raises(Unfinished, match="run the same `prepare` command again"):
        settings("--dataset_path", "out")


@pytest.mark.parametrize("dataset", ["folder", "coyo"])
def test_small_presets_use_the_bundled_encoders_and_no_hub(dataset, here):
    path = () if dataset == "coyo" else ("--dataset_path", ".")
    for name in ("debug", "tiny"):
        config = settings("--dataset_name", dataset, *path, "--model.preset", name)
        assert (config.text_encoder, config.vae, config.image_size) == ("tiny", "tiny", 64)
    config = settings("--dataset_name", dataset, *path, "--model.preset", "base")
    assert (config.text_encoder, config.vae, config.image_size) == ("clip", "sd", 256)


def test_seeds_outside_the_range_are_refused(here, capsys):
    for seed in ("4294967296", "-1"):
        assert main(["train", "--recipe", "mock", "--seed", seed]) == 2
        assert f"seed: {seed} is" in capsys.readouterr().err
        assert main(["generate", "a house", "--seed", seed]) == 2
        assert f"seed: {seed} is out of range; valid: 0 to 4294967295" in capsys.readouterr().err
    assert main(["generate", "a house", "--seed", "4294967294", "--n", "3"]) == 2
    assert "valid: 0 to 4294967293" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"samples.seeds: 4294967296 is out of range"):
        settings("--recipe", "mock", "--samples.seeds", "4294967296")
