"""Whole runs: what is written, what is refused, and how killed runs end."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from toys import assert_trees_equal

from pinxit.checkpoint_files import arrays_of_checkpoint
from pinxit.config import UsageError, to_json
from pinxit.model_loading import load_checkpoint
from pinxit.train.build import build_step
from pinxit.train.metric_rows import read_rows
from pinxit.train.report.observer import Observer
from pinxit.train.run import RunResult, run
from pinxit.train.run_folder import claim, start
from pinxit.train.settings import EvalConfig, ModelConfig, SampleGridConfig, Sampling, TrainConfig

TIMED = (
    *("images_per_second", "seconds_per_step", "step_seconds", "data_wait_share", "memory_gb"),
)
PROGRAM = """
import json, sys
from pinxit.train.report.observer import Observer
from pinxit.train.run import run
from pinxit.train.settings import config_from_json
sys.exit(run(config_from_json(json.load(open(sys.argv[1])))).exit_code)
"""


@pytest.fixture(scope="module")
def config(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of seconds."""
    return TrainConfig(
        name="whole",
        dataset_name="mock",
        dataset_size=24,
        image_size=16,
        batch_size=4,
        max_steps=40,
        text_encoder=str(bundle),
        vae=str(bundle),
        log_interval=2,
        save_interval=7,
        sample_interval=0,
        output_dir=str(tmp_path_factory.mktemp("runs")),
        model=ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2),
        sampling=Sampling(steps=1),
        samples=SampleGridConfig(prompts=("red light from the left",), seeds=(0,)),
        evaluation=EvalConfig(images=10, batch_size=10),
    )


def train(config: TrainConfig) -> tuple[RunResult, str]:
    """Runs here; what it returned and what it said."""
    said = io.StringIO()
    result = run(config, ["pinxit", "train"], console=Console(file=said, width=200))
    return result, said.getvalue()


@pytest.fixture(scope="module")
def whole(config: TrainConfig) -> Path:
    """The folder of a run that was never interrupted."""
    result, said = train(config)
    assert result.status == "finished" and result.exit_code == 0, said
    return result.folder


def spawn(config: TrainConfig, folder: Path) -> subprocess.Popen[str]:
    """The same in another process."""
    path = folder / f"{config.name}.json"
    path.write_text(json.dumps(to_json(config)))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_rows(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Until the process itself has logged `count` rows, or has ended."""
    path = folder / "metrics.jsonl"
    before = path.stat().st_ino if path.exists() else None
    first: int | None = None
    while process.poll() is None:
        # a run that starts or resumes begins with a new file
        if path.exists() and path.stat().st_ino != before:
            rows = len(read_rows(path))
            first = rows if first is None else first
            if rows >= first + count:
                return
        time.sleep(0.001)


def learned(folder: Path) -> list[dict[str, Any]]:
    """The rows, without speed and memory."""
    rows = read_rows(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMED} for row in rows]


def arrays(folder: Path) -> Any:
    """Everything in the last checkpoint."""
    return arrays_of_checkpoint(folder / "checkpoints" / "step_00000040")


def test_what_a_run_writes(whole: Path, config: TrainConfig):
    names = ("config.json", "curves.png", "report.html", "results.json", "samples/final.png")
    assert all((whole / name).is_file() for name in names)
    assert list(whole.glob("events.*"))
    assert [row["step"] for row in learned(whole) if "loss" in row] == list(range(2, 41, 2))
    results = json.loads((whole / "results.json").read_text())
    assert results["step"] == 40 and results["images"] == 160
    assert results["ema"] == min(results["validation"], key=results["validation"].get)
    probe = results["probe"]
    assert probe["conditioning/loss"] == pytest.approx(results["validation"]["raw"], rel=0.2)
    last = learned(whole)[-1]
    assert {name: last[name] for name in probe} == probe and results["warnings"] == []
    assert 0 < learned(whole)[0]["loss_of_zero"] < 10
    report = (whole / "report.html").read_text()
    assert "Effect of captions" in report and "Warnings<" not in report
    assert "pinxit train" in report and "data:image/webp" in report
    assert "default-src 'none'" in report and not re.search(r"(src|href)=", report)
    with Image.open(whole / "samples" / "final.png") as sheet:
        assert sheet.width > 4 * 128


def test_the_release_draws_like_the_run(whole: Path):
    release = load_checkpoint(whole / "model")
    saved = load_checkpoint(whole)
    assert_trees_equal(release.params, saved.params)
    image = release.generate("red light from the left")
    assert image.size == (16, 16)
    assert np.array_equal(image, saved.generate("red light from the left"))


def test_one_compile_before_and_after_a_resume(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compiled: list[Any] = []

    class Recorded:
        """A step that counts how often it is compiled."""

        def __init__(self, *args: Any) -> None:
            self.step = build_step(*args)

        def lower(self, *args: Any) -> Any:
            compiled.append(args[0].step)
            return self.step.lower(*args)

    monkeypatch.setattr("pinxit.train.run.build_step", Recorded)
    given = dataclasses.replace(
        config, name="once", output_dir=str(tmp_path), evaluation=EvalConfig(prompts=0, images=0)
    )
    for last in (6, 12):
        train(dataclasses.replace(given, max_steps=last))
    assert len(compiled) == 2


def test_a_finished_run_is_left_alone(whole: Path, config: TrainConfig):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    result, said = train(config)
    assert result.status == "finished" and "is finished (40 steps)" in said
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"resume": False}, "would be overwritten.*--name"),
        ({"batch_size": 8, "seed": 5}, "batch_size .was 4, is 8.*seed .was 0, is 5"),
        ({"max_steps": 30, "name": "whole"}, None),
        ({"name": "new", "image_size": 18}, "multiples of 4"),
        ({"name": "new", "model": ModelConfig(preset="enormous")}, "debug, tiny"),
        ({"name": "new", "output_dir": __file__}, "output_dir: .* a file"),
        ({"name": "new", "init_from": "nowhere"}, "init_from: 'nowhere' is missing"),
        (
            {"name": "new", "wandb": True},
            r"log: 'wandb'.*tensorboard, or .*pip install .*\[wandb\]",
        ),
        (
            {"name": "new", "log": "trackio"},
            r"log: 'trackio'.*none, or .*pip install .*\[trackio\]",
        ),
        ({"name": "new", "log": "tensorflow"}, r"log: 'tensorflow' is unknown; valid: tensorb"),
    ],
)
def test_refusals_write_nothing(
    whole: Path, config: TrainConfig, changes: dict, says: str | None, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "trackio", None)
    before = {path: path.stat().st_mtime_ns for path in whole.parent.rglob("*")}
    changed = dataclasses.replace(config, **changes)
    if says is None:
        assert train(changed)[0].status == "finished"
    else:
        with pytest.raises(ValueError, match=says):
            train(changed)
    assert before == {path: path.stat().st_mtime_ns for path in whole.parent.rglob("*")}


def test_a_foreign_folder_is_refused(config: TrainConfig, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is not a run"):
        train(dataclasses.replace(config, name="mine", output_dir=str(tmp_path)))


def test_a_folder_that_was_being_made_is_taken(config: TrainConfig, tmp_path: Path):
    """A process that was killed there had written its settings under another name, or not."""
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".config.json.77").write_text("{")
    given = dataclasses.replace(config, name="begun", output_dir=str(tmp_path)).resolved()
    folder = claim(given)
    start(folder, given, {})
    assert claim(given).config.is_file()


def test_a_damaged_row_costs_that_row(whole: Path, tmp_path: Path):
    lines = (whole / "metrics.jsonl").read_bytes().splitlines()
    damaged = [*lines[:2], b'{"step": \xff', b"7", *lines[2:], b'{"step": 40, "lo']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(damaged))
    assert read_rows(tmp_path / "metrics.jsonl") == [json.loads(line) for line in lines]


def kill_and_resume(
    config: TrainConfig, whole: Path, tmp_path: Path, *, kills: int, rows: range
) -> None:
    """Kills a run that often, each time after so many rows, and lets it end."""
    config = dataclasses.replace(config, name="killed", output_dir=str(tmp_path))
    folder = tmp_path / "killed"
    rng = random.Random(kills)
    killed_at = []
    for _ in range(kills):
        process = spawn(config, tmp_path)
        wait_for_rows(process, folder, rng.choice(rows))
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
        killed_at.append(max((row["step"] for row in learned(folder)), default=0))
    assert killed_at[0] > 0
    process = spawn(config, tmp_path)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert "resuming after step" in said or "is finished" in said
    assert learned(folder) == learned(whole), killed_at
    assert_trees_equal(arrays(folder), arrays(whole))
    assert json.loads((folder / "results.json").read_text())["status"] == "finished"


def test_killed_runs_end_like_the_whole_one(config: TrainConfig, whole: Path, tmp_path: Path):
    # by row 8 (step 16) the checkpoint of step 7 is complete, as that of step 14 waited for it
    kill_and_resume(config, whole, tmp_path, kills=2, rows=range(8, 12))


@pytest.mark.slow
def test_killed_twenty_times(config: TrainConfig, whole: Path, tmp_path: Path):
    longer = dataclasses.replace(config, name="whole_slow", save_interval=3)
    result, said = train(longer)
    assert result.status == "finished", said
    kill_and_resume(longer, result.folder, tmp_path, kills=20, rows=range(1, 8))


def test_sigterm_saves_and_exits_zero(config: TrainConfig, whole: Path, tmp_path: Path):
    config = dataclasses.replace(config, name="stopped", output_dir=str(tmp_path), save_interval=99)
    folder = tmp_path / "stopped"
    process = spawn(config, tmp_path)
    wait_for_rows(process, folder, 2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "the same command resumes" in said
    assert list(folder.glob("checkpoints/step_*")) and not (folder / "results.json").exists()
    result, said = train(config)
    assert result.status == "finished" and "resuming after step" in said
    assert learned(folder) == learned(whole)
    assert_trees_equal(arrays(folder), arrays(whole))


@pytest.mark.slow
def test_a_signal_while_drawing_is_a_stop(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    draw = Observer.sheet

    def interrupted(self: Observer, *args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)  # the main thread hears it
        draw(self, *args)

    monkeypatch.setattr(Observer, "sheet", interrupted)
    changed = dataclasses.replace(config, output_dir=str(tmp_path), sample_interval=5)
    result, said = train(changed)
    assert (result.status, result.step, result.exit_code) == ("stopped", 5, 0), said
    assert "the sample grid: not finished" in said
    assert (result.folder / "checkpoints" / "step_00000005").is_dir()
    grid = result.folder / "samples" / "step_00000005.png"
    assert not grid.exists()
    monkeypatch.setattr(Observer, "sheet", draw)
    result, said = train(dataclasses.replace(changed, max_steps=6))
    assert result.status == "finished" and grid.is_file(), "the resumed run draws it first"
    monkeypatch.setattr(Observer, "sheet", interrupted)
    finished = dataclasses.replace(changed, sample_interval=0)
    result, said = train(finished)
    assert (result.status, result.step) == ("stopped", 40), said
    monkeypatch.undo()
    result, said = train(finished)
    assert result.status == "finished" and "resuming after step 40" in said


def test_pixels_without_an_autoencoder(config: TrainConfig, tmp_path: Path):
    model = ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2,
                        use_stable_vae=False, patch_size=4)  # fmt: skip
    short = dataclasses.replace(config, output_dir=str(tmp_path), max_steps=3, model=model)
    result, said = train(
        dataclasses.replace(short, sample_interval=2, gradient_accumulation_steps=2)
    )
    assert result.status == "finished", said
    assert (result.folder / "samples" / "step_00000002.png").is_file()
    assert jax.tree.leaves(load_checkpoint(result.folder).params)
