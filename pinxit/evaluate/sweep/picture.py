"""The picture of a sweep: each value against the first axis, and the guidance trade-off."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from pinxit.comparison_grid.axes import Axis, spelled
from pinxit.config import plain
from pinxit.evaluate.headlines import (
    ACCURACY,
    CEILING,
    Headline,
    accuracy_of,
    frechet_of,
    headlines,
    shown_value,
)
from pinxit.evaluate.sweep.storing import MeasuredCell
from pinxit.files import whole

PLOTS, ACROSS = 17, 3
"""The largest number of values that are drawn, and the number of plots in a row."""
WIDE = 8
"""An axis of numbers is logarithmic from this ratio of its largest and its smallest value on."""
GUIDANCE = "guidance_scale"
MARKERS = "osD^vPX*<>"
AXES_IN_WORDS = {
    "steps": "solver steps per picture",
    GUIDANCE: "guidance scale (1: no guidance)",
    "guidance_interval": "times at which guidance is applied (0: data, 1: noise)",
    "shift": "shift of the times (above 1: more steps near the noise)",
    "zero_init": "fraction of the times with zero velocity",
    "ema": "average of the parameters (fraction of the run, or raw)",
}
"""Labels of axes; those of the others are their names."""


@dataclass(frozen=True)
class SettingLine:
    """The cells that differ in one axis alone, joined by a line."""

    label: str
    cells: tuple[MeasuredCell, ...]

    def values(self, name: str) -> list[float]:
        """Returns the values of this name; NaN where there is none."""
        return [cell.all_values.get(name, math.nan) for cell in self.cells]


def draw_sweep(
    axes: Sequence[Axis], cells: Sequence[MeasuredCell], path: Path, *, title: str = ""
) -> None:
    """Writes the picture of these cells as a PNG: a plot for each value, with a line for each
    setting of the other axes, then accuracy against Fréchet distance along the guidance scale."""
    every = headlines([cell.all_values for cell in cells])
    names = [headline.name for headline in every]
    shown = ([headline for headline in every if headline.plotted] or every)[:PLOTS]
    pair = (frechet_of(names), accuracy_of(names))
    guidance = next((axis for axis in axes if axis.name == GUIDANCE), None)
    trade_off = guidance is not None and None not in pair
    count = len(shown) + trade_off
    across, down = min(ACROSS, max(1, count)), max(1, math.ceil(count / ACROSS))
    figure = Figure(figsize=(4.6 * across, 3.7 * down + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(down, across, squeeze=False).flat
    lines = lines_along(axes[0], axes, cells)
    for place, headline in zip(places, shown, strict=False):
        _against_setting(place, axes[0], lines, headline)
        if headline.name == ACCURACY:
            _ceiling(place, cells)
        _legend(place, lines, [axis.name for axis in axes[1:]])
    if guidance is not None and pair[0] is not None and pair[1] is not None:
        others = lines_along(guidance, axes, cells)
        place = list(places_of(figure))[len(shown)]
        _trade_off(place, guidance, others, Headline(pair[0]), Headline(pair[1]))
        _legend(place, others, [axis.name for axis in axes if axis is not guidance])
    for place in list(places_of(figure))[count:]:
        place.set_visible(False)
    if len(every) > len(shown):
        title += f" ({len(every) - len(shown)} more values are in the table)"
    if title:
        figure.suptitle("\n".join(textwrap.wrap(title, 56 * across)), fontsize=9)
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def places_of(figure: Figure) -> Sequence[Axes]:
    """Returns the plots of a figure, by rows."""
    return figure.axes


def lines_along(
    axis: Axis, axes: Sequence[Axis], cells: Sequence[MeasuredCell]
) -> list[SettingLine]:
    """Returns a line along an axis for each setting of the others, in the order of the cells."""
    others = [each.name for each in axes if each is not axis]
    groups: dict[str, list[MeasuredCell]] = {}
    for cell in cells:
        label = ", ".join(_spelled(cell.settings[name]) for name in others)
        groups.setdefault(label, []).append(cell)
    order = [plain(value) for value in axis.values]
    return [
        SettingLine(
            label, tuple(sorted(group, key=lambda cell: order.index(cell.settings[axis.name])))
        )
        for label, group in groups.items()
    ]


def _against_setting(
    place: Axes, axis: Axis, lines: Sequence[SettingLine], headline: Headline
) -> None:
    """Plots a value against the values of an axis."""
    numbers = _numbers(axis)
    positions = dict(zip(map(str, map(plain, axis.values)), numbers, strict=True))
    for i, line in enumerate(lines):
        across = [positions[str(cell.settings[axis.name])] for cell in line.cells]
        style = {"color": _colour(i, len(lines)), "marker": MARKERS[i % len(MARKERS)]}
        place.plot(across, line.values(headline.name), markersize=4, label=line.label, **style)
    if _is_logarithmic(axis):
        place.set_xscale("log")
    place.set_xticks(numbers, axis.labels)
    place.xaxis.set_minor_locator(NullLocator())
    notes = [f"{headline.better} is better"] if headline.better else []
    noise = lines[0].cells[0].all_values.get(headline.noise)
    notes += [] if noise is None else [f"real against real: {shown_value(noise)}"]
    below = f"\n({', '.join(notes)})" if notes else ""
    place.set(xlabel=AXES_IN_WORDS.get(axis.name, axis.name), title=headline.words + below)
    place.title.set_fontsize(9)
    place.grid(alpha=0.3)


def _ceiling(place: Axes, cells: Sequence[MeasuredCell]) -> None:
    """Draws the accuracy on real pictures, which no model is expected to surpass."""
    ceiling = cells[0].all_values.get(CEILING)
    if ceiling is not None:
        label = f"real pictures ({ceiling:.3f})"
        place.axhline(ceiling, color="grey", linestyle="--", linewidth=1, label=label)


def _trade_off(
    place: Axes, axis: Axis, lines: Sequence[SettingLine], distance: Headline, accuracy: Headline
) -> None:
    """Plots accuracy against distance as curves, whose points are labelled with the guidance."""
    for i, line in enumerate(lines):
        across, up = line.values(distance.name), line.values(accuracy.name)
        style = {"color": _colour(i, len(lines)), "marker": MARKERS[i % len(MARKERS)]}
        place.plot(across, up, markersize=4, label=line.label, **style)
        for cell, x, y in zip(line.cells, across, up, strict=True):
            if math.isfinite(x) and math.isfinite(y):
                text = _spelled(cell.settings[axis.name])
                place.annotate(text, (x, y), (4, 4), textcoords="offset points", fontsize=7)
    place.set(xlabel=f"{distance.words}, lower is better", ylabel=accuracy.words)
    place.set_title("guidance trade-off\n(numbers: guidance scale; best at the upper left)")
    place.title.set_fontsize(9)
    place.margins(0.12)
    place.grid(alpha=0.3)


def _legend(place: Axes, lines: Sequence[SettingLine], names: Sequence[str]) -> None:
    handles, labels = place.get_legend_handles_labels()
    entries = [(h, t) for h, t in zip(handles, labels, strict=True) if t and not t.startswith("_")]
    if entries:
        place.legend(*zip(*entries, strict=True), title=", ".join(names), fontsize=7,
                     title_fontsize=7)  # fmt: skip


def _numbers(axis: Axis) -> list[float]:
    """Returns where the values of an axis stand: numbers at their value, others side by side."""
    if _is_numeric(axis):
        return [float(value) for value in axis.values]
    return [float(i) for i in range(len(axis.values))]


def _is_numeric(axis: Axis) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in axis.values)


def _is_logarithmic(axis: Axis) -> bool:
    if not _is_numeric(axis):
        return False
    smallest, largest = min(axis.values), max(axis.values)
    return smallest > 0 and largest / smallest >= WIDE


def _colour(number: int, count: int) -> Any:
    """Returns the colour of a line; colours go from dark to light in the order of the lines."""
    return matplotlib.colormaps["viridis"](0.0 if count < 2 else 0.88 * number / (count - 1))


def _spelled(value: Any) -> str:
    return spelled(tuple(value) if isinstance(value, list) else value)
