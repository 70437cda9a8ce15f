"""Compares loss curves in float32, bfloat16 and float16 on scenes: does mixed precision hurt?

    python benchmarks/precision_curves.py

The float16 and bfloat16 runs have the same seed as the first float32 run, and so the same data,
first parameters and noise. The other float32 runs have other seeds, and show how much the seed
alone changes the loss. Half precision passes if its loss over the second half of the run differs
from float32's by less than the seeds do. The script draws one picture, prints the figures, and
exits with 1 if a precision does not pass.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from pinxit import recipes
from pinxit.cli.xla_environment import prepare_environment
from pinxit.train.metric_rows import read_rows
from pinxit.train.settings import (
    EmaConfig,
    EvalConfig,
    ModelConfig,
    SampleGridConfig,
    Sampling,
    TrainConfig,
)

COLOURS = {"float32": "0.35", "bfloat16": "tab:blue", "float16": "tab:red"}
SMOOTH = 5
"""Rows in a running mean."""


def settings(args: argparse.Namespace, folder: str, dtype: str, seed: int) -> TrainConfig:
    """The scenes recipe with a smaller model and a shorter run."""
    return dataclasses.replace(
        recipes.scenes(),
        name=f"{dtype}_{seed}",
        output_dir=folder,
        seed=seed,
        dataset_size=args.rows,
        max_steps=args.steps,
        log_interval=10,
        save_interval=args.steps,
        sample_interval=0,
        eval_interval=0,
        model=ModelConfig("debug", hidden_size=args.width, depth=args.depth, dtype=dtype),  # type: ignore[arg-type]
        ema=EmaConfig(lengths=()),
        sampling=Sampling(steps=1, guidance_scale=1.0),
        samples=SampleGridConfig(prompts=("a house",), seeds=(0,)),
        evaluation=EvalConfig(prompts=0, images=256),
    )


def trained(args: argparse.Namespace, folder: str, dtype: str, seed: int) -> dict[str, Any]:
    """One run's curve and figures."""
    from pinxit.train.run import run

    begun, said = time.perf_counter(), io.StringIO()
    result = run(settings(args, folder, dtype, seed), console=Console(file=said))
    if result.status != "finished":
        raise SystemExit(f"{dtype}, seed {seed}: {result.reason}\n{said.getvalue()}")
    rows = [row for row in read_rows(result.folder / "metrics.jsonl") if "loss" in row]
    found = {
        "dtype": dtype,
        "seed": seed,
        "steps": [row["step"] for row in rows],
        "loss": [row["loss"] for row in rows],
        "second_half": fmean(row["loss"] for row in rows[len(rows) // 2 :]),
        "validation": result.results["validation"]["raw"],
        "skipped": result.results["skipped"],
        "seconds_per_step": float(np.median([row["seconds_per_step"] for row in rows[1:]])),
    }
    seconds = time.perf_counter() - begun
    shown = {k: v for k, v in found.items() if k not in ("steps", "loss")}
    print(json.dumps(shown | {"seconds": round(seconds)}), flush=True)
    return found


def smooth(values: list[float]) -> np.ndarray:
    """Running means."""
    return np.convolve(values, np.ones(SMOOTH) / SMOOTH, mode="valid")


def draw(runs: list[dict[str, Any]], path: Path, title: str) -> None:
    """Curves on the left; on the right what each differs from the first float32 run by."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    steps = runs[0]["steps"][SMOOTH - 1 :]
    seeds = np.stack([smooth(r["loss"]) for r in runs if r["dtype"] == "float32"])
    first = seeds[0]
    label = f"float32, {len(seeds)} seeds: the range"
    left.fill_between(steps, seeds.min(0), seeds.max(0), color="0.8", label=label)
    right.fill_between(steps, (seeds - first).min(0), (seeds - first).max(0), color="0.8",
                       label="float32, other seeds")  # fmt: skip
    for run in runs:
        if run["seed"] != runs[0]["seed"]:
            continue
        colour, curve = COLOURS[run["dtype"]], smooth(run["loss"])
        left.plot(steps, curve, color=colour, linewidth=1, label=f"{run['dtype']}, seed 0")
        right.plot(steps, curve - first, color=colour, linewidth=1, label=run["dtype"])
    left.set(title=title, xlabel="step", ylabel="training loss", yscale="log")
    right.set(title="difference from float32, seed 0", xlabel="step")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--folder", help="folder that keeps the runs; finished runs are not repeated"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images/precision.png"))
    args = parser.parse_args()
    prepare_environment()
    wanted = [("float32", seed) for seed in range(args.seeds)]
    wanted += [("bfloat16", 0), ("float16", 0)]
    with tempfile.TemporaryDirectory() as folder:
        folder = args.folder or folder
        runs = [trained(args, folder, dtype, seed) for dtype, seed in wanted]
    title = f"scenes, {args.width} wide, {args.depth} deep, batch {recipes.scenes().batch_size}"
    draw(runs, args.out, title)
    halves = [run["second_half"] for run in runs if run["dtype"] == "float32"]
    spread, passed = max(halves) - min(halves), True
    print(f"float32, {args.seeds} seeds: second half {min(halves):.4f} to {max(halves):.4f}")
    for run in runs[args.seeds :]:
        off = run["second_half"] - runs[0]["second_half"]
        good = abs(off) < spread
        passed &= good
        print(
            f"{run['dtype']}: {off:+.5f} from float32 with the same seed, {abs(off) / spread:.2f} "
            f"times the difference between seeds; validation "
            f"{run['validation'] / runs[0]['validation']:.4f} times float32's; "
            f"{run['skipped']} steps were skipped; "
            f"{'within' if good else 'OUTSIDE'} the noise"
        )
    print(args.out)
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
