"""The loop: rows, hooks, interruptions, and giving up on losses that are not finite."""

import json
import os
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import FROZEN, assert_trees_equal, loader, make, poisoned

from pinxit.train.interruption import Interruption
from pinxit.train.loop import Hook, NotFinite, _Clock, train
from pinxit.train.metric_rows import read_rows
from pinxit.train.metric_window import Window
from pinxit.train.metric_writers.json_lines import JsonLines
from pinxit.train.metric_writers.tensorboard import TensorBoard
from pinxit.train.metric_writers.writer import RecordedRun


def loop(step, state, **options):
    """Trains for 10 steps with a row every 4; returns what `train` does, and the rows."""
    rows: list[dict] = []
    options = {"max_steps": 10, "log_interval": 4} | options
    record = options.pop("record", lambda number, row: rows.append({"step": number} | row))
    result = train(step, state, loader(), frozen=FROZEN, on_row=record, **options)
    return *result, rows


def learned(rows: list[dict]) -> list[dict]:
    """The rows without speed and memory."""
    timed = ("images_per_second", "seconds_per_step", "step_seconds", "data_wait_share")
    timed += ("memory_gb",)
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]


def test_rows_and_hooks():
    called = []
    hooks = [
        Hook(5, lambda step, state, window: called.append((step, int(state.step), len(window))))
    ]
    state, window, rows = loop(*make(), hooks=[*hooks, Hook(0, hooks[0].call)])
    assert [row["step"] for row in rows] == [4, 8, 10]
    assert called == [(5, 5, 1), (10, 10, 0)]
    assert int(state.step) == 10 and len(window) == 0
    assert rows[0]["images"] == 32 and 0 <= rows[0]["data_wait_share"] <= 1
    assert len(rows[0]["loss_by_t"]) == 10


def test_a_stop_and_resume_writes_the_same_rows():
    expected_state, _, expected = loop(*make())
    interruption = Interruption()

    def interrupt(step: int) -> None:
        if step == 6:
            interruption.requested = "SIGTERM"

    step, state = make()
    state, window, first = loop(step, state, on_step=interrupt, interruption=interruption)
    assert int(state.step) == 6 and len(window) == 2
    window = Window(json.loads(json.dumps(window.fetch())))
    state, _, second = loop(step, state, window=window)
    assert learned(first + second) == learned(expected)
    assert_trees_equal(jax.device_get(state), jax.device_get(expected_state))


def test_too_many_bad_steps_stop_with_a_reason():
    with pytest.raises(NotFinite, match=r"step 8.* 3 consecutive steps .max_skipped is 2."):
        loop(*make(objective=poisoned(2, 4, 5, 6)), max_skipped=2)
    _, _, rows = loop(*make(objective=poisoned(2, 4, 5, 6)), max_skipped=3)
    assert [row["skipped"] for row in rows] == [1, 4, 4]
    assert all(row["loss"] > 0 for row in rows)


def test_a_step_is_timed_by_itself_where_it_waits():
    """Data of 20 ms a batch, and a step of far less."""
    slow = loader()
    batches = slow.batches

    def slowly(start: int, stop: int):
        for raw in batches(start, stop):
            time.sleep(0.02)
            slow.wait_seconds += 0.02
            yield raw

    slow.batches = slowly  # type: ignore[method-assign]
    rows: list[dict] = []
    train(*make(), slow, frozen=FROZEN, max_steps=16, log_interval=4,
          on_row=lambda step, row: rows.append(row))  # fmt: skip
    assert "step_seconds" not in rows[0], "it is not known yet that there is waiting"
    for row in rows[1:]:
        assert row["data_wait_share"] > 0.5 and row["seconds_per_step"] > 0.02
        assert 0 < row["step_seconds"] < row["seconds_per_step"]
    *_, quick = loop(*make())
    assert all("step_seconds" not in row or row["step_seconds"] > 0 for row in quick)


def test_a_row_without_finite_steps_has_no_loss():
    _, _, rows = loop(*make(objective=poisoned(0, 1, 2, 3)), max_skipped=9)
    assert rows[0]["loss"] is None and rows[1]["loss"] > 0
    json.dumps(rows, allow_nan=False)


def test_signals():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        assert interruption.requested is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_json_lines_resume(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonLines(path)
    for step in (1, 2, 3):
        writer.write(step, {"loss": 0.5 * step})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3]
    JsonLines(path, resume_at=2).write(3, {"loss": 9.0})
    assert [row["loss"] for row in read_rows(path)] == [0.5, 1.0, 9.0]


def test_tensorboard_events(tmp_path: Path):
    writer = TensorBoard(RecordedRun("run", tmp_path, {}))
    writer.write(1, {"loss": 0.5, "loss_by_t": [1.0, None], "note": "text"})
    writer.close()
    assert any(path.name.startswith("events.") for path in tmp_path.iterdir())


def test_the_clock_leaves_out_whatever_compiles():
    clock, done = _Clock(loader()), jnp.zeros(())

    def step(size: int, seconds: float = 0.0) -> None:
        clock.begin({"latents": np.zeros((2, size, size, 4))})
        time.sleep(seconds)
        clock.tick(done)

    step(8)
    assert clock.steps == 0 and clock.paused == 0  # the first one: the row begins behind it
    step(8)
    step(4, seconds=0.05)  # another shape
    assert clock.steps == 1 and clock.paused >= 0.05
    step(4)
    step(8)
    assert clock.steps == 3
