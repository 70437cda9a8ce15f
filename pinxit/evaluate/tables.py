"""Values of evaluators as tables, for the terminal and for the report of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TITLES = {
    "prompts": "held-out prompts",
    "composition": "composition of held-out prompts",
    "details": "details of drawn pictures and of renders",
    "variety": "spread over the seeds of a prompt",
    "validation": "validation loss by time",
    "validation_loss": "validation loss by average",
    "conditioning": "effect of captions",
    "latents": "held-out images",
    "distances": "drawn pictures against real ones",
    "clip_score": "CLIP score",
}
"""The titles of groups; the title of any other group is its name."""


@dataclass(frozen=True)
class Table:
    """A table with the values of one group."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]
    """The rows: a name, then the value in each further column, or an empty string without value."""


def tables(values: Mapping[str, float]) -> list[Table]:
    """Returns a table for each group, in the order of its first value.

    ``group/name`` is a row with one value; ``group/column/name`` is one of several columns.
    """
    groups: dict[str, dict[tuple[str, str], float]] = {}
    for full, value in values.items():
        group, _, rest = full.rpartition("/") if "/" not in full else full.partition("/")
        column, slash, name = rest.partition("/")
        cell = (name, column) if slash else (column, "value")
        groups.setdefault(group or "values", {})[cell] = value
    return [_table(group, cells) for group, cells in groups.items()]


def _table(group: str, cells: Mapping[tuple[str, str], float]) -> Table:
    columns = list(dict.fromkeys(column for _, column in cells))
    names = list(dict.fromkeys(name for name, _ in cells))
    rows = [(name, *(cells.get((name, column), "") for column in columns)) for name in names]
    return Table(TITLES.get(group, group.replace("_", " ")), ("name", *columns), tuple(rows))
