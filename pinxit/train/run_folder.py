"""A run's folder: its files, and the checks before a command may write there.

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pinxit import extensions
from pinxit.config import UsageError, read_json, to_json
from pinxit.files import write_json
from pinxit.hub_model import repository_of
from pinxit.output_paths import check_writable
from pinxit.sampling import check_seed
from pinxit.train.checkpoint import Checkpoints
from pinxit.train.resume_policy import changeable_differences, check_config
from pinxit.train.settings import TrainConfig, config_from_json


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run."""

    root: Path
    """The run's folder, ``<output_dir>/<name>``."""

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.root / "config.json"

    @property
    def metrics(self) -> Path:
        """The metrics, one row per line."""
        return self.root / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """The folder of sample grids."""
        return self.root / "samples"

    @property
    def curves(self) -> Path:
        """The plot of the curves."""
        return self.root / "curves.png"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, including damaged ones that were renamed."""
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        """The folder of the released model."""
        return self.root / "model"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.root / "report.html"

    @property
    def results(self) -> Path:
        """The final results, which are written last."""
        return self.root / "results.json"

    @property
    def held_out(self) -> Path:
        """The folder of the rows that a streamed run holds out."""
        return self.root / "heldout"

    @property
    def cache(self) -> Path:
        """The folder of encoded datasets, which the runs in the same output_dir share."""
        return self.root.parent / ".cache"

    def finished(self) -> dict[str, Any] | None:
        """Returns the results if the run is finished, else None."""
        return read_json(self.results) if self.results.is_file() else None


RECORDS = ("changes", "resumed_at")
"""Entries of config.json besides the settings: those that changed during the run, and the earlier
checkpoints that it went back to."""


def write_values(path: Path, value: Any) -> None:
    """Writes a run's settings or results as JSON, atomically and in their own order. Values may be
    NaN if the run diverged."""
    write_json(path, value, sort_keys=False, indent=2, allow_nan=True)


def folder_of(config: TrainConfig) -> RunFolder:
    """Returns the folder of this run, without checks."""
    return RunFolder(Path(config.output_dir) / config.name)


def claim(config: TrainConfig) -> RunFolder:
    """Returns the folder of this run. Raises, without writing anything, if it cannot be used."""
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
            problem=f"not available: {folder.root} exists and is not a run",
            valid="another --name or --output_dir",
        )
    if not folder.config.is_file():
        return folder
    if not config.resume:
        raise UsageError(
            "resume",
            config.resume,
            problem=f"not possible: the run {folder.root} exists and would be overwritten",
            valid="--resume 1 to continue it, or another --name (or remove the folder)",
        )
    saved = saved_config(folder)
    check_config(saved, config, change=config.change)
    if (step := going_back(config)) is not None:
        Checkpoints(folder.checkpoints).folder_at(step)
    return folder


def going_back(config: TrainConfig) -> int | None:
    """Returns the step of the checkpoint that the run goes back to, or None if it goes on.

    It goes back once: the same command, given again, goes on from where the run has come since.
    Another setting with ``--change 1`` makes it another command.
    """
    folder, step = folder_of(config), config.resume_step
    if step is None or not folder.config.is_file():
        return None
    before = run_records(folder)["resumed_at"]
    repeated = bool(before) and before[-1]["step"] == step
    if repeated and not changeable_differences(saved_config(folder), config):
        return None
    return step


def _check_writable(config: TrainConfig) -> None:
    """Raises unless the run's folder can be created, or can be written to if it exists."""
    root = folder_of(config).root
    if root.exists() and not root.is_dir():
        return  # `claim` reports it
    check_writable("output_dir", config.output_dir, root)


def _check_start(config: TrainConfig) -> None:
    """Raises unless a new run can start: its seed is valid, and the model exists that it starts
    from. Runs of older versions go on with seeds that are larger than the largest one."""
    check_seed("seed", config.seed)
    before = config.init_from
    if before is not None and not (Path(before).exists() or repository_of(before)):
        valid = "a run, a checkpoint, a release, a PRX directory, or a repository id (owner/name)"
        raise UsageError("init_from", before, problem="missing", valid=valid)
    if config.resume_step is not None and config.decay_from is None:
        problem = f"not possible: there is no run {folder_of(config).root} yet"
        raise UsageError("resume_step", config.resume_step, problem=problem, valid="none")


def _foreign(root: Path) -> bool:
    """Returns whether a folder without settings contains files that no starting run has put
    there."""
    return any(not path.name.startswith(".") for path in root.iterdir())


def has_run(folder: RunFolder) -> bool:
    """Returns whether the folder has a run's settings, rather than those of a release."""
    if not folder.config.is_file():
        return False
    try:
        return "max_steps" in read_json(folder.config)
    except UsageError:
        return False


def saved_config(folder: RunFolder) -> TrainConfig:
    """Returns the settings that a run was started with."""
    try:
        value = read_json(folder.config)
        for name in RECORDS:
            value.pop(name, None)
        with extensions.explained(value.pop("extensions", {})):
            return config_from_json(value)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise UsageError(f"resume: {folder.config} cannot be read ({error})") from error


def run_records(folder: RunFolder) -> dict[str, list[dict[str, Any]]]:
    """Returns the `RECORDS` in config.json, by name: empty lists for an undisturbed run."""
    value = read_json(folder.config) if folder.config.is_file() else {}
    return {name: value.get(name, []) for name in RECORDS}


def changed_extensions(folder: RunFolder) -> list[str]:
    """Returns the names of extensions whose files changed since the run was last started."""
    if not folder.config.is_file():
        return []
    return extensions.changed(json.loads(folder.config.read_text()).get("extensions", {}))


def environment() -> dict[str, Any]:
    """Returns the software and hardware of this process."""
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
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def start(
    folder: RunFolder,
    config: TrainConfig,
    extra: Mapping[str, Any],
    record: Mapping[str, Any] | None = None,
) -> None:
    """Creates the folder and records the settings and the machine. `record` has the values of
    `RECORDS`, of which empty ones are left out."""
    folder.root.mkdir(parents=True, exist_ok=True)
    more = {"extensions": extensions.loaded(), **(record or {})}
    values = to_json(as_stored(config)) | {name: value for name, value in more.items() if value}
    write_values(folder.config, values)
    folder.samples.mkdir(exist_ok=True)
    write_values(folder.root / "environment.json", environment() | dict(extra))


def as_stored(config: TrainConfig) -> TrainConfig:
    """Returns the settings without those that apply to one command only."""
    return replace(config, resume_step=None, change=False)
