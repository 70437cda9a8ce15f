"""Records a profile of some steps (``--profile_steps A:B``) with JAX's profiler.

The trace is written to ``profile/`` in the run's folder. The profiler only watches: if it fails,
the run says so once and goes on without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from pinxit.config import UsageError

FORM = "A:B, the first and the last step to record, such as 20:25"


def steps_to_profile(text: str | None) -> tuple[int, int] | None:
    """Parses the setting profile_steps. Raises `UsageError` unless it is A:B with 1 <= A <= B."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError("profile_steps", text, problem="not a range of steps", valid=FORM)
    return int(match[1]), int(match[2])


class StepProfile:
    """Starts the profiler before the first step of a range, and stops it after the last."""

    def __init__(
        self, span: tuple[int, int] | None, folder: Path, *, say: Callable[[str], object]
    ) -> None:
        self._span = span
        self._folder = folder
        self._say = say
        self._records = False

    def before(self, step: int) -> None:
        """Is called before step number `step` starts, counted from 1."""
        if self._span is None or self._records or not self._span[0] <= step <= self._span[1]:
            return
        try:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
        except Exception as error:  # a profiler that fails must not end the run
            self._give_up(error)
        else:
            self._records = True

    def after(self, step: int, result: Any) -> None:
        """Is called with the result of step number `step`, which may still be computed."""
        if self._records and self._span is not None and step >= self._span[1]:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Stops the profiler and writes the trace, if it records."""
        if not self._records:
            return
        self._records = False
        try:
            jax.profiler.stop_trace()
        except Exception as error:  # a profiler that fails must not end the run
            self._give_up(error)
            return
        self._span = None
        self._say(f"a profile is in {self._folder}: docs/devices.md says how to view it")

    def _give_up(self, error: Exception) -> None:
        self._span = None
        reason = str(error).partition("\n")[0] or type(error).__name__
        self._say(f"warning: the steps are not profiled: {reason}")
