"""The first lines of a run, its compilation, the figures of its devices, and a profile."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from pinxit.config import UsageError
from pinxit.devices.common_steps import Together
from pinxit.devices.flops import count
from pinxit.devices.processes import Stopped
from pinxit.train import start_lines, step_watch
from pinxit.train.abstract_program import abstract_program
from pinxit.train.auto_settings import abstract_parts
from pinxit.train.display import Display
from pinxit.train.run import run
from pinxit.train.settings import EvalConfig, ModelConfig, SampleGridConfig, Sampling, TrainConfig
from pinxit.train.start_lines import compile_line, data_line, model_lines
from pinxit.train.step_profile import StepProfile, steps_to_profile
from pinxit.train.step_watch import StepFigures, WatchedStep, step_flops


@pytest.fixture
def config(bundle: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        name="first",
        dataset_name="mock",
        dataset_size=16,
        image_size=16,
        batch_size=8,
        gradient_accumulation_steps=2,
        max_steps=6,
        text_encoder=str(bundle),
        vae=str(bundle),
        log_interval=2,
        save_interval=6,
        sample_interval=0,
        output_dir=str(tmp_path),
        model=ModelConfig(
            preset="debug", hidden_size=16, depth=1, num_heads=2, remat="none", scan_blocks=True
        ),
        sampling=Sampling(steps=1),
        samples=SampleGridConfig(prompts=("red",), seeds=(0,)),
        evaluation=EvalConfig(images=0, batch_size=10),
    )


def trained(config: TrainConfig) -> tuple[Path, list[str]]:
    """The run's folder, and what it printed into a file."""
    out = io.StringIO()
    result = run(config, ["pinxit", "train"], console=Console(file=out, width=500))
    assert result.status == "finished", out.getvalue()
    return result.folder, out.getvalue().splitlines()


def test_a_run_says_on_what_and_how_it_trains(config: TrainConfig):
    folder, lines = trained(config)
    count = json.loads((folder / "results.json").read_text())["parameters"]
    assert lines[0] == (
        f"training debug ({count / 1e6:,.1f} million parameters) in float32 on "
        f"{len(jax.devices())} x cpu"
    )
    assert lines[1].startswith("each step: 8 images of 16 x 16 pixels, 16 tokens each in 2 accum")
    data = next(line for line in lines if line.startswith("data: "))
    assert data == "data: mock, 16 rows; 6 steps are 3 epochs"
    start = lines.index("compiling the training step")
    assert lines[start + 1].startswith("compiled the training step in ")
    assert lines.index(data) < start < next(i for i, x in enumerate(lines) if x.startswith("step"))
    _, again = trained(dataclasses.replace(config, max_steps=8))
    assert "data: mock, 16 rows; 8 steps, of which 6 are done are 4 epochs" in again


def test_steps_per_device_and_memory_are_said(config: TrainConfig, monkeypatch):
    parts = abstract_parts(config.resolved())
    memory = {"device_memory_gb": 0.0, "device_memory_limit_gb": 15.7}
    monkeypatch.setattr(start_lines, "memory_figures", lambda devices: memory)
    first, second = model_lines(config.resolved(), parts)
    assert first.endswith(f"on {parts.mesh.size} x cpu (15.7 GB each)")
    assert second.endswith("in 2 accumulated pieces, 4 per device at a time")


def test_a_stream_has_no_epochs(config: TrainConfig):
    line = data_line(dataclasses.replace(config, dataset_name="coyo"), object(), step=0)
    assert line == "data: coyo, streamed; 6 steps need 48 images"


@pytest.mark.parametrize(
    ("depth", "scanned", "platform", "minutes"),
    [
        (24, False, "tpu", True),
        (24, True, "tpu", False),
        (2, False, "gpu", False),
        (24, False, "cpu", False),
    ],
)
def test_only_deep_unrolled_models_take_minutes(config, depth, scanned, platform, minutes):
    model = abstract_parts(config.resolved()).model
    line = compile_line(dataclasses.replace(model, depth=depth, scan_blocks=scanned), platform)
    assert ("some minutes" in line) == minutes and line.startswith("compiling the training step")


def test_the_end_of_the_compilation_is_told_once(config: TrainConfig):
    parts = abstract_parts(config.resolved())
    told: list[str] = []
    figures: Any = SimpleNamespace(count=lambda *_: None)
    jitted = jax.jit(lambda state, frozen, columns: state + columns["x"].sum())
    step = WatchedStep(
        Together(jitted),
        parts=parts, start=0, figures=figures, profile=StepProfile(None, Path("none"), say=print),
        say=told.append, compiled=lambda: told.append("taken"),
    )  # fmt: skip
    state, columns = jnp.float32(1), {"x": jnp.ones(3)}
    step.compile(state, None, {"x": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert told[0] == "compiling the training step" and "compiled the training step in" in told[1]
    for number in range(2):
        assert float(step(state, None, columns)) == 4
        assert told[2:] == ["taken"], number
    assert jitted._cache_size() == 0  # the program of the shapes was used


def test_a_signal_during_the_compilation_stops_the_first_step(config: TrainConfig):
    def stop(act: Any) -> Any:
        raise Stopped

    figures: Any = SimpleNamespace(count=lambda *_: None)
    told: list[str] = []
    step = WatchedStep(
        Together(jax.jit(lambda *arguments: None), stop), parts=abstract_parts(config.resolved()),
        start=0, figures=figures, profile=StepProfile(None, Path("none"), say=print),
        say=told.append,
    )  # fmt: skip
    step.compile(None, None, {"x": jax.ShapeDtypeStruct((3,), jnp.float32)})
    for _ in range(2):
        with pytest.raises(Stopped):
            step(None, None, {"x": jnp.ones(3)})
    assert told == ["compiling the training step"]


# --- the figures of the devices ---------------------------------------------------------------


def test_the_operations_of_a_step_are_those_of_the_planner(config: TrainConfig):
    for model in (
        dataclasses.replace(config.model, depth=3, scan_blocks=False, remat="full"),
        dataclasses.replace(config.model, depth=3, scan_blocks=True, scan_unroll=3, remat="dots"),
    ):
        tried = dataclasses.replace(config, model=model).resolved()
        program = abstract_program(tried)
        counted = dataclasses.replace(
            tried, model=dataclasses.replace(model, remat="none", attention="xla")
        )
        expected = count(abstract_program(counted).trace().jaxpr)
        arguments = (program.state, program.frozen, program.columns)
        assert step_flops(tried, program.parts, program.text, arguments) == expected > 0


def test_mfu_is_the_share_of_all_devices_peaks(config: TrainConfig, monkeypatch):
    program = abstract_program(config.resolved())
    devices = program.parts.mesh.size
    monkeypatch.setattr(step_watch, "peak_flops", lambda kind, dtype: 1e9)
    figures = StepFigures(program.config, program.parts, program.text)
    figures.count(program.state, program.frozen, program.columns)
    operations = step_flops(
        program.config,
        program.parts,
        program.text,
        (program.state, program.frozen, program.columns),
    )
    row = figures.of({"seconds_per_step": 0.5})
    assert row == {"mfu": pytest.approx(operations / 0.5 / (1e9 * devices))}
    assert figures.of({"seconds_per_step": None}) == {}, "a row without a speed has none"


def test_unknown_devices_have_no_mfu_and_nothing_is_traced(config: TrainConfig, monkeypatch):
    program = abstract_program(config.resolved())
    monkeypatch.setattr(step_watch, "step_flops", lambda *_: pytest.fail("it was traced"))
    figures = StepFigures(program.config, program.parts, program.text)
    figures.count(program.state, program.frozen, program.columns)
    assert figures.of({"seconds_per_step": 1.0}) == {}


def test_operations_that_cannot_be_counted_end_nothing(config: TrainConfig, monkeypatch):
    def broken(*_: object) -> float:
        raise NotImplementedError("a kernel of its own")

    program = abstract_program(config.resolved())
    monkeypatch.setattr(step_watch, "peak_flops", lambda kind, dtype: 1e9)
    monkeypatch.setattr(step_watch, "step_flops", broken)
    figures = StepFigures(program.config, program.parts, program.text)
    figures.count(program.state, program.frozen, program.columns)
    assert figures.of({"seconds_per_step": 1.0}) == {}


@pytest.mark.slow
def test_rows_and_display_have_the_figures(config: TrainConfig, monkeypatch):
    figures = {"device_memory_gb": 12.34, "device_memory_limit_gb": 16.0}
    monkeypatch.setattr(step_watch, "memory_figures", lambda devices: figures)
    monkeypatch.setattr(step_watch, "peak_flops", lambda kind, dtype: 1e9)
    folder, lines = trained(config)
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["device_memory_gb"] == 12.34 and row["device_memory_limit_gb"] == 16.0
    assert row["mfu"] > 0 and row["memory_gb"] > 0
    last = next(line for line in reversed(lines) if line.startswith("step 6/6"))
    assert "memory 12.3 of 16.0 GB" in last and f"MFU {row['mfu']:.0%}" in last


def test_without_a_limit_the_peak_alone_is_shown():
    out = io.StringIO()
    display = Display("a", max_steps=2, console=Console(file=out, width=300))
    display.on_row(1, {"loss": 1.0, "memory_gb": 3.0, "device_memory_gb": 2.0})
    display.on_row(2, {"loss": 1.0, "memory_gb": 3.0})
    first, second = out.getvalue().splitlines()
    assert "memory 2.0 GB" in first and "memory 3.00 GB" in second and "MFU" not in first


# --- profiles ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_profile_of_two_steps_is_in_the_runs_folder(config: TrainConfig, monkeypatch):
    calls: list[str] = []
    real_start, real_stop = jax.profiler.start_trace, jax.profiler.stop_trace
    monkeypatch.setattr(
        jax.profiler, "start_trace", lambda *a, **k: (calls.append("start"), real_start(*a, **k))
    )
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: (calls.append("stop"), real_stop()))
    folder, lines = trained(dataclasses.replace(config, profile_steps="3:4"))
    assert calls == ["start", "stop"]
    assert any(path.name == "perfetto_trace.json.gz" for path in folder.glob("profile/**/*.gz"))
    assert any(f"a profile is in {folder / 'profile'}" in line for line in lines)
    rows = (folder / "metrics.jsonl").read_text()
    quiet, _ = trained(dataclasses.replace(config, name="quiet"))
    losses = [[json.loads(x)["loss"] for x in text.splitlines()] for text in
              (rows, (quiet / "metrics.jsonl").read_text())]  # fmt: skip
    np.testing.assert_array_equal(*losses)


def test_a_profiler_that_fails_is_a_warning(tmp_path: Path, monkeypatch):
    said: list[str] = []

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Only one profile may be run at a time.\nmore")

    profile = StepProfile((1, 2), tmp_path, say=said.append)
    monkeypatch.setattr(jax.profiler, "start_trace", broken)
    for step in (1, 2, 3):
        profile.before(step)
        profile.after(step, ())
    assert said == ["warning: the steps are not profiled: Only one profile may be run at a time."]
    profile = StepProfile((1, 2), tmp_path, say=said.append)
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *a, **k: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", broken)
    profile.before(1)
    profile.close()
    profile.close()
    assert len(said) == 2


def test_a_run_that_resumes_inside_the_range_records_the_rest(tmp_path: Path, monkeypatch):
    calls: list[str] = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *a, **k: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    for first in (5, 9):
        profile = StepProfile((3, 6), tmp_path, say=calls.append)
        for step in range(first, first + 4):
            profile.before(step)
            profile.after(step, ())
        profile.close()
    assert calls[:2] == ["start", "stop"] and len(calls) == 3


@pytest.mark.parametrize("text", ["5", "5:", "0:3", "7:3", "a:b", "1:2:3", "-1:2", "1.5:2"])
def test_ranges_that_are_none(text: str):
    with pytest.raises(UsageError, match=r"profile_steps: .* is not a range of steps; valid: A:B"):
        TrainConfig(profile_steps=text)


def test_ranges():
    assert steps_to_profile(None) is None and steps_to_profile("20:25") == (20, 25)
