"""The scripts at the repository's root run: test_text_mock.py and the two doors to training."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from coyo_files import write_coyo
from hostile_server import LOOPBACK, HostileServer

from pinxit.recipes import RECIPES
from train_coyo_vae import words_for

ROOT = Path(__file__).parents[2]


def script(
    name: str, *words: object, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a root script in `folder`, as a user of a clone does."""
    return subprocess.run(
        [sys.executable, str(ROOT / name), *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | environment,
    )


def test_the_mock_script_checks_the_whole_path(tmp_path: Path):
    """It holds, and costs less than two minutes of one core (the README's limit is two cores')."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = script("test_text_mock.py", folder=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    checks = [line for line in lines if line.startswith("  ok  ")]
    assert len(checks) == 13 and lines[-1].startswith("all 13 checks hold (")
    assert not done.stderr and "FAILED" not in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 120
    assert not list(tmp_path.iterdir())


def test_the_training_script_trains(tmp_path: Path):
    words = ["--dataset_name", "mock", "--model.preset", "debug", "--use_amp", 0]
    words += ["--max_steps", 2, "--dataset_size", 8, "--evaluation.images", 0]
    done = script("train_text_to_image.py", *words, "--sampling.steps", 1, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "runs" / "mock" / "report.html").read_text()
    assert "python train_text_to_image.py --dataset_name mock" in report


def test_the_words_become_a_recipe():
    assert words_for(["--test", "--seed", "3"]) == ["--recipe", "coyo_test", "--seed", "3"]
    assert words_for(["--batch_size", "8"]) == ["--recipe", "coyo_256", "--batch_size", "8"]


def test_the_recipe_is_the_headline_run():
    config = RECIPES["coyo_256"]().resolved()
    assert (config.dataset_name, config.image_size, config.images.size) == ("coyo", 256, 256)
    assert (config.model.preset, config.vae, config.text_encoder) == ("large", "sd", "clip")
    assert (config.batch_size, config.max_steps, config.use_amp) == (256, 500_000, True)


@pytest.mark.parametrize("words", [["--test"], []])
def test_without_a_network_one_line_says_what_to_do(words: list[str], tmp_path: Path):
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    done = script("train_coyo_vae.py", *words, folder=tmp_path, **offline)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("pinxit: error")]
    assert len(errors) == 1 and "kakaobrain/coyo-700m" in errors[0]
    assert "cannot be reached" in errors[0] and "--dataset_path" in errors[0]
    assert not list(tmp_path.iterdir())


def test_the_test_trains(bundle: Path, tmp_path: Path):
    """A local table, a server of one's own, and fewer steps."""
    with HostileServer() as server:
        kinds = ("good", "404", "good", "png", "good")
        urls = [server.url(kinds[i % 5], i) for i in range(100)]
        path = write_coyo(tmp_path / "coyo.parquet", 100, url=urls)
        words = ["--test", "--dataset_path", path, "--output_dir", tmp_path / "runs"]
        words += ["--vae", bundle, "--text_encoder", bundle, "--image_size", 16]
        words += ["--model.preset", "debug", "--max_steps", 4, "--evaluation.images", 10]
        words += ["--fetch.allow_networks", LOOPBACK, "--images.workers", 1]
        words += ["--sampling.steps", 1]
        done = script("train_coyo_vae.py", *words, folder=tmp_path, JAX_PLATFORMS="cpu")
    assert done.returncode == 0, done.stderr
    assert "test: 64 pixels" in done.stderr and "finished" in done.stderr
    results = json.loads((tmp_path / "runs" / "coyo_test" / "results.json").read_text())
    assert results["step"] == 4 and results["data"]["rows"]["ok"] == 10 + 4 * 8
