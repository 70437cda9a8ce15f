"""The end of a run: its last state is copied once and written once, and the choice beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_run import small_run, train_here

from pinxit.checkpoint_files import CHOICE, damage, read_choice
from pinxit.model_loading import load_checkpoint
from pinxit.train import checkpoint


def test_the_last_checkpoint_is_copied_and_written_once(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fetched: list[int] = []
    copied = checkpoint.whole_pieces

    def counted(state: Any) -> Any:
        fetched.append(int(state.step))
        return copied(state)

    monkeypatch.setattr(checkpoint, "whole_pieces", counted)
    config = small_run(
        bundle, tmp_path, max_steps=4, save_interval=2, sample_interval=0, eval_interval=0
    )
    result, output = train_here(config)
    assert result.status == "finished", output
    assert fetched == [2, 4]
    folder = result.folder / "checkpoints" / "step_00000004"
    assert read_choice(folder) == result.results["ema"] and damage(folder) is None
    stored = load_checkpoint(result.folder).stored
    assert stored is not None and stored.details["ema"] == result.results["ema"]
    value = json.loads((folder / CHOICE).read_text())
    (folder / CHOICE).write_text(json.dumps(value | {"best": "raw2"}))
    assert damage(folder) == f"{CHOICE} is damaged"
