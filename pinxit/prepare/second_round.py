"""Runs units on an engine, and those that an outage may have hit once more at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from pinxit.prepare.engines.base import Engine, UnitResult
from pinxit.prepare.network_wait import Doubtful, LongOutage, Offline

POSTPONED = frozenset({Offline.__name__, Doubtful.__name__})
"""Kinds of failures that may be over at the end of the command."""
OUTAGES = POSTPONED | {LongOutage.__name__}
"""Kinds of failures that say nothing about the unit."""
PAUSE = 60.0
"""Longest pause, in seconds, before the second round."""


def in_two_rounds(
    engine: Engine,
    fn: Callable[[Any], Any],
    last: Callable[[Any], Any],
    units: Sequence[Any],
    *,
    workers: int,
    pause: float,
    sleep: Callable[[float], Any] = time.sleep,
) -> Generator[tuple[UnitResult, bool], None, None]:
    """Yields each unit's result, and whether it is final.

    Units that fail because of an outage are run with `last` after all others and after a pause,
    except those that have waited for its end in vain.
    """
    postponed: list[Any] = []
    with closing(engine.map(fn, units, workers=workers)) as results:
        for result in results:
            is_final = result.kind not in POSTPONED
            if not is_final:
                postponed.append(result.unit)
            yield result, is_final
    if postponed:
        sleep(pause)
        with closing(engine.map(last, postponed, workers=workers)) as results:
            for result in results:
                yield result, True
