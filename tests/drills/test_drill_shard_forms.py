"""Damage in other forms of datasets: pixels, several sizes, stored text, held-out rows."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from damaged_shards import damage, run_two
from drill_table import record
from pictures import write_captioned
from small_run import rows_without_times, small_run, train_here

from pinxit.cli.prepare import prepare_command
from pinxit.data.bucketed_loader import BucketedLoader
from pinxit.data.loader import Loader
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.train.settings import EvalConfig, ModelConfig, TrainConfig

ROOT = Path(__file__).parents[2]
SIZES = ((24, 20), (30, 18), (18, 30), (26, 24))
ROWS, UNIT, HELD_OUT, BATCH, STEPS = 64, 16, 10, 4, 12
FORMS = {
    "latents": ["--vae", "BUNDLE"],
    "pixels": ["--vae", "none"],
    "sizes": ["--vae", "BUNDLE", "--images.bucket_step", 4],
    "text": ["--vae", "BUNDLE", "--store_text", 1, "--text_encoder", "BUNDLE"],
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_captioned(tmp_path_factory.mktemp("pictures"), ROWS, SIZES)


def prepared(form: str, pictures: Path, bundle: Path, out: Path) -> Path:
    words = ["folder", "--dataset_path", pictures, "--out", out, "--engine", "inline"]
    words += ["--image_size", 16, "--unit_rows", UNIT, "--images.workers", 1, "--encode_batch", 8]
    words += [bundle if word == "BUNDLE" else word for word in FORMS[form]]
    assert prepare_command([str(word) for word in words]) == 0
    return out


def settings(form: str, bundle: Path, folder: Path, dataset: Path) -> TrainConfig:
    quick: dict[str, Any] = {"sample_interval": 0, "eval_interval": 0, "log_interval": 1}
    quick["evaluation"] = EvalConfig(images=HELD_OUT, batch_size=10, prompts=0)
    config = small_run(bundle, folder, dataset_path=str(dataset), **quick)
    config = dataclasses.replace(config, dataset_name="scenes", dataset_size=20000)
    if form != "pixels":
        return dataclasses.replace(config, cache_text=form == "text" or None)
    model = ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2, use_stable_vae=False)
    return dataclasses.replace(config, model=dataclasses.replace(model, patch_size=4))


def replaced_rows(form: str, dataset: Path) -> int:
    """The number of rows that a loader of this dataset replaces in all steps."""
    rows = PreparedRows(
        dataset, kind="images" if form == "pixels" else "latents", text=form == "text"
    )
    rows.hold_out(HELD_OUT)
    if form == "sizes":
        loader: Loader = BucketedLoader(rows, buckets=rows.buckets, batch_size=BATCH, seed=0)
    else:
        loader = Loader(rows, batch_size=BATCH, seed=0, count=len(rows.buckets[0]))
    for step in range(STEPS):
        loader.batch(step)
    return rows.replaced


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pixels", "sizes", "text"])
def test_a_damaged_shard(form: str, pictures: Path, bundle: Path, tmp_path: Path):
    dataset = prepared(form, pictures, bundle, tmp_path / "set")
    folder = {"pixels": "images", "sizes": "latents", "text": "text"}[form]
    shard = sorted((dataset / folder).iterdir())[1]
    damage(shard, "flipped")
    result, output = train_here(settings(form, bundle, tmp_path / "runs", dataset))
    assert result.exit_code == 0, output
    expected = replaced_rows(form, dataset)
    data = json.loads((result.folder / "results.json").read_text())["data"]
    assert data["rows_replaced"] == expected > 0
    assert list(data["damaged_shards"]) == [f"{folder}/{shard.name}"] and shard.exists()
    rows = [row for row in rows_without_times(result.folder) if "loss" in row]
    assert len(rows) == STEPS and rows[-1]["rows_replaced"] == expected
    record(
        "shards", f"flipped, {form}, before the run, 1 process", 1, 1, f"{expected} rows replaced"
    )


@pytest.mark.parametrize("folder", ["latents", "images"])
def test_damaged_held_out_rows(folder: str, pictures: Path, bundle: Path, tmp_path: Path):
    """The last unit holds the rows that are held out. Without them there is no validation loss."""
    dataset = prepared("latents", pictures, bundle, tmp_path / "set")
    damage(sorted((dataset / folder).iterdir())[-1], "flipped")
    result, output = train_here(settings("latents", bundle, tmp_path / "runs", dataset))
    assert result.exit_code == 0, output
    assert "only 0 held-out rows are left, so there is no validation loss" in output
    expected = replaced_rows("latents", dataset)  # none, if only the images are damaged
    data = json.loads((result.folder / "results.json").read_text())["data"]
    assert data["rows_replaced"] == expected and bool(expected) == (folder == "latents")


OPEN_FILES = """
import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
import contextlib, pathlib, sys
import numpy as np
from pinxit.data.prepared.prepared_rows import PreparedRows

rows = PreparedRows(pathlib.Path(sys.argv[1]))
used = []
with contextlib.suppress(OSError):
    while True:
        used.append(open("/dev/null"))
try:
    rows.take(np.arange(16, 20))
except ValueError as error:
    message = str(error)
used.clear()
print(message)
print(len(PreparedRows(rows.root).take(np.arange(16, 20))["latents"]))
"""


@pytest.mark.slow
def test_a_process_that_may_open_no_more_files_blames_no_shard(
    pictures: Path, bundle: Path, tmp_path: Path
):
    dataset = prepared("latents", pictures, bundle, tmp_path / "set")
    before = sorted(str(path) for path in dataset.rglob("*"))
    ended = subprocess.run(
        [sys.executable, "-c", OPEN_FILES, str(dataset)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    message, count = ended.stdout.splitlines()
    assert "EMFILE (Too many open files)" in message and "`ulimit -n 65536`" in message
    assert "--verify" not in message and count == "4"
    assert sorted(str(path) for path in dataset.rglob("*")) == before, "no file was renamed"


def test_the_limit_of_open_files_is_raised():
    code = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, 512))\n"
    code += "from pinxit.cli.main import main; main(['--version'])\n"
    code += "print(r.getrlimit(r.RLIMIT_NOFILE))"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "(512, 512)", ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("form", ["latents", "sizes"])
def test_two_processes_of_which_one_cannot_read_its_data_end_together(
    form: str, pictures: Path, bundle: Path, tmp_path: Path
):
    dataset = prepared(form, pictures, bundle, tmp_path / "set")
    config = settings(form, bundle, tmp_path / "runs", dataset)
    shards = ":".join(str(path) for path in sorted((dataset / "latents").iterdir())[:3])
    codes, output = run_two(config, tmp_path, [("none", shards, 6), ("EIO", shards, 6)])
    assert codes == [1, 1], output
    assert "the data ended after step" in output[0] and "EIO" in output[0] + output[1]
    saved = sorted((tmp_path / "runs" / config.name / "checkpoints").glob("step_*"))
    step = int(saved[-1].name.removeprefix("step_"))
    assert 0 < step < STEPS and f"the data ended after step {step}: " in output[0]
    told = f"both end with exit code 1 and the checkpoint of step {step}"
    record("shards", f"EIO at 3 of 4 shards of one process of two, {form}", 1, 1, told)
