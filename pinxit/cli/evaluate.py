"""`pinxit evaluate`: accuracy on held-out prompts, and validation loss by time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.cli.arguments import parse
from pinxit.cli.generate import sampling_options
from pinxit.config import positive
from pinxit.files import write_json
from pinxit.progress import counted, showing


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


def evaluate_command(argv: Sequence[str]) -> int:
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
        write_json(out, record, sort_keys=False, indent=2, allow_nan=True)
        print(out)
    return 0


def _figures(model: Any, options: EvaluateOptions) -> Iterator[tuple[str, float]]:
    """All (name, value) pairs that the options ask for."""
    from rich.console import Console

    from pinxit.data.scenes.dataset import Scenes
    from pinxit.evaluate.caption_effect import FEWEST, conditioning_effect
    from pinxit.evaluate.prompt_accuracy import SEED, prompt_accuracy
    from pinxit.evaluate.validation_loss import validation_loss

    if options.prompts:
        with showing(
            Console(stderr=True),
            f"drawing {counted(options.prompts, 'held-out prompt')}",
            unit="picture",
        ) as report:
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
        if options.images >= FEWEST:
            yield from conditioning_effect(model, scenes, batch_size=options.batch_size)


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
    if (gain := values.get("conditioning/gain")) is not None:
        error = values["conditioning/gain_error"]
        console.print(f"captions lower the loss by {gain:.2%} (give or take {error:.2%})")
