"""The charts of a run: which curves each one shows, in what order, and what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pinxit.evaluate.tables import TITLES

MOST_LINES = 8
"""Largest number of curves in a chart of an evaluator's values."""
MAIN: tuple[tuple[str, str, str, str], ...] = (
    ("loss", "Training loss", "", "The mean error of the predicted velocity: lower is better."),
    ("learning_rate", "Learning rate", "", "How far each step moves the parameters."),
    ("grad_norm", "Gradient norm", "", "How strongly the newest rows pull at the parameters."),
    ("images_per_second", "Speed", "images/s", "Images that the run trains on per second."),
    ("seconds_per_step", "Time per step", "s", "Seconds that one step takes."),
    ("memory_gb", "Memory", "GB", "Memory in use: of the device, or of the process on a CPU."),
    ("data_wait_share", "Waiting for data", "", "Share of the time spent waiting for data."),
)
"""Name, title, unit and explanation of the charts of one curve."""
NOISY = ("loss", "loss_by_t", "grad_norm", "images_per_second", "seconds_per_step")
"""Charts whose curves can be smoothed; others change slowly or at few steps."""
BY_AVERAGE = "validation_loss"
BY_TIME = "loss_by_t"
KNOWN_LAST = ("loss_of_zero", "skipped", "consecutive", "worst_streak", "loss_scale")
"""Values that stand behind all others, because they only matter if something is wrong."""
EXPLAINED = {
    "prompts": "Share of held-out prompts whose parts the drawn pictures show.",
    "conditioning": "Share by which captions reduce the loss, with its error.",
    "latents": "Spread of the held-out pictures' latents, which should stay near 1.",
    "distances": "How far drawn pictures are from real ones, as distributions.",
    "clip_score": "How well pictures and prompts fit, as CLIP sees them.",
    "details": "Details of drawn pictures compared with renders.",
}
"""Explanations of evaluators' groups."""
FIRST = {
    "conditioning": ("conditioning/gain",),
    "latents": ("latents/std",),
    "distances": ("distances/value/frechet",),
    "clip_score": ("clip_score/drawn/scenes", "clip_score/drawn/clip"),
}
"""Beginnings of the values that the chart of a group shows; the others are folded."""


def charts_of(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Returns the charts for values, given by name with the number of their different steps, in the
    order of the page. Values of an evaluator that was run once are in the tables only."""
    names = list(counts)
    main = {chart["id"]: chart for chart in _main(names)}
    own = {curve["name"] for chart in main.values() for curve in chart["curves"]}
    rest = [name for name in names if name not in own]
    charts = [main[one] for one in ("loss", BY_AVERAGE, BY_TIME) if one in main]
    groups = list(_groups(name for name in rest if "/" in name and counts[name] > 1))
    charts += [chart for chart in groups if not chart["more"]]
    charts += [chart for chart in main.values() if chart not in charts]
    charts += [chart for chart in groups if chart["more"]]
    plain = [name for name in rest if "/" not in name]
    plain.sort(key=lambda name: name in KNOWN_LAST)
    return charts + [
        _chart(name, _words(name), [(name, _words(name))], more=name in KNOWN_LAST)
        for name in plain
    ]


def _main(names: Sequence[str]) -> Iterable[dict[str, Any]]:
    """Yields the charts that every run has."""
    for name, title, unit, hint in MAIN:
        if name in names:
            yield _chart(name, title, [(name, title)], unit=unit, hint=hint)
    averages = sorted(name for name in names if name.startswith(f"{BY_AVERAGE}/"))
    if averages:
        yield _chart(
            BY_AVERAGE,
            "Validation loss",
            [(name, name.partition("/")[2]) for name in averages],
            hint="The loss of rows that are held out, for the parameters (raw) and their averages.",
            points=True,
        )
    bins = [name for name in names if name.startswith(f"{BY_TIME}/")]
    if bins:
        count = len(bins)
        yield _chart(
            BY_TIME,
            "Loss by time",
            [(name, f"t {i / count:.2g} to {(i + 1) / count:.2g}") for i, name in enumerate(bins)],
            hint="The loss at different amounts of noise: t is 0 at the picture and 1 at noise.",
            ordered=True,
        )


def _groups(names: Iterable[str]) -> Iterable[dict[str, Any]]:
    """Yields a chart with the main values of each evaluator, and folded ones with the others."""
    groups: dict[str, list[str]] = {}
    for name in names:
        if not name.rpartition("/")[2].isdigit():
            groups.setdefault(name.partition("/")[0], []).append(name)
    for group, members in groups.items():
        title = TITLES.get(group, _words(group))
        title = title[:1].upper() + title[1:]
        first = _important(group, members)
        yield _of_group(group, title, first, hint=EXPLAINED.get(group, ""))
        others = [name for name in members if name not in first]
        for start in range(0, len(others), MOST_LINES):
            part = others[start : start + MOST_LINES]
            number = start // MOST_LINES + 1
            yield _of_group(f"{group}-{number}", f"{title}: other values {number}", part, more=True)


def _of_group(chart: str, title: str, names: Sequence[str], **more: Any) -> dict[str, Any]:
    """Returns a chart of an evaluator's values."""
    labels = [(name, name.partition("/")[2].replace("_", " ")) for name in names]
    return _chart(chart, title, labels, points=True, **more)


def _important(group: str, names: Sequence[str]) -> list[str]:
    """Returns the few values of a group to show first: the known ones, all if they are few, or
    means."""
    known = [name for name in names if name.startswith(FIRST.get(group, ("\0",)))]
    if known or len(names) <= MOST_LINES:
        return (known or list(names))[:MOST_LINES]
    means = [name for name in names if name.endswith("/mean")]
    return (means or list(names))[:MOST_LINES]


def _chart(
    chart: str,
    title: str,
    curves: Sequence[tuple[str, str]],
    *,
    unit: str = "",
    hint: str = "",
    points: bool = False,
    ordered: bool = False,
    more: bool = False,
) -> dict[str, Any]:
    """Returns a chart: `points` marks each value, `ordered` curves get shades of one colour, and
    `more` stands among those that are folded. A noisy one may be smoothed."""
    return {
        "id": chart,
        "title": title,
        "unit": unit,
        "hint": hint,
        "points": points,
        "ordered": ordered,
        "more": more,
        "noisy": chart in NOISY,
        "curves": [{"name": name, "label": label} for name, label in curves],
    }


def _words(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]
