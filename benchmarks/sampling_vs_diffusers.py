"""Compares drawing with Pinxit and with diffusers' stock `PRXPipeline`, on one exported model.

The model is exported with `pinxit export`, and both sides draw one picture from a prompt: text
encoder, guided Euler steps at the same times, and decoding to a PIL image. The tasks are a usual
number of steps, few steps, and image to image. The stock pipeline has no image to image: its side
encodes the picture with the pipeline's autoencoder, blends it with noise, and gives the pipeline
the blend as latents and the remaining times, as its arguments allow. Preparing the blend counts.

Each side runs alone in its process, since the threads of one runtime slow the other, and the
processes take turns (see `process_turns`). The script draws one picture of each task from the same
noise on every side and prints the largest difference of a channel, of 255. Then come the medians of
the wall time and CPU time of one picture and of the peak memory of the process, and torch's over
ours: above 1, ours needs less.

    python benchmarks/sampling_vs_diffusers.py                      # the shipped model, 64 x 64
    python benchmarks/sampling_vs_diffusers.py --preset small --size 256

It needs the ``parity`` extra. With `--preset`, the network has that size and random weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from process_turns import (
    add_turn_options,
    answer,
    begin_report,
    by_task,
    measure,
    medians,
    new_cache,
    peaks_while_compiling,
    prepare_sides,
    print_table,
    side_words,
    take_turns,
)
from processor_class import processor, side_environment, usable_cores, versions

PROMPT = "a small red house under a full moon"
GUIDANCE, STRENGTH = 3.0, 0.6
SEED = 7
"""The seed of the pictures that are compared."""
OURS, EAGER, COMPILED = "pinxit", "diffusers", "diffusers, compiled"
SIDES = (OURS, EAGER, COMPILED)
"""The sides that are measured. The last one compiles the transformer with `torch.compile`."""
PREPARE = "inputs"
"""The side that exports the model for the others."""
Draw = Callable[[int], Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", help="a size with random weights; none means the shipped model")
    parser.add_argument("--size", type=int, default=64, help="side of the picture in pixels")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--few", type=int, default=4, help="steps of the task of few steps")
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    add_turn_options(parser, seconds=2.0)
    return parser.parse_args()


def task_names(args: argparse.Namespace) -> tuple[str, str, str]:
    """Returns the names of the three tasks."""
    remaining = max(round(STRENGTH * args.steps), 1)
    return (
        f"{args.steps} steps",
        f"{args.few} steps",
        f"image to image, {remaining} of {args.steps} steps",
    )


def export_model(args: argparse.Namespace) -> None:
    """Exports the shipped model, or one of a preset's size, and writes the noise and a picture."""
    import jax
    import numpy as np
    from PIL import Image

    words = [sys.executable, "-m", "pinxit", "export"]
    if args.preset is not None:
        words.append(str(random_release(args.preset, args.size, args.folder / "release")))
    target = args.folder / "exported"
    subprocess.run([*words, "--format", "diffusers", "--out", str(target)], check=True)
    vae = json.loads((target / "vae" / "config.json").read_text())
    side = args.size // 2 ** (len(vae["block_out_channels"]) - 1)
    shape = (side, side, vae["latent_channels"])
    np.save(args.folder / "noise.npy", jax.random.normal(jax.random.key(SEED), shape))
    rows = np.linspace(0, 255, args.size).astype(np.uint8)
    picture = np.stack(np.broadcast_arrays(rows[:, None], rows[None, :], 128), -1)
    Image.fromarray(picture.astype(np.uint8)).save(args.folder / "picture.png")
    answer({})


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


def drawing_with_pinxit(args: argparse.Namespace) -> dict[str, Draw]:
    """Loads the model, and returns for each task the function that draws the picture of a seed."""
    from pinxit import load_checkpoint

    model = load_checkpoint(args.folder / "exported")
    picture = str(args.folder / "picture.png")
    how = {
        "size": args.size,
        "guidance_scale": GUIDANCE,
        "solver": "euler",
        "spacing": "diffusers",
    }
    usual, few, image = task_names(args)
    return {
        usual: lambda seed: model.generate(PROMPT, seed=seed, steps=args.steps, **how),
        few: lambda seed: model.generate(PROMPT, seed=seed, steps=args.few, **how),
        image: lambda seed: model.generate(
            PROMPT, seed=seed, steps=args.steps, image=picture, strength=STRENGTH, **how
        ),
    }


def drawing_with_diffusers(args: argparse.Namespace) -> dict[str, Draw]:
    """Returns the same with the stock pipeline. The seed `SEED` has JAX's noise."""
    import numpy as np
    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging
    from PIL import Image

    torch.set_num_threads(usable_cores())
    logging.set_verbosity_error()
    pipeline = DiffusionPipeline.from_pretrained(args.folder / "exported")
    pipeline.set_progress_bar_config(disable=True)
    if args.side == COMPILED:
        pipeline.transformer = torch.compile(pipeline.transformer)
    stored = torch.from_numpy(np.load(args.folder / "noise.npy")).permute(2, 0, 1)[None]
    stored = stored.contiguous()
    vae = pipeline.vae.config
    how = {
        "guidance_scale": GUIDANCE,
        "height": args.size,
        "width": args.size,
        "use_resolution_binning": False,
    }

    def noise(seed: int) -> Any:
        if seed == SEED:
            return stored
        return torch.randn(stored.shape, generator=torch.Generator().manual_seed(seed))

    def draw(seed: int, steps: int) -> Any:
        return pipeline(PROMPT, num_inference_steps=steps, latents=noise(seed), **how).images[0]

    def draw_from_image(seed: int) -> Any:
        pipeline.scheduler.set_timesteps(args.steps)
        times = pipeline.scheduler.timesteps[-max(round(STRENGTH * args.steps), 1) :]
        pixels = pipeline.image_processor.preprocess(Image.open(args.folder / "picture.png"))
        with torch.no_grad():
            encoded = pipeline.vae.encode(pixels).latent_dist.mean
        latents = (encoded - (vae.shift_factor or 0)) * vae.scaling_factor
        t = float(times[0]) / pipeline.scheduler.config.num_train_timesteps
        blend = (1 - t) * latents + t * noise(seed)
        return pipeline(PROMPT, timesteps=times.tolist(), latents=blend, **how).images[0]

    usual, few, image = task_names(args)
    return {
        usual: lambda seed: draw(seed, args.steps),
        few: lambda seed: draw(seed, args.few),
        image: draw_from_image,
    }


def measure_side(args: argparse.Namespace) -> None:
    """Measures the tasks of one side in this process, or exports the model."""
    import itertools

    import numpy as np

    if args.side == PREPARE:
        return export_model(args)
    tasks = (drawing_with_pinxit if args.side == OURS else drawing_with_diffusers)(args)
    pictures = {name: np.asarray(draw(SEED)) for name, draw in tasks.items()}
    np.savez(args.folder / f"{args.side}.npz", **pictures)
    figures = {}
    for name, draw in tasks.items():
        seeds = itertools.count(SEED + 1)
        figures[name] = measure(lambda: draw(next(seeds)), seconds=args.seconds)  # noqa: B023
    return answer(figures)


def differences(folder: Path) -> dict[str, dict[str, int]]:
    """Returns the largest difference of a channel from our pictures, for each task and side."""
    import numpy as np

    result: dict[str, dict[str, int]] = {}
    if not (folder / f"{OURS}.npz").exists():
        return result
    with np.load(folder / f"{OURS}.npz") as file:
        mine = {name: file[name].astype(int) for name in file}
    for side in SIDES[1:]:
        if (folder / f"{side}.npz").exists():
            with np.load(folder / f"{side}.npz") as file:
                for name, picture in mine.items():
                    largest = int(np.abs(file[name].astype(int) - picture).max())
                    result.setdefault(name, {})[side] = largest
    return result


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Measures all sides in turns; returns the results."""
    environment = side_environment(args.cap)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        failure = "the model could not be exported"
        prepare_sides(__file__, PREPARE, folder, environment, failure=failure)
        environment = new_cache(environment, folder)
        commands = {side: side_words(__file__, side, folder) for side in args.sides}
        compiling = peaks_while_compiling(commands, OURS, environment)
        answers = take_turns(commands, rounds=args.rounds, environment=environment)
        difference = differences(folder)
    sides = {side: medians(each) for side, each in answers.items()}
    return {
        "tasks": by_task(sides, task_names(args), compiling=compiling),
        "differences": difference,
        "about": f"{args.preset or 'shipped model'}, {args.size} x {args.size}",
        "processor": processor(args.cap),
        "versions": versions(),
    }


def main() -> None:
    args = arguments()
    if args.side:
        return measure_side(args)
    results = compare(args)
    begin_report(results, args.json)
    for task, sides in results["differences"].items():
        for side, value in sides.items():
            print(f"{task}: largest difference of {side} from {OURS}: {value} of 255")
    print_table(results["tasks"], OURS)


if __name__ == "__main__":
    main()
