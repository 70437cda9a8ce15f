"""Watchers that raise or hang at a step where a checkpoint is due: the run goes on unchanged.

The parameters must equal those of the undisturbed run bit for bit, and each checkpoint be there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import strict_trackio
import strict_wandb
from drill_table import record
from small_run import arrays_of, rows_without_times, same_arrays, small_run, train_here

from pinxit.checkpoint_files import read_choice
from pinxit.train import background_writer
from pinxit.train import run as run_module
from pinxit.train.metric_writers.json_lines import JsonLines
from pinxit.train.metric_writers.tensorboard import TensorBoard
from pinxit.train.report import observer

STEPS = (4, 8, 12)
WATCHERS: dict[str, tuple[Any, str]] = {
    "sample grid": (observer.Observer, "sheet"),
    "evaluation": (observer, "measure"),
    "metrics.jsonl": (JsonLines, "write"),
    "TensorBoard": (TensorBoard, "write"),
    "Weights & Biases": (strict_wandb.Run, "log"),
    "Trackio": (strict_trackio.Run, "log"),
}
"""The function of each watcher that is made to fail."""


@pytest.fixture(scope="module")
def whole(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the undisturbed run."""
    result, output = train_here(small_run(bundle, tmp_path_factory.mktemp("whole")))
    assert result.status == "finished" and "warning" not in output, output
    return result.folder


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """An event for which functions that hang wait, set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()
    time.sleep(0.3)  # the threads that were left behind end


def raises(*_: Any, **__: Any) -> Any:
    """Stands in for a function that fails."""
    raise ValueError("the watcher is broken")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raises", "hangs"])
@pytest.mark.parametrize("name", WATCHERS)
def test_a_watcher_fails(
    name: str,
    kind: str,
    whole: Path,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    released: threading.Event,
):
    def hangs(*_: Any, **__: Any) -> Any:
        released.wait()
        raise TimeoutError

    online, local = strict_wandb.install(monkeypatch), strict_trackio.install(monkeypatch)
    monkeypatch.setattr(background_writer, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(run_module, "CLOSE_SECONDS", 2.0)
    owner, function = WATCHERS[name]
    fault: Callable[..., Any] = raises if kind == "raises" else hangs
    monkeypatch.setattr(owner, function, fault)
    config = small_run(bundle, tmp_path, watch_timeout=2, log="tensorboard,wandb,trackio")
    started = time.monotonic()
    result, output = train_here(config)
    seconds = time.monotonic() - started
    assert result.status == "finished", output
    expected = arrays_of(whole, 12)
    for step in STEPS:
        assert same_arrays(arrays_of(result.folder, step), arrays_of(whole, step)), step
    assert read_choice(result.folder / "checkpoints" / "step_00000012") is not None
    failures = [one for one in result.results["warnings"] if one["kind"] == "watcher"]
    silent = kind == "hangs" and name in ("TensorBoard", "Weights & Biases", "Trackio")
    assert failures or silent, output
    warnings = [line for line in output.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == len({line.split(" failed")[0] for line in warnings}), "said once"
    if name not in ("metrics.jsonl", "evaluation"):
        assert rows_without_times(result.folder) == rows_without_times(whole)
    if name != "Weights & Biases":
        (run,) = online.runs.values()
        assert 12 in run.history
    if name != "Trackio":
        (run,) = local.runs.values()
        assert 12 in [step for step, _ in run.rows]
    evidence = f"{len(expected)} arrays equal, 3 of 3 checkpoints, {seconds:.0f} s"
    record("watchers", f"{name} {kind}", 1, 1, evidence)
