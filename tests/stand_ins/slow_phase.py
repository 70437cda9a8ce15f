"""A run one of whose phases takes a minute: `python slow_phase.py CONFIG PHASE MARKER`.

The phase creates the file MARKER when it begins, and cannot be interrupted from inside.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

SECONDS = 60.0
SAVING = 4.0
"""Seconds that writing a checkpoint takes."""


def slow(marker: Path, seconds: float = SECONDS) -> None:
    """Creates the marker once, and sleeps."""
    if not marker.exists():
        marker.touch()
        time.sleep(seconds)


def patch(phase: str, marker: Path) -> None:
    """Makes one phase slow."""
    from pinxit.data.loader import Loader
    from pinxit.train import checkpoint_writing, run
    from pinxit.train.input import in_memory
    from pinxit.train.report import observer

    def before(owner: Any, name: str, seconds: float = SECONDS, at: int = 0) -> None:
        original = getattr(owner, name)

        def patched(*args: Any, **options: Any) -> Any:
            if not at or args[1] == at:
                slow(marker, seconds)
            return original(*args, **options)

        setattr(owner, name, patched)

    class Step:
        """A step that takes a minute to compile."""

        def __init__(self, *args: Any) -> None:
            self.step = build_step(*args)

        def lower(self, *args: Any) -> Step:
            self.lowered = self.step.lower(*args)
            return self

        def compile(self) -> Any:
            slow(marker)
            return self.lowered.compile()

    build_step = run.build_step
    if phase == "sampling":
        before(observer.Observer, "sheet")
    elif phase == "evaluation":
        before(observer, "measure")
    elif phase == "saving":
        before(checkpoint_writing, "write_parts", SAVING)
    elif phase == "compiling":
        run.build_step = Step  # type: ignore[assignment]
    elif phase == "encoding":
        before(in_memory, "_encode")
    elif phase == "waiting for data":
        before(Loader, "batch", at=6)


def main(config_path: str, phase: str, marker: str) -> None:
    """Runs the settings in a file."""
    patch(phase, Path(marker))
    from pinxit.train.attended_work import end_without_waiting
    from pinxit.train.run import run
    from pinxit.train.settings import config_from_json

    code = run(config_from_json(json.loads(Path(config_path).read_text()))).exit_code
    end_without_waiting(code)
    sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
