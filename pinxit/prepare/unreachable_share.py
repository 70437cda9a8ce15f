"""Compares the rows of a unit whose host could not be reached with those of the other units.

A server that many rows share, or a part of the network, may be away while a unit is prepared. Its
rows then look like dead links. What is normal differs between datasets, since of some half of the
hosts are dead. So the measure is the dataset itself: the units that are done. Dead links are spread
over many hosts, so a single host with a large share of a unit is doubted even without that measure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from pinxit.data.fetch.fetcher import UNREACHED
from pinxit.data.outcome import is_dropped
from pinxit.prepare.ledger import Ledger

SAMPLE = 64
"""Largest number of finished units that a unit is compared with."""
FLOOR = 0.2
"""Share of unreachable rows up to which no unit is doubted."""
ONE_HOST = 8
"""Least number of unreachable rows for which a single host is doubted."""
MARGIN = 0.15
"""Share by which a doubted unit exceeds the others at least."""
DEVIATIONS = 6.0
"""The same in standard deviations of the difference of two binomial shares."""


class UsualCounts:
    """The counts of the first finished units of a dataset, at most `SAMPLE` of them.

    The units are listed until there are `SAMPLE` of them. The time that a unit takes therefore
    does not grow with the number of units that are done.
    """

    def __init__(self) -> None:
        self._counts: dict[str, Mapping[str, int]] = {}

    def without(self, unit: str, ledger: Ledger) -> Counter[str]:
        """Returns the number of rows by status of these units, except one."""
        if len(self._counts) < SAMPLE:
            self._read(ledger)
        others = Counter[str]()
        for name, counts in self._counts.items():
            if name != unit:
                others.update(counts)
        return others

    def _read(self, ledger: Ledger) -> None:
        """Reads the records of the first units by name."""
        records = ledger.each(ledger.units()[:SAMPLE])
        # at once, since other units may be compared with them just now
        self._counts = {record.unit: record.counts for record in records}


def reason_to_doubt(
    ledger: Ledger,
    unit: str,
    counts: Mapping[str, int],
    *,
    unreached: Mapping[str, int],
    reached: bool,
    usual: UsualCounts | None = None,
) -> str | None:
    """Returns why the unreachable rows of a unit may be an outage's, or None if they may not.

    `unreached` is the number of these rows by host. `reached` says whether any host was reached.
    `usual` remembers the units of `ledger` from one call to the next.
    """
    failed, rows = _unreached(counts)
    if not failed:
        return None
    if not reached:
        return f"no host was reached by any of {rows:,} rows"
    share = failed / rows
    if share < FLOOR:
        return None
    host = max(unreached, key=lambda name: (unreached[name], name))
    if unreached[host] >= max(ONE_HOST, FLOOR * rows):
        return f"{unreached[host]:,} of its {rows:,} rows did not reach the host {host}"
    others = (usual or UsualCounts()).without(unit, ledger)
    failed_before, rows_before = _unreached(others)
    if not rows_before:
        return None
    usual_share = failed_before / rows_before
    pooled = (failed + failed_before) / (rows + rows_before)
    deviation = math.sqrt(pooled * (1 - pooled) * (1 / rows + 1 / rows_before))
    if share - usual_share <= max(MARGIN, DEVIATIONS * deviation):
        return None
    own = f"the hosts of {share:.0%} of its rows were not reached"
    return f"{own}, of the other units {usual_share:.0%}"


def _unreached(counts: Mapping[str, int]) -> tuple[int, int]:
    """Returns how many rows did not reach their host, and how many were requested."""
    requested = {status: n for status, n in counts.items() if not is_dropped(status)}
    return sum(requested.get(status, 0) for status in UNREACHED), sum(requested.values())
