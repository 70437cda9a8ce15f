"""A run's folder: what lies where, and whether this command may write there.

::

    runs/<name>/  config.json  metrics.jsonl  events.*  samples/step_*.png  curves.png
                  checkpoints/step_*/  model/ (the release)  report.html  results.json (when
                  finished)
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit import extensions
from pinxit.config import UsageError, check_writable, read_json, to_json
from pinxit.files import write_json
from pinxit.train.checkpoint import check_config
from pinxit.train.settings import TrainConfig, config_from_json


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    root: Path
    """``<output_dir>/<name>``."""

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.root / "config.json"

    @property
    def metrics(self) -> Path:
        """One row of metrics a line."""
        return self.root / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """Sample grids."""
        return self.root / "samples"

    @property
    def curves(self) -> Path:
        """The curves."""
        return self.root / "curves.png"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, and those set aside."""
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        """The release."""
        return self.root / "model"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def results(self) -> Path:
        """Final figures; written last."""
        return self.root / "results.json"

    @property
    def cache(self) -> Path:
        """Encoded datasets, shared by the runs beside this one."""
        return self.root.parent / ".cache"

    def finished(self) -> dict[str, Any] | None:
        """The results of a finished run."""
        return read_json(self.results) if self.results.is_file() else None


def write_values(path: Path, value: Any) -> None:
    """Writes a run's settings or results as JSON, in their own order, whole or not at all. Figures
    of a run that diverged may be NaN."""
    write_json(path, value, sort_keys=False, indent=2, allow_nan=True)


def folder_of(config: TrainConfig) -> RunFolder:
    """The folder of this run, whatever is there."""
    return RunFolder(Path(config.output_dir) / config.name)


def claim(config: TrainConfig) -> RunFolder:
    """The folder of this run. Raises, having written nothing, if the run may not go there."""
    folder = folder_of(config)
    _check_writable(config)
    if not folder.config.is_file():
        _check_start(config)
    if not folder.root.exists():
        return folder
    if not folder.root.is_dir() or (not folder.config.is_file() and _foreign(folder.root)):
        raise UsageError(
            "name",
            config.name,
            problem=f"taken: {folder.root} exists and is not a run",
            valid="another --name or --output_dir",
        )
    if not folder.config.is_file():
        return folder
    if not config.resume:
        raise UsageError(
            "resume",
            config.resume,
            problem=f"not possible: the run {folder.root} exists and would be overwritten",
            valid="--resume 1 to continue it, another --name, or remove the folder",
        )
    check_config(saved_config(folder), config)
    return folder


def _check_writable(config: TrainConfig) -> None:
    """Raises unless the run's folder can be made, or written into where it is there."""
    root = folder_of(config).root
    if root.exists() and not root.is_dir():
        return  # it is taken, as `claim` says
    check_writable("output_dir", config.output_dir, root)


def _check_start(config: TrainConfig) -> None:
    """Raises unless what a new run begins with is there."""
    before = config.init_from
    if before is not None and not Path(before).exists():
        valid = "a run, a checkpoint or a release"
        raise UsageError("init_from", before, problem="missing", valid=valid)


def _foreign(root: Path) -> bool:
    """Whether anything is in a folder without settings that a run being made did not put there."""
    return any(not path.name.startswith(".") for path in root.iterdir())


def saved_config(folder: RunFolder) -> TrainConfig:
    """The settings a run was started with."""
    try:
        value = json.loads(folder.config.read_text())
        with extensions.explained(value.pop("extensions", {})):
            return config_from_json(value)
    except (ValueError, TypeError) as error:
        raise UsageError(f"resume: {folder.config} cannot be read ({error})") from error


def changed_extensions(folder: RunFolder) -> list[str]:
    """The names of extensions whose files differ from those the run was last started with."""
    if not folder.config.is_file():
        return []
    return extensions.changed(json.loads(folder.config.read_text()).get("extensions", {}))


def environment() -> dict[str, Any]:
    """The software and hardware of this process."""
    import jax

    import pinxit

    devices = jax.devices()
    return {
        "pinxit": pinxit.__version__,
        "python": sys.version.split()[0],
        "jax": jax.__version__,
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "devices": [str(device.device_kind) for device in devices],
        "processes": jax.process_count(),
        "cpu_count": os.cpu_count(),
    }


def start(folder: RunFolder, config: TrainConfig, extra: Mapping[str, Any]) -> None:
    """Creates the folder and records the settings and the machine."""
    folder.root.mkdir(parents=True, exist_ok=True)
    loaded = extensions.loaded()
    write_values(folder.config, to_json(config) | ({"extensions": loaded} if loaded else {}))
    folder.samples.mkdir(exist_ok=True)
    write_values(folder.root / "environment.json", environment() | dict(extra))
