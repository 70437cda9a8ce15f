"""Stands in for the package trackio, and checks arguments as its reference documents them.

A run is found by its name. Keys of the settings do not begin with "_", values are numbers or
`trackio.Image`, and a picture is a file.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest


class Image:
    """A picture to log."""

    def __init__(self, value: Any, caption: str | None = None) -> None:
        assert Path(value).is_file(), value
        assert caption is None or isinstance(caption, str)
        self.path = value


@dataclass
class Run:
    """A run in Trackio's folder."""

    name: str
    config: dict[str, Any]
    rows: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    finished: int = 0
    started: int = 0
    _next_step: int = 0

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Adds a row."""
        assert isinstance(metrics, dict) and isinstance(step, int) and step >= 0
        for name, value in metrics.items():
            assert isinstance(name, str) and isinstance(value, int | float | Image), (name, value)
        self.rows.append((step, metrics))
        self._next_step = max(self._next_step, step + 1)

    def finish(self) -> None:
        """Ends the run."""
        self.finished += 1

    def _get_username(self) -> str | None:
        raise AssertionError("this asks huggingface.co")


class Server:
    """The runs of a project by their names."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}

    def init(
        self,
        project: str,
        name: str | None = None,
        group: str | None = None,
        space_id: str | None = None,
        server_url: str | None = None,
        bucket_id: str | None = None,
        config: dict[str, Any] | None = None,
        resume: Literal["must", "allow", "never"] = "never",
        settings: Any = None,
        private: bool | None = None,
        embed: bool = True,
        auto_log_gpu: bool | None = None,
        gpu_log_interval: float = 10.0,
        auto_log_cpu: bool | None = None,
        cpu_log_interval: float = 10.0,
    ) -> Run:
        """Starts or continues a run."""
        assert project and name and space_id is None and server_url is None
        assert isinstance(config, dict) and not any(key.startswith("_") for key in config)
        assert name not in self.runs or resume == "allow"
        run = self.runs.setdefault(name, Run(name, config))
        assert run._get_username() is None
        run.started += 1
        return run


def install(monkeypatch: pytest.MonkeyPatch) -> Server:
    """Makes `import trackio` find the stand-in, and returns its server."""
    server, module = Server(), types.ModuleType("trackio")
    inner = types.ModuleType("trackio.run")
    module.__spec__ = importlib.machinery.ModuleSpec("trackio", None)
    module.init = server.init  # type: ignore[attr-defined]
    module.Image = Image  # type: ignore[attr-defined]
    module.run = inner  # type: ignore[attr-defined]
    inner.Run = Run  # type: ignore[attr-defined]
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "trackio", module)
    monkeypatch.setitem(sys.modules, "trackio.run", inner)
    return server
