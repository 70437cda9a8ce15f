"""Runs one of this package's modules as a child process with a time limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any


class ChildFailed(RuntimeError):
    """A child process gave no answer. The message is the last line of its standard error."""


def ask(
    module: str,
    arguments: Sequence[str] = (),
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Runs ``python -m module`` and returns the JSON in the last line of its output.

    Raises `ChildFailed` if there is none within `timeout` seconds.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise ChildFailed(f"no answer within {timeout:g} s") from error
    lines = done.stdout.strip().splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        words = [line for line in done.stderr.strip().splitlines() if line.strip()]
        last = words[-1] if words else f"exit code {done.returncode}"
        raise ChildFailed(last[:400]) from error
