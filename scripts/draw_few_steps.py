"""Draws the picture of docs/few_steps.md, and prints its tables, with the shipped checkpoint.

python scripts/draw_few_steps.py
python scripts/draw_few_steps.py --tables

The picture takes seconds, the tables some minutes.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pinxit import TextToImage, load_checkpoint
from pinxit.contact_sheet import contact_sheet
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import EVALUATORS, measure
from pinxit.evaluate.judge import load_judge
from pinxit.evaluate.picture_sets import RealPictures

STEPS = (1, 2, 4, 8, 16, 32)
PROMPTS = (
    "a large yellow tent in the middle, the desert at night, clear sky",
    "a small green castle on the left and a large white tent on the right, snowy mountains at "
    "night, clear sky",
    "a small purple castle on the left, mountains at night, snow is falling",
    "a small red lighthouse on the left and a small purple castle in the middle, hills at night, "
    "with clouds",
    "a large purple castle on the right, a beach at dawn, under the sun, clear sky",
)
SEED = 4
COUNT, VARIETY = 256, 16
"""Number of prompts of the tables, and of those that are drawn from eight seeds each."""
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "few_steps.png"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tables", action="store_true", help="print the tables instead")
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore", message="the pictures look overexposed")
    model = load_checkpoint()
    if options.tables:
        print(*tables(model), sep="\n")
        return
    sheet(model).save(PICTURE, optimize=True)
    print(PICTURE)


def sheet(model: TextToImage) -> Image.Image:
    """One row a prompt, one column a number of steps, and the same noise in all columns."""
    columns = {}
    for steps in STEPS:
        pictures = model.generate(list(PROMPTS), seed=[SEED] * len(PROMPTS), steps=steps)
        label = "1 step" if steps == 1 else f"{steps} steps"
        columns[label] = [[picture] for picture in pictures]
    return contact_sheet(PROMPTS, columns, cell=128)


def tables(model: TextToImage) -> list[str]:
    """The figures by steps, in Markdown: accuracy, details, variety and time."""
    context = EvaluationContext(
        model, judge=load_judge(), prompts=COUNT, variety_prompts=VARIETY, batch_size=32
    )
    values = {steps: figures(replace(context, sampling={"steps": steps})) for steps in STEPS}
    seconds = durations(model)
    restored = through_autoencoder(context)
    some = values[STEPS[0]]
    lines = row("", [f"{steps}" for steps in STEPS], "autoencoder", "other renders")
    lines += ["|---|" + "---:|" * (len(STEPS) + 2)]

    def add(label: str, name: str, perfect: str, form: str = ".2f") -> None:
        shown = [format(values[steps][name], form) for steps in STEPS]
        best = format(restored[name], form) if name in restored else ""
        lines.extend(row(label, shown, best, perfect))

    ratio = [f"{seconds[steps] / seconds[16]:.2f}" for steps in STEPS]
    lines += row("seconds per picture / those of 16 steps", ratio, "", "")
    add("prompt accuracy", "prompts/accuracy/mean", f"{some['prompts/ceiling/mean']:.3f}", ".3f")
    noise = some["details/noise/mean"]
    add("details: mean distance", "details/distance/mean", f"{noise:.2f}")
    for name in some:
        if name.startswith("details/drawn/"):
            detail = name.rpartition("/")[2]
            form = ".1f" if some[f"details/real/{detail}"] >= 1 else ".3f"
            real = format(some[f"details/real/{detail}"], form)
            add(detail.replace("_", " "), name, real, form)
    for name in some:
        if name.startswith("variety/ratio/"):
            add("variety: " + name.rpartition("/")[2].replace("_", " "), name, "1")
    return lines


def row(label: str, cells: Sequence[str], *last: str) -> list[str]:
    return ["| " + " | ".join([label, *cells, *last]) + " |"]


def figures(context: EvaluationContext) -> dict[str, float]:
    names = ("prompt_accuracy", "details", "variety")
    return {name: v for one in names for name, v in measure(EVALUATORS[one], context).items()}


def through_autoencoder(context: EvaluationContext) -> Mapping[str, float]:
    """The figures of renders that the model's autoencoder has encoded and decoded: what no number
    of steps can improve on."""
    codec = context.model.vae
    rows = [context.prompted[number] for number in range(COUNT)]
    restored = [np.asarray(codec.decode(codec.encode(example.image))) for example in rows]
    examples = [replace(e, image=image) for e, image in zip(rows, restored, strict=True)]
    other = replace(context, variety_prompts=0)
    vars(other)["drawn"] = RealPictures(examples, title="reading restored pictures")
    return figures(other)


def durations(model: TextToImage) -> dict[int, float]:
    """Seconds for one picture by steps: the least of nine, measured in turns."""
    times: dict[int, list[float]] = {steps: [] for steps in STEPS}
    for turn in range(10):
        for steps in STEPS:
            start = time.perf_counter()
            model.generate(PROMPTS[0], seed=turn, steps=steps)
            times[steps].append(time.perf_counter() - start)
    return {steps: min(values[1:]) for steps, values in times.items()}


if __name__ == "__main__":
    main()
