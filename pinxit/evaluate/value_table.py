"""Draws values of several models or settings as a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pinxit.evaluate.headlines import Headline, shown_value

ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}
"""The arrow that follows a column's name and says in which direction it is better."""


def value_table(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    columns: Sequence[Headline],
    values: Sequence[Mapping[str, float]],
) -> list[str]:
    """Returns the lines of a Markdown table: the texts of each row, then its values.

    The best values of each column are bold.
    """
    head = [*names, *(column.words + ARROWS[column.better] for column in columns)]
    body = [list(row) for row in rows]
    for column in columns:
        numbers = [row.get(column.name) for row in values]
        best = column.best(numbers) if len(rows) > 1 else []
        for i, number in enumerate(numbers):
            text = shown_value(number)
            body[i].append(f"**{text}**" if i in best else text)
    rule = [*("---" for _ in names), *("---:" for _ in columns)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *body)]
