"""Draws the picture of docs/composition.md with the shipped checkpoint.

python scripts/draw_composition.py
python scripts/draw_composition.py --compare 16    # the page's comparison of wordings, without it
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pinxit import load_checkpoint
from pinxit.evaluate.composition.evaluator import read_answers, verdicts
from pinxit.evaluate.composition.pictures import drawn_pictures, prompts_of
from pinxit.evaluate.composition.sheet import composition_sheet
from pinxit.evaluate.composition.tasks import TASKS
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.intervals import interval, mean_interval
from pinxit.evaluate.judge import load_judge

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "composition.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=50, help="prompts of each task")
    parser.add_argument("--compare", type=int, default=0, help="prompts of each task to compare on")
    options = parser.parse_args()
    context = EvaluationContext(
        load_checkpoint(), judge=load_judge(), composition_prompts=options.prompts
    )
    if options.compare:
        compare(context, options.compare)
    else:
        composition_sheet(context, PICTURE)
        print(PICTURE)


def compare(context: EvaluationContext, count: int) -> None:
    """Prints the accuracy on both wordings, for held-out combinations and for others."""
    print(f"| wording | combinations | mean | {' | '.join(TASKS)} |")
    print("|---|---|---:|" + "---:|" * len(TASKS))
    for wording in ("usual", "short"):
        for held_out in (True, False):
            prompts = prompts_of(count, wording=wording, held_out=held_out)
            answers = read_answers(context, drawn_pictures(context, prompts))
            right = verdicts(prompts, answers).values()
            means = [float(one.mean()) for one in right]
            low, high = mean_interval(means, [interval(one) for one in right])
            mean = f"{sum(means) / len(means):.3f} ({low:.3f} to {high:.3f})"
            figures = " | ".join([mean, *(f"{one:.3f}" for one in means)])
            print(f"| {wording} | {'held out' if held_out else 'trained on'} | {figures} |")


if __name__ == "__main__":
    main()
