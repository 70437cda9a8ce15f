"""Engines determine where units of work run; the results are the same on every engine.

An engine maps a function over units in any order. Failures of single units do not stop it: if the
function raises an exception or the worker's process dies, the unit's `UnitResult` has the reason,
and the other units continue. The results do not depend on the engine because the function depends
only on its unit and writes files atomically.

======== =================================================================================
``local`` processes on this machine, which are replaced when they die (the default)
``inline`` this process
``rank``  like ``local``, but only every world-th unit: static shares for Slurm or a pod's hosts
``ray``   actors on a Ray cluster, or on one started on this machine (extra ``ray``)
======== =================================================================================

A worker does one unit after another, unless the function is `Overlapping`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from pinxit.config import UsageError

DIED = "Died"
"""The `UnitResult.kind` of a unit whose worker's process died."""


@dataclass(frozen=True)
class UnitResult:
    """The result of one unit, which is done or has failed."""

    unit: Any
    value: Any = None
    """The function's return value."""
    kind: str = ""
    """The class of the exception, or `DIED`; empty if the unit is done."""
    reason: str = ""
    """The reason for the failure, in one line."""
    trace: str = ""
    """The exception's traceback."""
    os_error: bool = False
    """Whether the exception was an OSError, caused by the machine or network, not by the unit."""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether the unit failed, so that there is no value."""
        return bool(self.kind)


class Overlapping(Protocol):
    """A function of which one process may run several units at the same time, in threads."""

    @property
    def open_units(self) -> int:
        """The number of units that a process may have begun and not finished; 1 if they must run
        one after another, in which case `drained` is not passed."""
        ...

    def __call__(self, unit: Any, /, drained: Callable[[], object] = ...) -> Any:
        """Does a unit, and calls `drained` when another unit may begin beside it."""
        ...


def open_units(fn: Callable[..., Any]) -> int:
    """Returns the number of units that a process may have open; 1 unless `fn` is `Overlapping`."""
    return getattr(fn, "open_units", 1)


@runtime_checkable
class Engine(Protocol):
    """The interface of an engine, which runs units of work."""

    name: str

    def share(self, units: Sequence[Any]) -> list[Any]:
        """Returns the units that this command is responsible for; they are the same in each run."""
        ...

    def map(
        self, fn: Callable[[Any], Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """Runs all of `units`, `workers` at a time, and yields results as they come, in any order.

        `fn` and the units must be picklable. Each worker has one copy of `fn` for its whole life,
        so that state in `fn` (a pool, a compiled encoder) is created once. If `fn` is
        `Overlapping`, a worker begins its next unit when the last one is drained. `fn.close()` is
        called at the end if it exists. Closing the iterator ends the workers.
        """
        ...


def attempt(fn: Callable[[Any], Any], unit: Any, *, stops: bool = True) -> UnitResult:
    """Runs one unit, and returns an exception as a failed result.

    With `stops`, an exit and an interruption are raised.
    """
    started = time.perf_counter()
    try:
        result = UnitResult(unit, value=fn(unit))
    except BaseException as error:  # reported as a result, so that the other units continue
        if stops and not isinstance(error, Exception):
            raise
        message = str(error).strip().partition("\n")[0]
        result = UnitResult(
            unit,
            kind=type(error).__name__,
            reason=_reason(error, message),
            trace=traceback.format_exc(),
            os_error=isinstance(error, OSError),
        )
    return replace(result, seconds=time.perf_counter() - started)


def _reason(error: BaseException, message: str) -> str:
    """Formats the reason of a failure in one line, without the class name for a `UsageError`."""
    name = type(error).__name__
    if not message or isinstance(error, UsageError):
        return message or name
    return f"{name}: {message}"


def close(fn: Any) -> None:
    """Calls `fn.close()`, if it exists, to release resources."""
    if callable(getattr(fn, "close", None)):
        fn.close()
