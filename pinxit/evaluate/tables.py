"""Values of evaluators as tables, for the terminal and for the report of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pinxit.evaluate.distances.noise_table import noise_of_real_pictures

COUNTS = ("pictures", "reference_pictures")
"""Rows and columns with numbers of pictures."""
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

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The rows as text; numbers of pictures without decimals."""
        return [
            tuple(
                _text(cell, is_count=row[0] in COUNTS or column in COUNTS)
                for column, cell in zip(self.head, row, strict=True)
            )
            for row in self.rows
        ]


def _text(cell: str | float, *, is_count: bool) -> str:
    if isinstance(cell, str):
        return cell
    return f"{cell:,.0f}" if is_count else f"{cell:.4f}"


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
    result: list[Table] = []
    for group, cells in groups.items():
        result.append(_table(group, cells))
        if group == "distances":
            result += noise_tables(name for name, _ in cells)
    return result


def noise_tables(rows: Iterable[str]) -> Iterator[Table]:
    """Yields a table for each network among the rows of distances: the same distances between two
    sets of real pictures, by the number of pictures."""
    names = list(rows)
    for network, kinds, counts in noise_of_real_pictures():
        if any(name.endswith(f"_{network}") for name in names):
            title = f"real pictures against as many other real ones ({network})"
            head = ("pictures", *(f"{kind}_{network}" for kind in kinds))
            yield Table(title, head, tuple((f"{count:,}", *row) for count, row in counts))


def _table(group: str, cells: Mapping[tuple[str, str], float]) -> Table:
    columns = list(dict.fromkeys(column for _, column in cells))
    names = list(dict.fromkeys(name for name, _ in cells))
    rows = [(name, *(cells.get((name, column), "") for column in columns)) for name in names]
    return Table(TITLES.get(group, group.replace("_", " ")), ("name", *columns), tuple(rows))
