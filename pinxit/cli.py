"""The command line: `pinxit train | prepare | generate | evaluate`.

Each command is a dataclass of options and a function; heavy imports happen inside the function, so
help appears at once. A wrong input ends in one line on stderr and exit code 2; set
``PINXIT_DEBUG=1`` to see where it was raised.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pinxit import launcher
from pinxit.config import UsageError, parse, positive
from pinxit.version import __version__

TRAIN_ALIASES = {
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "warmup_steps": "optimizer.warmup_steps",
    "text_dropout_prob": "objective.caption_dropout",
    "caption_dropout": "objective.caption_dropout",
    "preset": "model.preset",
    "patch_size": "model.patch_size",
    "use_stable_vae": "model.use_stable_vae",
    "steps": "max_steps",
}
"""Short names of training settings."""

USAGE = """usage: pinxit COMMAND [OPTIONS]

Train text-to-image models from scratch, end to end.

commands:
  train      train a model (without options: the scenes recipe, made for two CPU cores)
  prepare    make a dataset to train on: fetch images, encode them, write shards
  generate   draw pictures for prompts
  evaluate   accuracy on held-out prompts, and validation loss by time

pinxit COMMAND --help lists a command's options; pinxit --version prints the version."""


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


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `pinxit evaluate`."""

    checkpoint: str | None = None
    """A run, one of its checkpoints, or a release; none: the model that ships with Pinxit."""
    prompts: int = 256
    """Held-out prompts to draw and judge; 0: none."""
    images: int = 512
    """Held-out scenes for the validation loss; 0: none."""
    batch_size: int = 32
    """Pictures or scenes computed together."""
    steps: int | None = None
    """Solver steps."""
    guidance_scale: float | None = None
    """How closely to follow the prompt; 1 is off."""
    solver: str | None = None
    """euler, heun, midpoint or dpmpp_2m."""
    shift: float | None = None
    """Time-grid shift."""
    ema: str | None = None
    """Which average of a run to evaluate, or raw; none: the run's best."""
    out: str | None = None
    """Where to write the figures as JSON; none: evaluation.json in the run or release given."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(words, restart=argv is None))


def guarded(command: Callable[[], int]) -> int:
    """Exit code of a command; a wrong input becomes one line on stderr and 2."""
    launcher.prepare_environment()
    shown, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        return command()
    except ValueError as error:
        if os.environ.get("PINXIT_DEBUG", "0") not in ("", "0"):
            raise
        print(f"pinxit: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pinxit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        warnings.showwarning = shown


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Ours as one line; what the libraries warn of is for developers."""
    if category is UserWarning and "pinxit" in filename:
        print(f"pinxit: warning: {message}", file=sys.stderr)


def _dispatch(words: list[str], *, restart: bool) -> int:
    if not words or words[0] in ("-h", "--help", "--version"):
        print(f"pinxit {__version__}" if words == ["--version"] else USAGE, flush=True)
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise UsageError("command", name, valid=list(COMMANDS))
    if name == "train":
        return train(rest, restart=restart)
    return COMMANDS[name](rest)


def train(argv: Sequence[str], *, restart: bool = False, prog: str = "pinxit train") -> int:
    """Trains a model; `restart` allows the process to start over in a tuned environment."""
    if restart and not {"-h", "--help"} & set(argv):
        launcher.restart_tuned()
    from pinxit import recipes
    from pinxit.train.settings import TrainConfig

    recipe, rest = recipe_of(argv, recipes.RECIPES)
    config = parse(
        TrainConfig,
        rest,
        default=recipes.RECIPES[recipe](),
        aliases=TRAIN_ALIASES,
        prog=prog,
        description=f"Trains a model, starting from a recipe (--recipe "
        f"{'|'.join(recipes.RECIPES)}; here: {recipe}).",
    )
    from pinxit.train.run import run

    command = [*prog.split(), *argv]
    return run(config, argv=command).exit_code


def recipe_of(argv: Sequence[str], known: Sequence[str] | dict[str, Any]) -> tuple[str, list[str]]:
    """The recipe to start from, and the remaining arguments.

    It is the one named by `--recipe`, or else the one called like the dataset, or else "scenes".
    """
    rest: list[str] = []
    found = dataset = None
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--recipe":
            found = value if equals else next(words, "")
            continue
        rest.append(word)
        if name.replace("-", "_") == "__dataset_name":
            if not equals:
                value = next(words, "")
                rest.append(value)
            dataset = value
    if found is not None and found not in known:
        raise UsageError("recipe", found, valid=list(known))
    return found or (dataset if dataset in known else None) or "scenes", rest


def generate(argv: Sequence[str]) -> int:
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
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise UsageError("out", options.out, problem="a file", valid="a directory")
    from pinxit.metadata import save_png
    from pinxit.pipeline import load_checkpoint

    model = load_checkpoint(options.checkpoint, ema=options.ema)
    settings = sampling_options(options)
    sampling = model.sampling.override(**settings)
    with _progress("drawing") as report:
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
        )
        print(save_png(options.out, image, recipe))
    return 0


def sampling_options(options: GenerateOptions | EvaluateOptions) -> dict[str, Any]:
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
        prompts += [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    if not prompts:
        raise UsageError("prompt", prompts, problem="an empty list", valid="at least one prompt")
    return prompts


def evaluate(argv: Sequence[str]) -> int:
    """Prints accuracy by attribute and loss by time, and writes evaluation.json."""
    options = parse(
        EvaluateOptions,
        argv,
        aliases={"cfg_scale": "guidance_scale", "num_inference_steps": "steps"},
        prog="pinxit evaluate",
        description="Accuracy on held-out prompts by attribute, and validation loss by time.",
        positional=None,
    )
    positive("prompts", options.prompts, minimum=0)
    positive("images", options.images, minimum=0)
    positive("batch_size", options.batch_size)
    positive("steps", options.steps)
    from pinxit.pipeline import load_checkpoint

    model = load_checkpoint(options.checkpoint, ema=options.ema)
    model.sampling.override(**sampling_options(options))
    values = dict(_figures(model, options))
    _print_tables(values)
    out = _evaluation_path(options)
    if out is not None:
        record = {
            "model": model.name,
            "model_hash": model.model_hash,
            **(model.stored.details if model.stored else {}),
            "values": values,
        }
        out.write_text(json.dumps(record, indent=2) + "\n")
        print(out)
    return 0


def _figures(model: Any, options: EvaluateOptions) -> Iterator[tuple[str, float]]:
    """All (name, value) pairs that the options ask for."""
    from pinxit.data.scenes import Scenes
    from pinxit.evaluate.prompts import SEED, prompt_accuracy
    from pinxit.evaluate.validation import validation_loss

    if options.prompts:
        with _progress("drawing") as report:
            yield from prompt_accuracy(
                model,
                prompts=options.prompts,
                batch_size=options.batch_size,
                progress=report,
                **sampling_options(options),
            )
    if options.images:
        scenes = Scenes(
            length=options.images, seed=SEED, split="heldout", image_size=model.image_size
        )
        yield from validation_loss(model, scenes, batch_size=options.batch_size)


def _evaluation_path(options: EvaluateOptions) -> Path | None:
    """Where the figures go; never inside a checkpoint, whose manifest lists every file."""
    if options.out is not None:
        return Path(options.out)
    if options.checkpoint is None:
        return None
    directory = Path(options.checkpoint)
    if (directory / "manifest.json").is_file():
        directory = directory.parent
    if directory.name == "checkpoints":
        directory = directory.parent
    return directory / "evaluation.json"


def _print_tables(values: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    prefix = "prompts/accuracy/"
    names = [name.removeprefix(prefix) for name in values if name.startswith(prefix)]
    if names:
        table = Table("attribute", "accuracy", "ceiling", "chance", title="held-out prompts")
        for name in names:
            row = (values[f"prompts/{kind}/{name}"] for kind in ("accuracy", "ceiling", "chance"))
            style = "bold" if name == "mean" else None
            table.add_row(name, *(f"{value:.3f}" for value in row), style=style)
        console.print(table)
    losses = {name: v for name, v in values.items() if name.startswith("validation/")}
    if losses:
        table = Table("time (0 data, 1 noise)", "loss", title="validation loss")
        for name, value in losses.items():
            shown = "mean" if name == "validation/loss" else name.rpartition("_")[2]
            table.add_row(shown, f"{value:.4f}", style="bold" if shown == "mean" else None)
        console.print(table)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; yields the function to call with (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def prepare(argv: Sequence[str]) -> int:
    """Makes a dataset to train on."""
    from pinxit.prepare_cli import prepare

    return prepare(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "prepare": prepare,
    "generate": generate,
    "evaluate": evaluate,
}
"""Commands by name."""
