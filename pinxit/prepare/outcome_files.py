"""Reads and writes the outcomes of a unit's rows as a Parquet file.

``outcomes/<unit>.parquet`` has the columns key, name, url, status and detail, and one line for each
row, in the order of the unit's rows. ``name`` is the path or record in the source, if it has one.
Rows whose image was decoded also have its hashes (``body`` and ``look``), from which placeholders
are found. If the source states scores, there is a column for each. Files of older versions lack
both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pinxit.data.outcome import Outcome
from pinxit.data.prepared.shards import (
    ShardInfo,
    describe,
)
from pinxit.data.row import SCORES, Row
from pinxit.files import whole
from pinxit.prepare.placeholders import Fingerprint

PRINTS = ("body", "look")
"""The columns with the hashes of decoded images."""


def write_outcomes(
    path: Path,
    rows: Mapping[str, Row],
    outcomes: Mapping[str, Outcome],
    prints: Mapping[str, Fingerprint],
) -> ShardInfo:
    """Writes the outcomes of `rows` in their order, and returns the file's description."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = [outcomes[key] for key in rows]
    table = pa.table(
        {
            "key": pa.array(list(rows), pa.string()),
            "name": pa.array([row.name for row in rows.values()], pa.string()),
            "url": pa.array([row.url or row.origin for row in rows.values()], pa.string()),
            "status": pa.array([outcome.status for outcome in ordered], pa.string()),
            "detail": pa.array([outcome.detail for outcome in ordered], pa.string()),
            **{
                name: pa.array([getattr(prints.get(key), name, None) for key in rows], pa.string())
                for name in PRINTS
            },
            **{
                name: pa.array([row.scores.get(name) for row in rows.values()], pa.float32())
                for name in SCORES
                if any(name in row.scores for row in rows.values())
            },
        }
    )
    with whole(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        return describe(temporary, name=path.name, count=len(rows))


def read_outcomes(path: Path) -> list[Outcome]:
    """Reads the outcomes that `write_outcomes` wrote, in the order of the rows."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["key", "status", "detail"])
    columns: Sequence[list[str]] = [column.to_pylist() for column in table.columns]
    return [Outcome(*row) for row in zip(*columns, strict=True)]


def read_prints(path: Path) -> dict[str, Fingerprint]:
    """Reads the hashes of the decoded images by key; there are none in files of older versions."""
    import pyarrow.parquet as pq

    if not set(PRINTS) <= set(pq.read_schema(path).names):
        return {}
    keys, bodies, looks = pq.read_table(path, columns=["key", *PRINTS]).to_pydict().values()
    return {
        key: Fingerprint(body, look)
        for key, body, look in zip(keys, bodies, looks, strict=True)
        if body is not None
    }
