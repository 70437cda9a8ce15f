"""Writes the values of composition as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping

from pinxit.evaluate.composition.pictures import SEEDS
from pinxit.evaluate.composition.tasks import TASKS

COLUMNS = ("task", "accuracy", "95 % interval", "ceiling", "floor", "pictures")


def composition_table(values: Mapping[str, float]) -> str:
    """Returns a Markdown table of the values that `composition` yields, with a note below."""
    rows = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1))]
    for name in (*TASKS, "mean"):
        accuracy, low, high, ceiling, floor, pictures = (
            values[f"composition/{column}/{name}"]
            for column in ("accuracy", "low", "high", "ceiling", "floor", "pictures")
        )
        figures = f"{low:.3f} to {high:.3f}", f"{ceiling:.3f}", f"{floor:.3f}", f"{pictures:,.0f}"
        rows.append((name, f"{accuracy:.3f}", *figures))
    lines = [f"| {' | '.join(row)} |" for row in rows]
    prompts = values["composition/pictures/mean"] / SEEDS / len(TASKS)
    note = (
        f"{prompts:.0f} prompts a task, {SEEDS} pictures a prompt; each prompt names a held-out "
        "combination. The mean is over tasks. GenEval's counting is left out, because scenes show "
        "at most two objects. Ceiling: real renders of the same prompts. Floor: the same pictures "
        "by other prompts of their task."
    )
    return "\n".join([*lines, "", note, ""])
