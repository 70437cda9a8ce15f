"""Finds hosts that answered while other units were prepared, to test the connection with.

A new worker process knows no host. Without one, it could not tell an outage from dead links.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pinxit.data.html_ampersands import without_entities
from pinxit.data.reachability import Reachability
from pinxit.prepare.ledger import Ledger

RECORDS = 4
"""Number of the newest finished units that are looked at."""
URLS = 64
"""Number of URLs that are remembered from each."""


def known_hosts(ledger: Ledger) -> Reachability:
    """Returns the hosts that answered in the newest finished units; none if no unit is done."""
    known = Reachability()
    for record in ledger.each(ledger.newest(RECORDS)):
        info = record.files.get("outcomes")
        if info is not None:
            for url in _answered(ledger.root / "outcomes" / info.name):
                known.answered(without_entities(url))
    return known


def _answered(path: Path) -> list[str]:
    """Returns URLs of rows that were kept. A file that cannot be read has none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with contextlib.suppress(OSError, pa.ArrowInvalid):
        table = pq.read_table(path, columns=["url", "status"]).to_pylist()
        return [row["url"] for row in table if row["status"] == "ok" and row["url"]][:URLS]
    return []
