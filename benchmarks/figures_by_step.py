"""Evaluates the checkpoints of a run, and writes the figures by step into docs/expected_results.md.

    pinxit train --recipe scenes_long --keep_every 500
    python benchmarks/figures_by_step.py runs/scenes_long

Each checkpoint is measured by `pinxit evaluate` in a process of its own, whose results are kept in
``--out``, so that an interrupted benchmark goes on. Steps that the run has not kept are named and
left out. The picture shows fixed prompts and seeds at these steps. The second table has the times
that the planner computes, which nobody has measured. It is written from the file of
``pinxit plan --json``, if ``--plan`` names it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marked_table import write_table

PAGE = Path(__file__).parent.parent / "docs" / "expected_results.md"
PICTURE = PAGE.parent / "images" / "expected_results.png"
TRAIN = "pinxit train --recipe scenes_long --keep_every 500"
STEPS = (500, 1000, 1500, 3000, 9000)
SHOWN = (500, 1000, 3000, 9000)
"""Steps of the picture."""
CLAIMED = (10_000, 50_000, 100_000, 500_000)
"""Steps for which claims are usually made."""
PROMPTS = (
    "a small red house on the left, hills at night under a full moon, clear sky",
    "a large purple castle on the right by the sea at sunset",
    "a small yellow tent on the left and a small green tree on the right, mountains, snow",
)
COLUMNS = {
    "prompt accuracy": "prompts/accuracy/mean",
    "colour": "prompts/accuracy/colour",
    "object": "prompts/accuracy/object",
    "composition": "composition/accuracy/mean",
    "Fréchet distance, `scenes_clip`": "distances/value/frechet_scenes_clip",
    "recall, `scenes_clip`": "distances/value/recall_scenes_clip",
    "details, distance": "details/distance/mean",
    "stars": "details/drawn/stars",
    "validation loss": "validation/loss",
}
PERFECT = {
    "prompt accuracy": "prompts/ceiling/mean",
    "colour": "prompts/ceiling/colour",
    "object": "prompts/ceiling/object",
    "composition": "composition/ceiling/mean",
    "Fréchet distance, `scenes_clip`": "distances/noise/frechet_scenes_clip",
    "recall, `scenes_clip`": "distances/noise/recall_scenes_clip",
    "details, distance": "details/noise/mean",
    "stars": "details/real/stars",
}
"""Columns of the table, and the values of evaluation.json that they show, of drawn pictures and of
real ones."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--plan", type=Path, help="file of pinxit plan --json")
    parser.add_argument("--out", type=Path, default=Path("figures_by_step"))
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--composition_prompts", type=int, default=25)
    args = parser.parse_args()
    steps = [step for step in STEPS if checkpoint(args.run, step).is_dir()]
    missing = ", ".join(f"{step:,}" for step in STEPS if step not in steps)
    if not steps:
        parser.error(f"{args.run} has no checkpoints of steps {missing}; run: {TRAIN}")
    if missing:
        print(f"{args.run} has no checkpoints of steps {missing}, which are left out")
    args.out.mkdir(parents=True, exist_ok=True)
    values = {step: evaluated(args, step) for step in steps}
    write_table(PAGE, "<!-- measured -->", "<!-- end measured -->", measured(args.run, values))
    if args.plan is not None:
        write_table(PAGE, "<!-- planned -->", "<!-- end planned -->", planned(args.plan))
    draw(args.run, [step for step in SHOWN if step in steps] or steps)


def checkpoint(run: Path, step: int) -> Path:
    """Returns the folder of a run's checkpoint."""
    return run / "checkpoints" / f"step_{step:08d}"


def evaluated(args: argparse.Namespace, step: int) -> Mapping[str, float]:
    """Returns the values of a checkpoint, which are computed unless they are stored."""
    out = args.out / f"step_{step}.json"
    if not out.is_file():
        words = ["evaluate", "--checkpoint", checkpoint(args.run, step), "--out", out]
        words += ["--prompts", args.prompts, "--composition_prompts", args.composition_prompts]
        command = [sys.executable, "-m", "pinxit", *map(str, words)]
        subprocess.run(command, check=True)
    return json.loads(out.read_text())["values"]


def measured(run: Path, values: Mapping[int, Mapping[str, float]]) -> list[str]:
    """Returns the lines of the table of measured figures."""
    batch = json.loads((run / "config.json").read_text())["batch_size"]
    lines = [f"| step | images | {' | '.join(COLUMNS)} |", "|---" * (2 + len(COLUMNS)) + "|"]
    for step, row in values.items():
        cells = [_figure(row.get(name)) for name in COLUMNS.values()]
        lines.append(f"| {step:,} | {step * batch:,} | {' | '.join(cells)} |")
    cells = [_figure(row.get(PERFECT.get(name, ""))) for name in COLUMNS]
    return [*lines, f"| renders | | {' | '.join(cells)} |"]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def planned(path: Path) -> list[str]:
    """Returns the lines of the table of planned times."""
    plan: dict[str, Any] = json.loads(path.read_text())
    time, batch = plan["time"], plan["batch_size"]
    lines = [
        "| steps | images | hours on a v3-8, planned | from | to |",
        "|---|---|---|---|---|",
    ]
    for steps in CLAIMED:
        hours = [steps * time[name] / 3600 for name in ("middle", "low", "high")]
        shown = " | ".join(f"{value:.1f}" for value in hours)
        lines.append(f"| {steps:,} | {steps * batch / 1e6:.1f} M | {shown} |")
    return lines


def draw(run: Path, steps: Sequence[int]) -> None:
    """Draws the fixed prompts at some steps on one sheet."""
    names = "|".join(checkpoint(run, step).name for step in steps)
    words = ["grid", "--x", f"checkpoint={names}", "--y", f"prompt={'|'.join(PROMPTS)}"]
    words += ["--seed", "7", "--out", str(PICTURE)]
    PICTURE.unlink(missing_ok=True)  # the command never replaces another picture
    subprocess.run([sys.executable, "-m", "pinxit", *words], check=True, cwd=run / "checkpoints")


if __name__ == "__main__":
    main()
