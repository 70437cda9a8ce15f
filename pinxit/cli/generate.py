"""`pinxit generate`: draws pictures for prompts."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pinxit.cli.arguments import parse
from pinxit.cli.habits import GENERATE_HABITS
from pinxit.cli.prompt_lines import read_prompts
from pinxit.cli.sampling_options import SamplingOptions, check_guidance, sampling_options
from pinxit.config import UsageError, check_writable, positive
from pinxit.progress import counted, showing
from pinxit.sampling import ALIASES, Order

if TYPE_CHECKING:
    from pinxit.pipeline import TextToImage


@dataclass(frozen=True)
class GenerateOptions(SamplingOptions):
    """Options of `pinxit generate`."""

    prompt: tuple[str, ...] = ()
    """Prompts to draw, with or without --prompt: pinxit generate "a red house" "a blue tent"."""
    prompts_file: str | None = None
    """A text file with one prompt on each line, in UTF-8 or UTF-16."""
    text_encoding: str | None = None
    """Encoding of the prompts file if it is another one, such as cp1252 or gb18030."""
    checkpoint: str | None = None
    """A run, one of its checkpoints, a release, a PRX directory of diffusers, an exported
    .safetensors file, or a repository id on the Hub (owner/name); none means the model shipped with
    Pinxit."""
    out: str = "outputs"
    """Directory for the PNG files. Existing files are never overwritten, and pictures that are
    already there are not drawn again."""
    seed: int = 0
    """Seed of the first picture; picture i is drawn from seed + i."""
    n: int = 1
    """Number of pictures for each prompt."""
    size: str | None = None
    """Side of the pictures in pixels, or WIDTHxHEIGHT, such as 320x192; none means the size that
    the model was trained on."""
    negative_prompt: str = ""
    """Text that guidance steers away from."""
    ema: str | None = None
    """The run's average to draw with, or raw; none means the run's best."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the text encoder and the autoencoder. bfloat16 takes half the memory."""
    batch_size: int | None = None
    """Number of pictures that each accelerator computes together; none means 4. The last bits of a
    picture may depend on it. A CPU computes pictures one by one, so it has no effect there."""


def generate_command(argv: Sequence[str]) -> int:
    """Draws pictures, writes each when it is ready, and prints their paths.

    A command that was interrupted and runs again draws only the pictures that are missing.
    """
    options = parse(
        GenerateOptions,
        argv,
        aliases=ALIASES,
        prog="pinxit generate",
        description='Draws pictures: pinxit generate "a small red house under a full moon" --n 4',
        positional="prompt",
        habits=GENERATE_HABITS,
    )
    prompts = _prompts(options)
    positive("n", options.n)
    size = _size(options.size, argv)
    out = Path(options.out)
    check_writable("out", options.out, out)
    from pinxit.model_loading import load_checkpoint
    from pinxit.png_recipe import stored_pictures

    model = load_checkpoint(
        options.checkpoint, ema=options.ema, encoder_dtype=options.encoder_dtype
    )
    order = model.order(
        prompts,
        n=options.n,
        seed=options.seed,
        size=size,
        negative_prompt=options.negative_prompt,
        batch_size=options.batch_size,
        **sampling_options(options),
    )
    check_guidance(options, order.sampling)
    recipes = [model.recipe(order, i) for i in range(len(order))]
    paths = stored_pictures(out, recipes)
    total = counted(len(order), "picture")
    if paths:
        print(f"pinxit: already in {out}: {len(paths)} of {total}", file=sys.stderr)
    try:
        if len(paths) < len(order):
            _draw(model, order, recipes, out, paths)
    finally:
        for i in sorted(paths):
            print(paths[i])
        if 0 < len(paths) < len(order):
            again = shlex.join(["pinxit", "generate", *argv])
            rest = f"the same command draws the others: {again}"
            print(f"pinxit: in {out}: {len(paths)} of {total}; {rest}", file=sys.stderr)
    return 0


def _draw(
    model: TextToImage,
    order: Order,
    recipes: list[dict[str, Any]],
    out: Path,
    paths: dict[int, Path],
) -> None:
    """Draws the pictures that are not in `paths`, and adds the path of each once it is written."""
    from rich.console import Console

    from pinxit.png_recipe import save_png

    missing = len(order) - len(paths)
    text = f"drawing {counted(missing, 'picture')}"
    with showing(Console(stderr=True), text, unit="picture") as report:
        report(0, missing)
        for done, (i, image) in enumerate(model.pictures(order, skip=frozenset(paths)), start=1):
            paths[i] = save_png(out, image, recipes[i])
            report(done, missing)


def _size(text: str | None, argv: Sequence[str]) -> int | tuple[int, int] | None:
    """Parses one side or WIDTHxHEIGHT. Refuses two words, of which one would become a prompt."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[xX](\d+))?", text)
    valid = "one side, or WIDTHxHEIGHT, such as 320x192"
    if match is None:
        raise UsageError("size", text, problem="not understood", valid=valid)
    words = [word.removeprefix("--size=") for word in argv if word != "--size"]
    following = words[words.index(text) + 1 :][:1] if text in words else []
    if following and following[0].isdigit():
        problem = "two words"
        raise UsageError("size", f"{text} {following[0]}", problem=problem, valid=valid)
    return (int(match[1]), int(match[2])) if match[2] else int(match[1])


def _prompts(options: GenerateOptions) -> list[str]:
    """Returns the prompts of the command line and of the file."""
    prompts = list(options.prompt)
    if options.prompts_file is not None:
        prompts += read_prompts(options.prompts_file, options.text_encoding)
    elif options.text_encoding is not None:
        problem = "without effect, since it is the encoding of --prompts_file"
        raise UsageError("text_encoding", options.text_encoding, problem=problem)
    if not prompts:
        raise UsageError("prompt", prompts, problem="an empty list", valid="at least one prompt")
    return prompts
