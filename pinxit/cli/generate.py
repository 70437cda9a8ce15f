"""`pinxit generate`: pictures for prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.cli.arguments import parse
from pinxit.config import UsageError, check_writable, positive
from pinxit.progress import counted, showing


@dataclass(frozen=True)
class GenerateOptions:
    """Options of `pinxit generate`."""

    prompt: tuple[str, ...] = ()
    """What to draw; also as plain words: pinxit generate "a red house" "a blue tent"."""
    prompts_file: str | None = None
    """A text file with one prompt on each line."""
    checkpoint: str | None = None
    """A run, one of its checkpoints, or a release; none: the model that ships with Pinxit."""
    out: str = "outputs"
    """Directory for the PNG files; existing files are never overwritten."""
    steps: int | None = None
    """Solver steps."""
    guidance_scale: float | None = None
    """How closely to follow the prompt; 1 is off."""
    seed: int = 0
    """Picture i is drawn from seed + i."""
    n: int = 1
    """Pictures of each prompt."""
    solver: str | None = None
    """euler, heun, midpoint or dpmpp_2m."""
    shift: float | None = None
    """Time-grid shift; above 1 spends more steps near noise."""
    size: int | None = None
    """Side of the picture in pixels; none: as trained."""
    negative_prompt: str = ""
    """What to steer away from."""
    guidance_interval: tuple[float, float] | None = None
    """Times, from 0 (data) to 1 (noise), within which guidance acts."""
    cfg_zero_star: bool | None = None
    """CFG-Zero*: fit the null velocity to the conditional one."""
    zero_init: float | None = None
    """CFG-Zero*: share of the time, at the noisy end, in which nothing moves."""
    ema: str | None = None
    """Which average of a run to draw with, or raw; none: the run's best."""
    batch_size: int | None = None
    """Pictures computed together; the same picture may differ in its last bits between sizes."""


def generate_command(argv: Sequence[str]) -> int:
    """Draws pictures and prints their paths."""
    options = parse(
        GenerateOptions,
        argv,
        aliases={"cfg_scale": "guidance_scale", "num_inference_steps": "steps"},
        prog="pinxit generate",
        description='Draws pictures: pinxit generate "a small red house under a full moon" --n 4',
        positional="prompt",
    )
    prompts = _prompts(options)
    positive("n", options.n)
    positive("steps", options.steps)
    check_writable("out", options.out, Path(options.out))
    from rich.console import Console

    from pinxit.pipeline import load_checkpoint
    from pinxit.png_recipe import save_png

    model = load_checkpoint(options.checkpoint, ema=options.ema)
    settings = sampling_options(options)
    sampling = model.sampling.override(**settings)
    with showing(
        Console(stderr=True),
        f"drawing {counted(len(prompts) * options.n, 'picture')}",
        unit="picture",
    ) as report:
        images = model.generate(
            prompts,
            n=options.n,
            seed=options.seed,
            size=options.size,
            negative_prompt=options.negative_prompt,
            batch_size=options.batch_size,
            progress=report,
            **settings,
        )
    for i, image in enumerate(images):
        recipe = model.recipe(
            prompts[i // options.n],
            seed=(options.seed + i) % 2**32,
            size=options.size,
            negative_prompt=options.negative_prompt,
            sampling=sampling,
            batch_size=options.batch_size,
        )
        print(save_png(options.out, image, recipe))
    return 0


def sampling_options(options: object) -> dict[str, Any]:
    """The options that say how to draw, those not given left out."""
    names = ("steps", "guidance_scale", "solver", "shift")
    names += ("guidance_interval", "cfg_zero_star", "zero_init")
    found = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _prompts(options: GenerateOptions) -> list[str]:
    prompts = list(options.prompt)
    if options.prompts_file is not None:
        path = Path(options.prompts_file)
        if not path.is_file():
            problem = "not a file"
            raise UsageError("prompts_file", str(path), problem=problem, valid="a text file")
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError as error:
            problem = f"not UTF-8 text ({error.reason} at byte {error.start})"
            valid = "a text file"
            raise UsageError("prompts_file", str(path), problem=problem, valid=valid) from error
        prompts += [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UsageError("prompt", prompts, problem="an empty list", valid="at least one prompt")
    return prompts
