"""Draws the picture of docs/speed.md from the results of `speed_table`.

For each task, two bars show torch's wall time over ours, eager and compiled, on a logarithmic axis:
a bar to the right of 1 means that we need less time. The picture has one part for each processor,
and stores what it shows as text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = {"eager": "#7a9bc9", "compiled": "#c98a5a"}
PEERS = {
    "eager": ("torch eager", "diffusers"),
    "compiled": ("torch compiled", "diffusers, compiled"),
}
"""The columns of torch, and the names of the sides that stand in each."""
WIDTH, BAR, TITLE = 9.0, 0.42, 1.45
"""Inches: the picture's width, the height of a task, the height of a part's title and axis."""


def ratios(rows: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, dict[str, float]]]:
    """Returns each task of the rows with torch's wall time over ours, where both have one."""
    result = []
    for name in names:
        for task, sides in rows.get(name, {}).get("tasks", {}).items():
            mine = sides.get("pinxit", {}).get("wall")
            values = {
                column: sides[peer]["wall"] / mine
                for column, peers in PEERS.items()
                for peer in peers
                if mine and "wall" in sides.get(peer, {})
            }
            if values:
                result.append((f"{name}: {task}", values))
    return result


def days(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns the day on which rows were measured, or the first and the last one."""
    dates = sorted({row["date"] for row in rows})
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"


def draw(
    results: Mapping[str, Mapping[str, Any]], names: Sequence[str], path: Path
) -> list[tuple[str, list[tuple[str, dict[str, float]]]]]:
    """Writes the picture, and returns what it shows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    parts = [(key, ratios(rows, names)) for key, rows in sorted(results.items())]
    parts = [(key, tasks) for key, tasks in parts if tasks]
    heights = [TITLE + BAR * len(tasks) for _, tasks in parts]
    figure, grid = plt.subplots(
        len(parts), 1, figsize=(WIDTH, sum(heights)), squeeze=False,
        gridspec_kw={"height_ratios": heights}, layout="constrained",
    )  # fmt: skip
    for axes, (key, tasks) in zip(grid[:, 0], parts, strict=True):
        draw_part(axes, f"{key}; measured {days(results[key].values())}", tasks)
    metadata = {"Description": json.dumps(parts)}
    figure.savefig(path, dpi=110, metadata=metadata)
    plt.close(figure)
    return parts


def draw_part(axes: Any, title: str, tasks: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """Draws the bars of one processor."""
    for column, colour in COLOURS.items():
        offset = -0.2 if column == "eager" else 0.2
        present = [(i, values[column]) for i, (_, values) in enumerate(tasks) if column in values]
        bars = axes.barh(
            [i + offset for i, _ in present], [value - 1 for _, value in present], 0.38, left=1,
            color=colour, label=f"torch, {column}",
        )  # fmt: skip
        axes.bar_label(bars, [f"{value:.2f}" for _, value in present], padding=3, fontsize=8)
    axes.set_yticks(range(len(tasks)), [label for label, _ in tasks], fontsize=8)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.set_xscale("log")
    largest = max(1.25, *(value for _, values in tasks for value in values.values()))
    smallest = min(0.8, *(value for _, values in tasks for value in values.values()))
    axes.set_xlim(smallest / 1.15, largest * 1.15)
    ticks = [x for x in (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8) if smallest / 1.15 <= x <= largest]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set_title(title.replace("; ", "\n"), fontsize=9)
    axes.set_xlabel("torch's time over ours; to the right of 1, ours is faster", fontsize=8)
    axes.legend(fontsize=8, loc="best")
