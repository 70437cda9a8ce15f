"""The page of a comparison, ``compare.md``: values, differences with intervals, and settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pinxit.config import shown
from pinxit.evaluate.headlines import Headline, constants, headlines, shown_value
from pinxit.evaluate.value_table import value_table
from pinxit.progress import duration

ABOUT = {
    "ema": "average",
    "step": "step",
    "images": "images seen",
    "parameters": "parameters",
    "train_seconds": "training time",
}
"""The columns that say what a model is."""


def comparison_page(record: Mapping[str, Any]) -> str:
    """Returns the page for the content of ``compare.json``."""
    models = record["models"]
    values = [model["values"] for model in models]
    rows = [[model["checkpoint"], *_about(model)] for model in models]
    lines = ["# Comparison", "", *_protocol(record), "", "## Values", ""]
    lines += value_table(["model", *ABOUT.values()], rows, headlines(values), values)
    if same := constants(values):
        texts = [f"{Headline(name).words} {shown_value(value)}" for name, value in same.items()]
        lines += ["", f"The same for all models: {'; '.join(texts)}."]
    arrows = "↑: higher is better; ↓: lower is better. The best values of a column are bold."
    lines += ["", f"{arrows} All values are in compare.json."]
    if record["paired_differences"]:
        lines += ["", "## Differences", "", *_paired(record["paired_differences"])]
    lines += ["", "## Settings that differ", "", *_settings(record)]
    return "\n".join([*lines, ""])


def _protocol(record: Mapping[str, Any]) -> list[str]:
    words = record["protocol"]["in_words"]
    lines = [f"- {name}: {text}" for name, text in words.items()]
    return [*lines, "", "Command:", "", "    " + shlex.join(record["command"])]


def _about(model: Mapping[str, Any]) -> list[str]:
    texts = []
    for name in ABOUT:
        value = model[name]
        if value is None:
            texts.append("not known")
        elif name == "train_seconds":
            texts.append(duration(value))
        else:
            texts.append(f"{value:,}" if isinstance(value, int) else str(value))
    return texts


def _paired(differences: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the table of differences from the first model, and what their intervals mean."""
    first = differences[0]["from"]
    lines = [
        f"Each model minus {first}, on the same prompts and seeds, with a 95 % interval of a "
        "paired bootstrap over pictures.",
        "",
        "| model | value | difference | 95 % interval | pictures | |",
        "| --- | --- | ---: | --- | ---: | --- |",
    ]
    for each in differences:
        meaning = "differs" if each["clear"] else "no clear difference"
        interval = f"{each['low']:+.4f} to {each['high']:+.4f}"
        cells = [each["checkpoint"], Headline(each["value"]).words, f"{each['difference']:+.4f}"]
        lines.append(f"| {' | '.join([*cells, interval, str(each['pictures']), meaning])} |")
    return lines


def _settings(record: Mapping[str, Any]) -> list[str]:
    """Returns the table of settings that differ, those of drawing first."""
    models = record["models"]
    labels = [model["checkpoint"] for model in models]
    rows = {
        f"sampling: {name}": [model["sampling"][name] for model in models]
        for name in models[0]["sampling"]
    }
    rows = {name: each for name, each in rows.items() if any(value != each[0] for value in each)}
    rows |= record["setting_differences"]
    if not rows:
        return ["None of the settings that are known."]
    head = [f"| setting | {' | '.join(labels)} |", f"| --- |{' --- |' * len(labels)}"]
    return [
        *head,
        *(
            f"| {name} | {' | '.join(_cell(value) for value in row)} |"
            for name, row in rows.items()
        ),
    ]


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else shown(value)
    return text.replace("|", "\\|").replace("\n", " ")
