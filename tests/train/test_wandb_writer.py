"""Weights & Biases: each run has an id of its own, which a resume uses again, and its pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import strict_wandb
from PIL import Image

from pinxit.train.metric_writers import WeightsAndBiases, check_wandb


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> strict_wandb.Server:
    """The stand-in for the service."""
    return strict_wandb.install(monkeypatch)


def test_runs_of_one_name_are_two_runs(server: strict_wandb.Server, tmp_path: Path):
    check_wandb(True)
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        writer = WeightsAndBiases("a:b\n%", folder, {"seed": 1})
        writer.write(2, {"loss": 0.5, "loss_by_t": [1.0, None], "note": "text"})
        Image.new("RGB", (4, 4)).save(folder / "grid.png")
        writer.picture(2, folder / "grid.png")
        writer.close()
    resumed = WeightsAndBiases("a:b\n%", tmp_path / "one", {"seed": 1})
    resumed.write(4, {"loss": 0.25})
    assert len(server.runs) == 2
    first, second = server.runs.values()
    assert (first.started, second.started) == (2, 1) and first.name == second.name == "a:b%"
    assert first.history[2]["loss_by_t/0"] == 1.0 and first.history[4] == {"loss": 0.25}
    assert isinstance(first.history[2]["samples"], strict_wandb.Image)
    assert first.finished == 1


def test_a_damaged_id_is_made_again(server: strict_wandb.Server, tmp_path: Path):
    (tmp_path / "wandb.json").write_text('{"id": "a/b"}')
    WeightsAndBiases("run", tmp_path, {})
    assert list(server.runs) != ["a/b"]
