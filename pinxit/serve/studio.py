"""The state of a running studio, which its parts share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pinxit.serve.engine.engine import DrawingEngine
from pinxit.serve.settings import StudioConfig


@dataclass
class Studio:
    """The settings and the engine of a server."""

    config: StudioConfig
    engine: DrawingEngine
    ends: list[Callable[[], object]] = field(default_factory=list)
    """Functions that are called when the server ends, the last first."""

    @property
    def runs(self) -> Path:
        """The folder of training runs."""
        return Path(self.config.runs)

    @property
    def out(self) -> Path:
        """The folder of the gallery."""
        return Path(self.config.out)

    def at_end(self, act: Callable[[], object]) -> None:
        """Adds a function to call when the server ends."""
        self.ends.append(act)

    def close(self) -> None:
        """Ends all parts, then the engine."""
        while self.ends:
            self.ends.pop()()
        self.engine.close()
