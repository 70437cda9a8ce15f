"""Engines: where units of work are done. The same function, the same units, the same results.

An engine maps a function over units in any order and survives what happens to single units: an
exception, or the death of the process that was at work, becomes a `UnitResult` with its reason, and
the others go on. What makes the outcome independent of the engine is the function: it depends on
its unit alone, and writes files that are whole or absent.

======== =================================================================================
``local`` processes of this machine, replaced when they die (the default)
``inline`` this process, one unit after another
``rank``  every world-th unit, done as by ``local``: static shares for Slurm or a pod's hosts
``ray``   actors of a Ray cluster, or of one started on this machine (extra ``ray``)
======== =================================================================================
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from pinxit.config import UsageError

DIED = "Died"
"""`UnitResult.kind` when the process at work ended."""


@dataclass(frozen=True)
class UnitResult:
    """One unit, done or failed."""

    unit: Any
    value: Any = None
    """What the function returned."""
    kind: str = ""
    """Empty if done; otherwise the exception's class, or `DIED`."""
    reason: str = ""
    """One line: why it failed."""
    trace: str = ""
    """The exception's traceback."""
    os_error: bool = False
    """Whether the exception was an OSError: of the machine or the network, not of the unit."""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether there is no value."""
        return bool(self.kind)


@runtime_checkable
class Engine(Protocol):
    """Does units of work somewhere."""

    name: str

    def share(self, units: Sequence[Any]) -> list[Any]:
        """Of all units, those that this command is to see to; the same in every run."""
        ...

    def map(
        self, fn: Callable[[Any], Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """Does all of `units`, `workers` at a time, and yields each as it ends, in any order.

        `fn` and units must pickle. Each worker keeps its own copy of `fn` for its whole life, so
        that what `fn` keeps (a pool, a compiled encoder) is made once; `fn.close()`, where there is
        one, is called at the end. Closing the iterator ends the workers.
        """
        ...


def attempt(fn: Callable[[Any], Any], unit: Any) -> UnitResult:
    """One unit, with its exception caught: a failure is a result."""
    begun = time.perf_counter()
    try:
        result = UnitResult(unit, value=fn(unit))
    except BaseException as error:  # handed on as a result, and the run goes on
        if not isinstance(error, Exception):
            raise
        said = str(error).strip().partition("\n")[0]
        result = UnitResult(
            unit,
            kind=type(error).__name__,
            reason=_reason(error, said),
            trace=traceback.format_exc(),
            os_error=isinstance(error, OSError),
        )
    return replace(result, seconds=time.perf_counter() - begun)


def _reason(error: Exception, said: str) -> str:
    """Why a unit failed, in a line; a mistake that a person can mend needs no name of a class."""
    name = type(error).__name__
    if not said or isinstance(error, UsageError):
        return said or name
    return f"{name}: {said}"


def close(fn: Any) -> None:
    """Lets the function give back what it holds."""
    if callable(getattr(fn, "close", None)):
        fn.close()
