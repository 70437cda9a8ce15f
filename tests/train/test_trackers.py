"""Trackers: each run has an id of its own, which a resume uses again, and its pictures; names of
--log are checked before anything else happens."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import strict_trackio
import strict_wandb
from PIL import Image
from rich.console import Console
from small_run import small_run

from pinxit.checkpoint_files import MANIFEST, CheckpointManifest, manifest_of, sha256_of
from pinxit.config import UsageError, to_json
from pinxit.train.metric_rows import read_rows
from pinxit.train.metric_writers.catalogue import TRACKERS, check_installed, tracker_names
from pinxit.train.metric_writers.trackio_folder import Trackio
from pinxit.train.metric_writers.weights_and_biases import WeightsAndBiases
from pinxit.train.metric_writers.writer import RecordedRun
from pinxit.train.run import run
from pinxit.train.settings import TrainConfig, config_from_json


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> strict_wandb.Server:
    """The stand-in for wandb.ai."""
    return strict_wandb.install(monkeypatch)


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> strict_trackio.Server:
    """The stand-in for Trackio's folder."""
    return strict_trackio.install(monkeypatch)


def recorded(folder: Path, name: str = "a:b\n%") -> RecordedRun:
    folder.mkdir(exist_ok=True)
    return RecordedRun(name, folder, {"seed": 1})


def picture_in(folder: Path) -> Path:
    Image.new("RGB", (4, 4)).save(folder / "grid.png")
    return folder / "grid.png"


# --- wandb.ai ---


def test_runs_of_one_name_are_two_runs(wandb: strict_wandb.Server, tmp_path: Path):
    check_installed(["wandb"])
    for name in ("one", "other"):
        writer = WeightsAndBiases(recorded(tmp_path / name))
        writer.write(2, {"loss": 0.5, "loss_by_t": [1.0, None], "note": "text"})
        writer.picture(2, picture_in(tmp_path / name))
        writer.close()
    resumed = WeightsAndBiases(recorded(tmp_path / "one"))
    resumed.write(4, {"loss": 0.25})
    assert len(wandb.runs) == 2
    first, second = wandb.runs.values()
    assert (first.started, second.started) == (2, 1) and first.name == second.name == "a:b%"
    assert first.history[2]["loss_by_t/0"] == 1.0 and first.history[4] == {"loss": 0.25}
    assert isinstance(first.history[2]["samples"], strict_wandb.Image)
    assert first.finished == 1


def test_a_damaged_id_is_made_again(wandb: strict_wandb.Server, tmp_path: Path):
    (tmp_path / "wandb.json").write_text('{"id": "a/b"}')
    WeightsAndBiases(recorded(tmp_path))
    assert list(wandb.runs) != ["a/b"]


# --- Trackio ---


def test_trackio_gets_each_step_once(trackio: strict_trackio.Server, tmp_path: Path):
    """A resumed run writes the rows after its checkpoint again, which Trackio would show twice."""
    check_installed(["trackio"])
    for name in ("one", "other"):
        writer = Trackio(recorded(tmp_path / name))
        writer.write(2, {"loss": 0.5, "loss_by_t": [1.0, None], "note": "text"})
        writer.write(4, {"loss": 0.4})
        writer.picture(4, picture_in(tmp_path / name))
        writer.close()
    resumed = Trackio(recorded(tmp_path / "one"))
    for step in (4, 6):
        resumed.write(step, {"loss": 0.25})
    assert len(trackio.runs) == 2
    first, second = trackio.runs.values()
    assert (first.started, second.started, first.finished) == (2, 1, 1)
    assert first.name.startswith("a:b%-") and first.name != second.name
    assert first.config == {"seed": 1}
    assert [step for step, row in first.rows if "loss" in row] == [2, 4, 6]
    assert first.rows[0][1] == {"loss": 0.5, "loss_by_t/0": 1.0}
    assert isinstance(first.rows[2][1]["samples"], strict_trackio.Image)


def test_trackio_may_be_asked_to_use_a_server(
    trackio: strict_trackio.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TRACKIO_SPACE_ID", "owner/space")
    with pytest.raises(AssertionError, match=r"asks huggingface\.co"):
        Trackio(recorded(tmp_path))


# --- names ---


@pytest.mark.parametrize(
    ("log", "names"),
    [
        ("tensorboard", ["tensorboard"]),
        ("wandb, trackio,wandb", ["wandb", "trackio"]),
        ("none", []),
    ],
)
def test_names_are_separated_by_commas(log: str, names: list[str]):
    assert tracker_names(log) == tuple(names)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("tensorflow", "log: 'tensorflow' is unknown; valid: tensorboard, wandb, trackio"),
        ("wandb,none", "log: 'wandb,none' is contradictory; valid: tensorboard"),
        (" , ", "log: ' , ' is empty; valid: tensorboard"),
    ],
)
def test_other_names_are_refused(log: str, message: str):
    with pytest.raises(UsageError, match=message):
        replace(TrainConfig(), log=log).resolved()


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, name, None)
    message = f"log: '{name}' is not possible: {name} is not installed; valid: tensorboard, or "
    with pytest.raises(UsageError, match=message + rf"{name} after: pip install .*\[{name}\]"):
        check_installed(["tensorboard", name])


# --- runs ---


def as_before(folder: Path) -> dict[str, Any]:
    """Stores the settings of a run and its checkpoint as older versions did, and returns them."""
    (checkpoint,) = folder.glob("checkpoints/step_*")
    for path in (checkpoint / "run.json", folder / "config.json"):
        record = json.loads(path.read_text())
        settings = record.get("config", record)
        del settings["log"]
        settings["wandb"] = True
        path.write_text(json.dumps(record))
    hashes = CheckpointManifest(checkpoint).hashes
    hashes["run.json"] = sha256_of(checkpoint / "run.json")
    (checkpoint / MANIFEST).write_text(manifest_of(hashes))
    return settings


@pytest.mark.slow
def test_the_old_name_is_an_alias(
    wandb: strict_wandb.Server, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A run begun with --wandb 1, as its stored settings say, goes on with any other trackers."""
    config = small_run(bundle, tmp_path, max_steps=1, sample_interval=0, eval_interval=0)
    console = Console(file=io.StringIO(), width=200)
    folder = run(replace(config, wandb=True), console=console).folder
    output = console.file.getvalue()
    assert output.count("--wandb 1 is the old name of --log tensorboard,wandb") == 1
    stored = json.loads((folder / "config.json").read_text())
    assert (stored["log"], stored["wandb"]) == ("tensorboard,wandb", False)
    assert [*next(iter(wandb.runs.values())).history] == [1] and list(folder.glob("events.*"))
    settings = as_before(folder)
    assert config_from_json(settings).resolved().log == "tensorboard,wandb"
    resumed = run(replace(config, log="none", max_steps=2), console=console)
    assert resumed.step == 2
    assert [row["step"] for row in read_rows(folder / "metrics.jsonl")][-1] == 2
    assert json.loads((folder / "config.json").read_text())["log"] == "none"
    (online,) = wandb.runs.values()
    assert len(list(folder.glob("events.*"))) == 1 and 2 not in online.history


def test_settings_without_trackers_are_stored_as_such():
    config = replace(TrainConfig(), log="none").resolved()
    assert config.log == "none" and config_from_json(to_json(config)) == config
    assert set(TRACKERS) == {"tensorboard", "wandb", "trackio"}
