"""The values that summaries show, in which direction they are better, and their names in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MEAN = "mean"
"""The row of a column that stands for the column's other rows."""
LOWER = ("fid", "kid", "cmmd", "frechet", "kernel", "mmd", "loss")
"""Beginnings of the names of rows that are better when lower: distances and losses."""
HIGHER = ("precision", "recall", "density", "coverage", "gain")
"""Beginnings of the names of rows that are better when higher."""
LOWER_GROUPS = ("details",)
"""Groups whose values are better when lower."""
HIGHER_GROUPS = ("prompts", "clip_score", "composition", "geneval", "dpg")
"""Groups whose values are better when higher."""
SECONDARY_ROWS = ("standard_error_", "paper_", "cut_prompts_", "pictures", "reference_pictures")
SECONDARY_COLUMNS = ("low", "high", "pictures")
"""Beginnings of rows, and columns, that say more about another value and that summaries omit."""
TABLE_ROWS = ("kernel", "mmd", "precision", "density", "coverage")
"""Beginnings of rows that tables show and pictures leave out: beside the Fréchet distance and the
recall of the same network they say little more."""
ACCURACY = "prompts/accuracy/mean"
"""The value that a guidance trade-off sets against the distance, where there is one."""
CEILING = "prompts/ceiling/mean"
"""The same of real pictures."""
NOISE = "noise"
"""The column of distances between real pictures and other real ones."""
FRECHET = ("distances/value/fid", "distances/value/frechet")
"""Beginnings of the names of Fréchet distances, the preferred one first."""
IN_WORDS = {
    ACCURACY: "prompt accuracy (fraction of attributes)",
    CEILING: "prompt accuracy of real pictures",
    "prompts/chance/mean": "prompt accuracy of real pictures of other prompts",
    "distances/value/fid": "FID (Fréchet distance, Inception)",
    "distances/value/kid": "KID (kernel distance, Inception)",
    "distances/value/cmmd": "CMMD (kernel distance, CLIP L/14 at 336)",
    "validation/loss": "validation loss",
}
"""Names of values in words, where those do not follow from the name."""
ROWS_IN_WORDS = {
    "frechet": "Fréchet distance",
    "kernel": "kernel distance",
    "mmd": "MMD",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}
"""The figures of distances in words; the rest of a row's name is that of the network."""


@dataclass(frozen=True)
class Headline:
    """A value of evaluators that summaries show."""

    name: str
    """The value's full name, such as ``prompts/accuracy/mean``."""

    @property
    def better(self) -> str:
        """The direction in which the value is better, "higher" or "lower", or "" if unknown."""
        group, *_, row = self.name.split("/")
        if row.startswith(LOWER) or group in LOWER_GROUPS:
            return "lower"
        return "higher" if group in HIGHER_GROUPS or row.startswith(HIGHER) else ""

    @property
    def plotted(self) -> bool:
        """Whether pictures show the value."""
        return not self.name.rpartition("/")[2].startswith(TABLE_ROWS)

    @property
    def words(self) -> str:
        """The name in words."""
        if self.name in IN_WORDS:
            return IN_WORDS[self.name]
        group, *columns, row = self.name.split("/")
        if group == "distances":
            figure, _, network = row.partition("_")
            words = row.replace("_", " ")
            if figure in ROWS_IN_WORDS:
                words = f"{ROWS_IN_WORDS[figure]} ({network.replace('_', ' ')})"
            return f"real against real: {words}" if columns[:1] == [NOISE] else words
        inner = [part for part in (*columns, row) if part != MEAN and part != group]
        return " ".join([group, *inner]).replace("_", " ")

    @property
    def noise(self) -> str:
        """The name of the same figure of real pictures against real ones, which says what a
        perfect model would get; "" for a value without one."""
        start = "distances/value/"
        return f"distances/{NOISE}/{self.name.removeprefix(start)}" * self.name.startswith(start)

    def best(self, values: Sequence[float | None]) -> list[int]:
        """Returns the numbers of the best of some values; several if they are equal."""
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if not finite or not self.better:
            return []
        best = min(finite) if self.better == "lower" else max(finite)
        return [i for i, value in enumerate(values) if value == best]


def headlines(rows: Sequence[Mapping[str, float]]) -> list[Headline]:
    """Returns the values that a table of these rows shows, in the order of the evaluators.

    These are the values that differ between rows. A column that has a mean is shown by its mean
    alone, and a name such as ``loss_t_0.05`` that continues another one (``loss``) is left out.
    """
    names = [headline.name for headline in summaries(rows)]
    return [Headline(name) for name in names if len(rows) == 1 or not _constant(name, rows)]


def constants(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the values that are the same in all of several rows, without the parts of a mean."""
    if len(rows) < 2:
        return {}
    names = [headline.name for headline in summaries(rows)]
    return {name: rows[0][name] for name in names if _constant(name, rows)}


def summaries(rows: Sequence[Mapping[str, float]]) -> list[Headline]:
    """Returns the values that stand for others, including those that are the same in all rows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, list[str]] = {}
    for name in names:
        columns.setdefault(name.rpartition("/")[0], []).append(name.rpartition("/")[2])
    return [
        Headline(f"{column}/{row}" if column else row)
        for column, row in (name.rpartition("/")[::2] for name in names)
        if _stands(row, columns[column]) and column.rpartition("/")[2] not in SECONDARY_COLUMNS
    ]


def _stands(row: str, rows: Sequence[str]) -> bool:
    """Returns whether a row of a column is shown in a summary."""
    if row.startswith(SECONDARY_ROWS):
        return False
    if MEAN in rows:
        return row == MEAN
    return not any(row.startswith(f"{other}_") for other in rows)


def frechet_of(names: Sequence[str]) -> str | None:
    """Returns the name of the Fréchet distance that a picture shows, or None without any."""
    return next((name for start in FRECHET for name in names if name.startswith(start)), None)


def accuracy_of(names: Sequence[str]) -> str | None:
    """Returns the value that says how well pictures fit their prompts, or None without any."""
    starts = (ACCURACY, "composition/accuracy", "geneval/accuracy", "dpg/score", "clip_score/drawn")
    return next((name for start in starts for name in names if name.startswith(start)), None)


def _constant(name: str, rows: Sequence[Mapping[str, float]]) -> bool:
    """Returns whether all rows have a value of this name, and the same one."""
    values = [row.get(name) for row in rows]
    return all(value is not None and value == values[0] for value in values)


def shown_value(value: float | None) -> str:
    """Returns a value as a table shows it: with four decimals, large ones with fewer."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return str(value)
    decimals = 4 if abs(value) < 10 else 2 if abs(value) < 1000 else 0
    return f"{value:.{decimals}f}"
