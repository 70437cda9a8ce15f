"""Runs that go back, change their settings, are extended, or decay from another run."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pinxit.config import UsageError
from pinxit.config import replace as with_settings
from pinxit.stored_model import read_model
from pinxit.train.display import Display
from pinxit.train.metric_rows import read_rows
from pinxit.train.run import RunResult, run
from pinxit.train.settings import (
    EvalConfig,
    ModelConfig,
    OptimizerConfig,
    SampleGridConfig,
    Sampling,
    TrainConfig,
)

RATE = {"optimizer.learning_rate": 5e-4}


@pytest.fixture(scope="module")
def config(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of seconds, all of whose checkpoints remain."""
    return TrainConfig(
        name="trunk",
        dataset_name="mock",
        dataset_size=24,
        image_size=16,
        batch_size=4,
        max_steps=12,
        text_encoder=str(bundle),
        vae=str(bundle),
        log_interval=2,
        save_interval=4,
        sample_interval=0,
        keep_every=4,
        keep_checkpoints=1,
        output_dir=str(tmp_path_factory.mktemp("runs")),
        model=ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2),
        optimizer=OptimizerConfig(schedule="wsd", decay_steps=4, warmup_steps=2),
        sampling=Sampling(steps=1),
        samples=SampleGridConfig(prompts=("red light from the left",), seeds=(0,)),
        evaluation=EvalConfig(prompts=0, images=0),
    )


def train(config: TrainConfig, **settings: Any) -> tuple[RunResult, str]:
    """The result of a run, and what it printed. Settings are given by dotted name."""
    printed = io.StringIO()
    changed = with_settings(config, {k.replace("__", "."): v for k, v in settings.items()})
    result = run(changed, ["pinxit", "train"], console=Console(file=printed, width=400))
    return result, printed.getvalue()


def trained(folder: Path) -> dict[str, Any]:
    """The parameters in the newest checkpoint, by name."""
    stored = read_model(folder, ema="raw").params
    flat: dict[str, Any] = {}

    def visit(tree: Any, name: str) -> None:
        if isinstance(tree, dict):
            for key, value in tree.items():
                visit(value, f"{name}/{key}")
        else:
            flat[name] = tree

    visit(stored, "")
    return flat


def assert_same(a: Path, b: Path) -> None:
    """Checks that two runs ended with the same parameters, bit for bit."""
    one, other = trained(a), trained(b)
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (folder / "checkpoints").glob("step_*"))


def settings_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def test_an_undisturbed_run_records_nothing(config: TrainConfig):
    result, printed = train(config)
    assert result.status == "finished", printed
    assert steps(result.folder) == [4, 8, 12]
    record = settings_of(result.folder)
    assert "changes" not in record and "resumed_at" not in record
    assert "changes" not in result.results and record["resume_step"] is None


def test_going_back_with_a_change(config: TrainConfig):
    result, _ = train(config, name="rescued")
    change = {**RATE, "change": True, "resume_step": 4}
    before = read_rows(result.folder / "metrics.jsonl")
    result, printed = train(replace(config, name="rescued"), **change)
    assert result.status == "finished", printed
    aside = result.folder / "abandoned_after_step_00000004"
    assert f"what the run wrote after step 4 is in {aside}" in printed
    assert "changed: optimizer.learning_rate 0.001 -> 0.0005 from step 4" in printed
    assert "the learning rate goes from 0.001 to 0.0005 at step 4" in printed
    assert steps(aside) == [8, 12] and steps(result.folder) == [4, 8, 12]
    assert read_rows(aside / "metrics.jsonl") == [row for row in before if row["step"] > 4]
    assert (aside / "results.json").is_file() and (aside / "model").is_dir()
    expected = {"step": 4, "updates": 4, "setting": "optimizer.learning_rate"}
    expected |= {"old": 0.001, "new": 0.0005}
    record = settings_of(result.folder)
    assert record["changes"] == [expected] == result.results["changes"]
    assert record["resumed_at"] == [{"step": 4, "aside": aside.name}]
    assert record["change"] is False and record["resume_step"] is None
    report = (result.folder / "report.html").read_text()
    assert "Settings that changed during the run" in report
    rates = {row["step"]: row["learning_rate"] for row in read_rows(result.folder / "metrics.jsonl")
             if "learning_rate" in row}  # fmt: skip
    assert rates[4] == pytest.approx(1e-3) and rates[6] == pytest.approx(5e-4)

    again, printed = train(replace(config, name="rescued"), **change)
    assert again.status == "finished" and "is finished" in printed, "the same command again"
    assert sorted(path.name for path in result.folder.glob("abandoned*")) == [aside.name]
    assert trained(aside).keys() == trained(result.folder).keys()

    longer, printed = train(replace(config, name="rescued"), max_steps=14, **change)
    assert "the run went back to step 4 before, so it goes on from its newest" in printed
    assert "resuming after step 12" in printed and longer.step == 14, "no progress is lost"
    other = change | {"optimizer.learning_rate": 2e-4}
    assert train(replace(config, name="rescued"), **other)[0].step == 12
    names = [aside.name, f"{aside.name}_2"]
    assert sorted(path.name for path in result.folder.glob("abandoned*")) == names, "another change"


def test_wrong_requests_are_refused(config: TrainConfig):
    name = replace(config, name="refused")
    with pytest.raises(UsageError, match=r"resume_step: 4 is not possible: there is no run .*yet"):
        train(name, resume_step=4)
    result, _ = train(name)
    before = {path: path.stat().st_mtime_ns for path in result.folder.rglob("*")}
    with pytest.raises(UsageError, match=r"resume_step: 5 is not the step.*valid: 4, 8, 12"):
        train(name, resume_step=5)
    with pytest.raises(UsageError, match=r"add --change 1: --optimizer.learning_rate .was 0.001"):
        train(name, resume_step=4, **RATE)
    with pytest.raises(UsageError, match=r"--batch_size .was 4, is 8"):
        train(name, resume_step=4, batch_size=8, change=True)
    assert before == {path: path.stat().st_mtime_ns for path in result.folder.rglob("*")}


@pytest.mark.slow
def test_clipping_and_precision_may_change(config: TrainConfig):
    name = replace(config, name="precise")
    train(name)
    changes = {"optimizer.clip_norm": None, "model.dtype": "float16", "optimizer.b2": 0.9}
    result, printed = train(name, resume_step=8, change=True, **changes)
    assert result.status == "finished", printed
    row = read_rows(result.folder / "metrics.jsonl")[-1]
    assert row["loss_scale"] > 1, "float16 starts with its initial loss scale"
    back = {"optimizer.clip_norm": 1.0, "model.dtype": None, "optimizer.b2": 0.99}
    result, printed = train(name, max_steps=16, change=True, **back)
    assert result.status == "finished", printed
    assert "loss_scale" not in read_rows(result.folder / "metrics.jsonl")[-1]


def test_an_extended_trunk_is_the_longer_run(config: TrainConfig):
    short = replace(config, name="short", save_interval=100, keep_every=0)
    longer = replace(short, name="longer", max_steps=24)
    result, _ = train(short)
    assert steps(result.folder) == [8, 12], "the checkpoint where the decay starts remains"
    extended, printed = train(short, max_steps=24, resume_step=8)
    assert "the learning rate goes" not in printed, "the trunk's rate is the same"
    assert steps(extended.folder) == [8, 20, 24]
    assert_same(extended.folder, train(longer)[0].folder)


def test_extending_a_finished_run_says_both_rates(config: TrainConfig):
    wsd = replace(config, name="heated", keep_every=0)
    train(wsd)
    _, printed = train(wsd, max_steps=24)
    assert (
        "the learning rate goes from 0.000134 to 0.001 at step 12, because max_steps was 12 and is "
        "24 now. To go on from before its decay, stop this and add --resume_step 8 --max_steps 24"
    ) in printed
    cosine = with_settings(config, {"name": "cosine", "optimizer.schedule": "cosine"})
    train(cosine)
    _, printed = train(cosine, max_steps=24)
    assert "at step 12, because max_steps was 12 and is 24 now. To stay at the old rate," in printed
    words = "--resume_step 12 --change 1 --optimizer.schedule constant --optimizer.learning_rate "
    assert words in printed
    changes = settings_of(Path(config.output_dir) / "cosine")["changes"]
    assert [(c["step"], c["setting"], c["new"]) for c in changes] == [(12, "max_steps", 24)]


def test_a_run_can_decay_from_another(config: TrainConfig):
    """It is the run that had that decay from the start."""
    trunk = with_settings(config, {"name": "constant", "optimizer.schedule": "constant"})
    trunk = with_settings(trunk, {"optimizer.decay_steps": None})
    folder = train(trunk)[0].folder
    cooled = {"name": "cooled", "decay_from": str(folder), "resume_step": 8, "max_steps": 14}
    result, printed = train(trunk, **cooled)
    assert result.status == "finished" and "decaying from the run" in printed, printed
    assert [row["step"] for row in read_rows(result.folder / "metrics.jsonl")][:4] == [2, 4, 6, 8]
    expected = with_settings(config, {"name": "whole", "optimizer.decay_steps": 6})
    assert_same(result.folder, train(expected, max_steps=14)[0].folder)
    changes = settings_of(result.folder)["changes"]
    assert ("optimizer.schedule", "wsd") in [(c["setting"], c["new"]) for c in changes]
    again, printed = train(trunk, **cooled)
    assert again.status == "finished" and "is finished" in printed
    assert steps(folder) == [4, 8, 12], "the trunk is as it was"

    with pytest.raises(UsageError, match="max_steps: 8 is not more than the 8 steps"):
        train(trunk, **cooled | {"name": "late", "max_steps": 8})
    with pytest.raises(UsageError, match=r"decay_from: the settings differ .*--batch_size"):
        train(trunk, **cooled | {"name": "late", "batch_size": 8})
    with pytest.raises(UsageError, match=r"its rate has been falling since step 8; .*step 8"):
        late = {"decay_from": str(result.folder), "resume_step": 12, "max_steps": 20}
        train(config, name="late", **late)
    with pytest.raises(UsageError, match=r"decay_from: 'nowhere' is not a run"):
        train(trunk, **cooled | {"name": "late", "decay_from": "nowhere"})
    assert not (Path(config.output_dir) / "late").exists()


DIVERGING = {
    **{"model.dtype": "float16", "optimizer.learning_rate": 3.0, "optimizer.clip_norm": None},
    **{"optimizer.warmup_steps": 20, "optimizer.schedule": "constant", "save_interval": 2},
    **{"keep_checkpoints": 9, "keep_every": 0, "max_steps": 100, "log_interval": 1},
}
"""Settings with which activations overflow after some steps, and no step is finite any more."""


def test_nothing_is_saved_while_steps_are_not_finite(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    nan = with_settings(config, {"name": "nan", **DIVERGING})
    result, printed = train(nan, max_skipped=2)
    assert result.status == "failed" and "stopped at step" in printed, printed
    rows = read_rows(result.folder / "metrics.jsonl")
    streak = [row["step"] for row in rows if row.get("consecutive")]
    before = steps(result.folder)
    assert streak and not set(before) & set(streak), "only finite steps are saved"
    named = re.findall(r"--resume_step (\d+) --change 1 ", result.reason)
    assert len(named) >= 3 and {int(step) for step in named} <= set(before), result.reason
    assert train(nan, max_skipped=2)[0].reason == result.reason, "the same message again"
    assert steps(result.folder) == before

    plain = Display.on_step

    def on_step(display: Display, step: int) -> None:
        plain(display, step)
        if step == result.step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Display, "on_step", on_step)
    stopped, _ = train(nan, max_skipped=90)
    assert stopped.status == "stopped" and stopped.step == result.step
    words = "not saved, because the last 3 steps were not finite; the same command resumes from "
    assert f"{words}step {before[-1]}" in stopped.reason, stopped.reason
    assert steps(result.folder) == before
