"""Curves of a run in one image: loss, loss by time, validation, gradient, rate, speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pinxit.evaluate.tables import TITLES
from pinxit.files import whole

SHOWN_ELSEWHERE = ("validation_loss", "conditioning", "latents")
"""Groups of values that have their own plot, or that tables show better."""
MOST_LINES = 7
"""Largest number of lines in a plot of other evaluators' values."""


def _series(rows: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Returns the steps and values of the rows that have a value called `name`."""
    pairs = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _by_time(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Plots the loss over t, for five rows from early to late in the run."""
    rows = [row for row in rows if row.get("loss_by_t")]
    chosen = [rows[i * (len(rows) - 1) // 4] for i in range(5)] if rows else []
    for i, row in enumerate(chosen):
        values = row["loss_by_t"]
        points = [((b + 0.5) / len(values), v) for b, v in enumerate(values) if v is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=(0.1, 0.3, 0.7, 0.2 + 0.2 * i),
                      label=f"step {row['step']}")  # fmt: skip
    axes.set(title="loss by time", xlabel="t (0 = data, 1 = noise)")
    if chosen:
        axes.legend(fontsize=7)


def _validation(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Plots the validation loss of each average over the steps, or as bars if there is only one
    step."""
    names = sorted({name for row in rows for name in row if name.startswith("validation_loss/")})
    axes.set(title="validation loss", xlabel="step")
    series = {name.partition("/")[2]: _series(rows, name) for name in names}
    steps = {step for measured, _ in series.values() for step in measured}
    if len(steps) == 1:
        bars = axes.bar(list(series), [values[-1] for _, values in series.values()], width=0.5)
        axes.bar_label(bars, fmt="%.4f", padding=2, fontsize=8)
        axes.margins(y=0.15)
        axes.set_xlabel(f"step {steps.pop()}")
    elif steps:
        for name, pair in series.items():
            axes.plot(*pair, "o-", label=name, markersize=3)
        axes.legend(fontsize=7)


def _others(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Returns the names of other evaluators' values that have several steps, by group."""
    groups: dict[str, list[str]] = {}
    for name in sorted({name for row in rows for name in row if "/" in name}):
        group = name.partition("/")[0]
        if group not in SHOWN_ELSEWHERE and len(_series(rows, name)[0]) > 1:
            groups.setdefault(group, []).append(name)
    return {group: _important(names) for group, names in groups.items()}


def _important(names: Sequence[str]) -> list[str]:
    """Returns the few values of a group that fit into one plot: means, if it has too many, and
    never the noise of distances, which tables show."""
    names = [name for name in names if "/noise/" not in name]
    if len(names) <= MOST_LINES:
        return names
    means = [name for name in names if name.endswith("/mean")]
    return (means or [name for name in names if "/value/" in name] or names)[:MOST_LINES]


def draw_curves(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes the curves of these rows of metrics.jsonl as a PNG.

    The last plots are one for each group of other evaluators' values.
    """
    groups = _others(rows)
    height = 2 + -(-len(groups) // 3)
    figure = Figure(figsize=(12, 3.25 * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(height, 3)
    titles = {"loss": "training loss", "grad_norm": "gradient norm",
              "learning_rate": "learning rate", "images_per_second": "images / s"}  # fmt: skip
    for name, place in zip(titles, (axes[0, 0], axes[1, 0], axes[1, 1], axes[1, 2]), strict=True):
        place.plot(*_series(rows, name), linewidth=1)
        place.set(title=titles[name], xlabel="step")
    _by_time(axes[0, 1], rows)
    _validation(axes[0, 2], rows)
    for place, (group, names) in zip(axes[2:].flat, groups.items(), strict=False):
        for name in names:
            place.plot(*_series(rows, name), "o-", label=name.partition("/")[2], markersize=3)
        place.set(title=TITLES.get(group, group.replace("_", " ")), xlabel="step")
        place.legend(fontsize=7)
    for place in axes.flat:
        place.grid(alpha=0.3)
        place.set_visible(place.has_data() or place in axes[:2].flat)
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
