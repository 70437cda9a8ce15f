"""Stands in for the package wandb, and checks arguments as its reference documents them.

`wandb.init(id=...)` refuses the characters / \\ # ? % :, a directory must be absolute, steps of
`Run.log` never fall, and values are numbers or `wandb.Image`.
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

    def __init__(
        self,
        data_or_path: Any,
        mode: str | None = None,
        caption: str | None = None,
        grouping: int | None = None,
        classes: Any = None,
        boxes: Any = None,
        masks: Any = None,
        file_type: str | None = None,
        normalize: bool = True,
    ) -> None:
        if isinstance(data_or_path, str):
            assert Path(data_or_path).is_file(), data_or_path
        assert caption is None or isinstance(caption, str)
        self.path = data_or_path


@dataclass
class Run:
    """A run on the server."""

    id: str
    name: str | None
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    finished: int = 0
    started: int = 0

    def log(
        self, data: dict[str, Any], step: int | None = None, commit: bool | None = None
    ) -> None:
        """Adds values to a step."""
        assert isinstance(data, dict) and step is not None and step >= 0
        for name, value in data.items():
            assert isinstance(name, str) and isinstance(value, int | float | Image), (name, value)
        assert step >= max(self.history, default=0), "steps never fall"
        self.history.setdefault(step, {}).update(data)

    def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
        """Ends the run."""
        self.finished += 1


class Server:
    """The runs of a project by their ids."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}

    def init(
        self,
        entity: str | None = None,
        project: str | None = None,
        dir: str | None = None,
        id: str | None = None,
        name: str | None = None,
        notes: str | None = None,
        tags: Any = None,
        config: dict[str, Any] | None = None,
        config_exclude_keys: Any = None,
        config_include_keys: Any = None,
        allow_val_change: bool | None = None,
        group: str | None = None,
        job_type: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
        force: bool | None = None,
        resume: bool | Literal["allow", "never", "must", "auto"] | None = None,
        settings: Any = None,
    ) -> Run:
        """Starts or continues a run."""
        assert id and not set(id) & set("/\\#?%:") and len(id) <= 64, id
        assert name is None or (name and len(name) <= 128), name
        assert dir is not None and Path(dir).is_absolute() and Path(dir).is_dir(), dir
        assert isinstance(config, dict) and project
        if id in self.runs:
            assert resume in ("allow", "must", "auto", True), "the run exists"
        run = self.runs.setdefault(id, Run(id, name))
        run.started += 1
        return run


def install(monkeypatch: pytest.MonkeyPatch) -> Server:
    """Makes `import wandb` find the stand-in, and returns its server."""
    server, module = Server(), types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.init = server.init  # type: ignore[attr-defined]
    module.Image = Image  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return server
