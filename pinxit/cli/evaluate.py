"""`pinxit evaluate`: measures the accuracy on held-out prompts and the validation loss by time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pinxit.cli.arguments import parse
from pinxit.cli.habits import EVALUATE_HABITS
from pinxit.cli.sampling_options import SamplingOptions, sampling_options
from pinxit.config import from_kind, kinds_of, positive
from pinxit.data.scenes.dataset import Scenes
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import EVALUATORS, evaluators, measure
from pinxit.evaluate.judge import load_judge
from pinxit.evaluate.prompt_accuracy import SEED
from pinxit.evaluate.tables import tables
from pinxit.extensions import explained
from pinxit.files import write_json
from pinxit.pipeline import TextToImage
from pinxit.progress import counted, showing
from pinxit.sampling import ALIASES
from pinxit.train.settings import TrainConfig


@dataclass(frozen=True)
class EvaluateOptions(SamplingOptions):
    """Options of `pinxit evaluate`."""

    checkpoint: str | None = None
    """A run, one of its checkpoints, or a release; none means the model shipped with Pinxit."""
    prompts: int = 256
    """Number of held-out prompts to draw and judge; 0 skips this measurement."""
    images: int = 512
    """Number of held-out scenes for the validation loss; 0 skips this measurement."""
    evaluators: tuple[str, ...] = ()
    """Names of the evaluators to run, such as validation_loss; all if none is named."""
    batch_size: int = 32
    """Number of pictures or scenes computed together."""
    ema: str | None = None
    """The run's average to evaluate, or raw; none means the run's best."""
    out: str | None = None
    """JSON file for the results; none means evaluation.json in the evaluated run or release."""


def evaluate_command(argv: Sequence[str]) -> int:
    """Prints accuracy by attribute and loss by time, and writes them to evaluation.json."""
    options = parse(
        EvaluateOptions,
        argv,
        aliases=ALIASES,
        prog="pinxit evaluate",
        description="Measures the accuracy on held-out prompts by attribute and the validation "
        f"loss by time. Evaluators: {', '.join(EVALUATORS)}.",
        positional=None,
        habits=EVALUATE_HABITS,
    )
    positive("prompts", options.prompts, minimum=0)
    positive("images", options.images, minimum=0)
    positive("batch_size", options.batch_size)
    chosen = evaluators(options.evaluators)
    from pinxit.pipeline import load_checkpoint

    model = load_checkpoint(options.checkpoint, ema=options.ema)
    model.sampling.override(**sampling_options(options))
    values: dict[str, float] = {}
    lines: list[str] = []
    drawing = showing(
        Console(stderr=True),
        f"drawing {counted(options.prompts, 'held-out prompt')}",
        unit="picture",
    )
    with drawing if options.prompts else nullcontext(lambda done, total: None) as report:
        context = _context(model, options, report)
        for evaluator in chosen.values():
            if new := measure(evaluator, context):
                values |= new
                lines.append(evaluator.words(new))
    _print_tables(values)
    print("\n".join(lines))
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


def _context(
    model: TextToImage, options: EvaluateOptions, report: Callable[[int, int], None]
) -> EvaluationContext:
    """Builds the evaluators' context from held-out scenes and the model's training objective."""
    rows = Scenes(length=options.images, seed=SEED, split="heldout", image_size=model.image_size)
    stored = model.stored
    with explained(stored.extensions if stored else {}):
        objective = from_kind(
            kinds_of(TrainConfig)["objective"], stored.objective if stored else {}
        )
    return EvaluationContext(
        model=model,
        rows=rows if options.images else (),
        objective=objective,
        batch_size=options.batch_size,
        prompts=options.prompts,
        judge=load_judge() if options.prompts else None,
        sampling=sampling_options(options),
        progress=report,
    )


def _evaluation_path(options: EvaluateOptions) -> Path | None:
    """Returns the path of the results, or None if they are not written.

    It is never inside a checkpoint, because a checkpoint's manifest lists every file.
    """
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
    for group in tables(values):
        table = Table(*group.head, title=group.title)
        for name, *cells in group.rows:
            shown = (f"{cell:.4f}" if isinstance(cell, float) else cell for cell in cells)
            table.add_row(str(name), *shown, style="bold" if name in ("mean", "loss") else None)
        Console().print(table)
