"""`pinxit generate`: draws pictures for prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pinxit.cli.arguments import parse
from pinxit.cli.sampling_options import SamplingOptions, sampling_options
from pinxit.config import UsageError, check_writable, positive
from pinxit.progress import counted, showing
from pinxit.sampling import ALIASES


@dataclass(frozen=True)
class GenerateOptions(SamplingOptions):
    """Options of `pinxit generate`."""

    prompt: tuple[str, ...] = ()
    """Prompts to draw, with or without --prompt: pinxit generate "a red house" "a blue tent"."""
    prompts_file: str | None = None
    """A text file with one prompt on each line."""
    checkpoint: str | None = None
    """A run, one of its checkpoints, or a release; none means the model shipped with Pinxit."""
    out: str = "outputs"
    """Directory for the PNG files; existing files are never overwritten."""
    seed: int = 0
    """Seed of the first picture; picture i is drawn from seed + i."""
    n: int = 1
    """Number of pictures for each prompt."""
    size: int | None = None
    """Side of the pictures in pixels; none means the size that the model was trained on."""
    negative_prompt: str = ""
    """Text that guidance steers away from."""
    ema: str | None = None
    """The run's average to draw with, or raw; none means the run's best."""
    batch_size: int | None = None
    """Number of pictures computed together. The last bits of a picture may depend on it."""


def generate_command(argv: Sequence[str]) -> int:
    """Draws pictures and prints their paths."""
    options = parse(
        GenerateOptions,
        argv,
        aliases=ALIASES,
        prog="pinxit generate",
        description='Draws pictures: pinxit generate "a small red house under a full moon" --n 4',
        positional="prompt",
    )
    prompts = _prompts(options)
    positive("n", options.n)
    check_writable("out", options.out, Path(options.out))
    from rich.console import Console

    from pinxit.pipeline import load_checkpoint
    from pinxit.png_recipe import save_png

    model = load_checkpoint(options.checkpoint, ema=options.ema)
    with showing(
        Console(stderr=True),
        f"drawing {counted(len(prompts) * options.n, 'picture')}",
        unit="picture",
    ) as report:
        pictures = model.draw(
            prompts,
            n=options.n,
            seed=options.seed,
            size=options.size,
            negative_prompt=options.negative_prompt,
            batch_size=options.batch_size,
            progress=report,
            **sampling_options(options),
        )
    for image, recipe in pictures:
        print(save_png(options.out, image, recipe))
    return 0


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
