"""Folders of runs as training writes them, with known values, for tests of their pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from pinxit.config import to_json
from pinxit.contact_sheet import contact_sheet, save_sheet
from pinxit.recipes import RECIPES
from pinxit.train.run_folder import RunFolder

EVIL = "<img src=x onerror=\"document.title='broken'\">'\"</script>"
"""A text that runs a script if a page takes it for HTML."""
COLOURS = ("red", "lime", "blue", "yellow")
"""The colours of the samples, by number of the grid."""


def row(step: int, speed: float = 1.0) -> dict[str, Any]:
    """A row of metrics, with a loss that has eight digits and a little noise."""
    noise = (step * 7919 % 101) / 1010
    loss = 2.0 / (1 + speed * step / 100) + noise / 10
    return {
        "step": step,
        "loss": loss,
        "grad_norm": 1 + noise,
        "learning_rate": 1e-3 * min(1.0, step / 50),
        "images": step * 16,
        "images_per_second": 100 + noise,
        "seconds_per_step": 0.25,
        "memory_gb": 1.5,
        "skipped": 0,
        "loss_by_t": [loss * (1 + b / 10) if b != 2 or step % 20 else None for b in range(4)],
    }


def write_run(
    root: Path,
    *,
    steps: int = 200,
    speed: float = 1.0,
    prompts: tuple[str, ...] = ("a red house",),
    name: str | None = None,
    finished: bool = True,
    settings: dict[str, Any] | None = None,
) -> RunFolder:
    """Writes a run with a row per 10 steps, two evaluations and a grid per 50 steps."""
    folder = RunFolder(root)
    folder.samples.mkdir(parents=True)
    config = to_json(RECIPES["scenes"]().resolved()) | {"name": name or root.name}
    change = {"step": 60, "updates": 60, "setting": "optimizer.learning_rate", "old": 1, "new": 2}
    config |= {"max_steps": steps if finished else 2 * steps, "changes": [change]}
    config["optimizer"] |= {"learning_rate": 1e-3 * speed}
    folder.config.write_text(json.dumps(config | (settings or {})))
    about = {"command": ["pinxit", "train", "--name", name or root.name], "jax": "0"}
    (folder.root / "environment.json").write_text(json.dumps(about))
    rows = [row(step, speed) for step in range(10, steps + 1, 10)]
    rows[4]["warnings"] = [
        {"kind": "loss_rises", "step": 50, "text": f"the loss rises {EVIL}", "advice": "stop it"}
    ]
    for step in (100, 200):
        values = {"validation_loss/raw": 1.0 - step / 400, "validation_loss/ema_0.1": 0.9}
        rows += [{"step": step, **values, "prompts/accuracy/mean": step / 400}]
    rows.sort(key=lambda entry: entry["step"])
    folder.metrics.write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    for number, step in enumerate(range(50, steps + 1, 50)):
        write_grid(folder, step, COLOURS[number % len(COLOURS)], prompts)
    if finished:
        folder.results.write_text(json.dumps(results(steps)))
    return folder


def write_grid(
    folder: RunFolder, step: int, colour: str, prompts: tuple[str, ...] = ("a red house",)
) -> None:
    """Writes a sample grid of one colour, with its inverse for the average."""
    own, other = Image.new("RGB", (32, 32), colour), Image.new("RGB", (32, 32), "black")
    columns = {"raw": [[own, own]] * len(prompts), "ema_0.1": [[other, other]] * len(prompts)}
    sheet = contact_sheet(prompts, columns, title=f"step {step}")
    save_sheet(sheet, folder.samples / f"step_{step:08d}.png")


def results(steps: int) -> dict[str, Any]:
    """The results of a finished run."""
    values = {"prompts/accuracy/mean": 0.5, "validation_loss/raw": 0.5}
    return {
        "status": "finished",
        "step": steps,
        "images": steps * 16,
        "train_seconds": steps * 0.25,
        "parameters": 3_800_000,
        "ema": "raw",
        "validation": {"raw": 0.5},
        "accuracy": values,
        "evaluation": values,
        "warnings": [],
    }
