"""Compares drawing with Pinxit and with diffusers' stock `PRXPipeline`, on one exported model.

The model is exported with `pinxit export`, and both sides draw one picture from a prompt: text
encoder, guided Euler steps at the same times, and decoding to a PIL image. Each side runs alone in
its process, since the threads of one runtime slow the other, and the processes take turns. For
each side the script prints the median over its processes of the wall time and CPU time of one
picture and of the peak memory of the process, and torch's over ours: above 1, ours needs less.

    python benchmarks/sampling_vs_diffusers.py                      # the shipped model, 64 x 64
    python benchmarks/sampling_vs_diffusers.py --preset small --size 256

It needs the ``parity`` extra. With `--preset`, the network has that size and random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

PROMPT = "a small red house under a full moon"
GUIDANCE = 3.0
SIDES = ("pinxit", "diffusers", "diffusers, compiled")
"""The sides that are measured. The last one compiles the transformer with `torch.compile`."""
WARMING = 2
"""Pictures that a process draws before it measures: the first one compiles."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", help="a size with random weights; none means the shipped model")
    parser.add_argument("--size", type=int, default=64, help="side of the picture in pixels")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=5, help="measured in each process")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    return parser.parse_args()


def exported(preset: str | None, size: int, folder: Path) -> Path:
    """Exports the shipped model, or one of a preset's size with random weights."""
    words = [sys.executable, "-m", "pinxit", "export"]
    if preset is not None:
        words.append(str(random_release(preset, size, folder / "release")))
    target = folder / "exported"
    subprocess.run([*words, "--format", "diffusers", "--out", str(target)], check=True)
    return target


def random_release(preset: str, size: int, folder: Path) -> Path:
    """Writes a release with the bundled encoders, whose network's output is not zero."""
    import jax
    import numpy as np

    from pinxit.model_loading import load_checkpoint, save_release
    from pinxit.models import transformer
    from pinxit.pipeline import TextToImage

    shipped = load_checkpoint()
    config = transformer.preset(preset, in_channels=16, context_dim=128)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + 0.02 * rng.normal(size=x.shape).astype(np.float32),
        transformer.init_params(config, jax.random.key(0)),
    )
    model = TextToImage(
        params,
        config,
        text_encoder=shipped.text_encoder,
        autoencoder=shipped.autoencoder,
        image_size=size,
        name=preset,
    )
    return save_release(folder, model, text_encoder="tiny", vae="tiny", caption_cleaning="stock")


def drawing_with_pinxit(args: argparse.Namespace) -> Callable[[int], object]:
    """Loads the model, and returns the function that draws the picture of a seed."""
    from pinxit import load_checkpoint

    model = load_checkpoint(args.model)
    return lambda seed: model.generate(
        PROMPT,
        seed=seed,
        size=args.size,
        steps=args.steps,
        guidance_scale=GUIDANCE,
        solver="euler",
        spacing="diffusers",
    )


def drawing_with_diffusers(args: argparse.Namespace) -> Callable[[int], object]:
    """Loads the stock pipeline, and returns the function that draws the picture of a seed."""
    import torch
    from diffusers import DiffusionPipeline

    torch.set_num_threads(args.threads)
    pipeline = DiffusionPipeline.from_pretrained(args.model)
    pipeline.set_progress_bar_config(disable=True)
    if args.side.endswith("compiled"):
        pipeline.transformer = torch.compile(pipeline.transformer)
    return lambda seed: pipeline(
        PROMPT,
        num_inference_steps=args.steps,
        guidance_scale=GUIDANCE,
        height=args.size,
        width=args.size,
        use_resolution_binning=False,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]


def measure_side(args: argparse.Namespace) -> None:
    """Draws pictures in this process and prints the figures of each as JSON."""
    draw = (drawing_with_pinxit if args.side == "pinxit" else drawing_with_diffusers)(args)
    walls, cpus = [], []
    for seed in range(WARMING + args.pictures):
        wall, cpu = time.perf_counter(), time.process_time()
        draw(seed)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(json.dumps([median(walls[WARMING:]), median(cpus[WARMING:]), peak_memory()]))


def peak_memory() -> float:
    """Returns the peak of this process's resident memory in MiB.

    The kernel's ``ru_maxrss`` is no use here: it begins with the peak of the parent process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) / 1024


def run_side(side: str, model: Path, args: argparse.Namespace) -> list[float]:
    """Measures one side in a process of its own; returns wall and CPU seconds, and peak MB."""
    words = [sys.executable, __file__, "--side", side, "--model", str(model)]
    for name in ("size", "steps", "pictures", "threads"):
        words += [f"--{name}", str(getattr(args, name))]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    answer = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    args = arguments()
    if args.side:
        measure_side(args)
        return
    sides = SIDES if args.compile else SIDES[:2]
    figures: dict[str, list[list[float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        model = exported(args.preset, args.size, Path(folder))
        for _ in range(args.rounds):
            for side in sides:
                figures[side].append(run_side(side, model, args))
    print(f"{args.preset or 'shipped model'}, {args.size} x {args.size}, {args.steps} steps")
    print(f"| {'':20} | wall s | CPU s | peak MiB | wall ratio | CPU ratio | memory ratio |")
    print("|---|---|---|---|---|---|---|")
    mine = [median(column) for column in zip(*figures["pinxit"], strict=True)]
    for side in sides:
        row = [median(column) for column in zip(*figures[side], strict=True)]
        ratios = " | ".join(f"{a / b:.2f}" for a, b in zip(row, mine, strict=True))
        print(f"| {side:20} | {row[0]:.3f} | {row[1]:.3f} | {row[2]:.0f} | {ratios} |")


if __name__ == "__main__":
    main()
