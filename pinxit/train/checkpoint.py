"""Checkpoints that are whole, or are not used.

One checkpoint is a folder ``step_00000500`` with the arrays (Orbax, ``state/``), what the host
knows (``run.json``: step, seed, resolved config, metrics not yet written) and, written last,
``manifest.json`` with the SHA-256 of every file. The folder is built under another name and renamed
when complete, so a process killed at any moment leaves either the whole of it or nothing. Reading
checks the manifest first (Orbax and safetensors both return wrong numbers for a flipped bit without
a word) and falls back to the newest checkpoint that is valid.
"""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from pinxit.config import UsageError, diff
from pinxit.devices.transfer import fetch
from pinxit.files import BEFORE, restore_folder, sync, whole_folder
from pinxit.stored_model import MANIFEST, damage, files_of_checkpoint, mismatches, sha256_of
from pinxit.train.state import TrainState

PREFIX = "step_"
FREE_FIELDS = (
    *("name", "output_dir", "resume", "max_steps", "keep_checkpoints", "max_skipped", "wandb"),
    *("mesh", "distributed"),
    *("log_interval", "save_interval", "sample_interval", "eval_interval"),
    *("sampling", "samples", "evaluation", "dataset_path", "fetch"),
    *("gradient_accumulation_steps", "model.remat", "model.scan_blocks"),
    *("model.scan_unroll", "model.attention", "encoder_chunk"),
    *("images.timeout", "images.workers", "images.memory_mb"),
)
"""Settings that may differ when a run is resumed, with all that is below them. Devices are among
them: arrays are whole in a checkpoint, so any mesh and any number of processes goes on from it."""


class CheckpointError(UsageError):
    """Why a checkpoint cannot be used."""


@dataclass(frozen=True)
class Restored:
    """A run as it was after `step`."""

    step: int
    """Steps taken."""
    state: TrainState
    """Arrays on the host."""
    run: dict[str, Any]
    """What `Checkpoints.save` was given as `run`."""
    problems: tuple[str, ...] = field(default=())
    """Newer checkpoints that could not be used, and why."""


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by their path in the tree."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def _as_tree(state: TrainState) -> dict[str, Any]:
    """The state as nested dicts: the parameters keep their nesting, the optimiser is flat."""
    counters = ("step", "skipped", "consecutive", "loss_scale", "good_steps")
    return {
        "params": state.params,
        "ema": state.ema,
        "optimizer": {k.replace("/", "."): v for k, v in _named(state.opt_state).items()},
        "counters": {name: getattr(state, name) for name in counters},
    }


def _from_tree(tree: dict[str, Any], like: TrainState) -> TrainState:
    """The inverse, checked against a state of the expected shapes; mismatches are named."""
    found, wanted = _named(tree), _named(_as_tree(like))
    if problems := mismatches(found, wanted):
        raise CheckpointError(
            "the checkpoint holds another state than these settings make in this version: "
            + problems
        )

    def fill(part: Any, prefix: str, separator: str = "/") -> Any:
        names = [prefix + name.replace("/", separator) for name in _named(part)]
        leaves = [np.asarray(found[name], wanted[name].dtype) for name in names]
        return jax.tree.unflatten(jax.tree.structure(part), leaves)

    counters = {
        name: np.asarray(found[f"counters/{name}"], wanted[f"counters/{name}"].dtype)
        for name in ("step", "skipped", "consecutive", "loss_scale", "good_steps")
    }
    return TrainState(
        params=fill(like.params, "params/"),
        ema=fill(like.ema, "ema/"),
        opt_state=fill(like.opt_state, "optimizer/", "."),
        **counters,
    )


def verify_checkpoint(folder: Path) -> None:
    """Raises `CheckpointError` unless every file is what the manifest says."""
    if (found := damage(folder)) is not None:
        raise CheckpointError(found)


def _orbax() -> ocp.Checkpointer:
    """Orbax for this process alone: it would have the others come along, who have no part in it."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix="pinxit"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def write_checkpoint(
    folder: Path, state: TrainState, run: dict[str, Any], *, overwrite: bool = False
) -> None:
    """Writes one checkpoint, atomically, unless it exists. `state` must be on the host."""
    if folder.exists() and not overwrite:
        return
    with whole_folder(folder) as temporary:
        with _orbax() as writer:
            writer.save(temporary.absolute() / "state", _as_tree(state))
        (temporary / "run.json").write_text(json.dumps(run, indent=1))
        hashes = {
            str(path.relative_to(temporary)): sha256_of(path)
            for path in files_of_checkpoint(temporary)
        }
        for path in files_of_checkpoint(temporary):
            sync(path)
        about = {"version": 1, "sha256": hashes}
        (temporary / MANIFEST).write_text(json.dumps(about, indent=1))


def read_checkpoint(folder: Path, like: TrainState, *, verified: bool = False) -> Restored:
    """Reads one checkpoint; raises `CheckpointError` if anything about it is wrong."""
    if not verified:
        verify_checkpoint(folder)
    with _orbax() as reader:
        tree = reader.restore(folder.absolute() / "state")
    run = json.loads((folder / "run.json").read_text())
    state = _from_tree(tree, like)
    return Restored(step=int(state.step), state=state, run=run)


def check_config(saved: Any, given: Any) -> None:
    """Raises unless the run that is resumed has the same settings, `FREE_FIELDS` aside."""
    changed = [
        f"{name} (was {old!r}, is {new!r})"
        for name, old, new in diff(saved, given)
        if name not in FREE_FIELDS and name.partition(".")[0] not in FREE_FIELDS
    ]
    if changed:
        raise UsageError(
            f"resume: the settings differ from the run's: {'; '.join(changed)}; "
            "give the run's own settings, or another --name"
        )


class Checkpoints:
    """The checkpoints of one run; writes in the background, one at a time."""

    def __init__(self, root: Path, *, keep: int = 2) -> None:
        self.root = root
        self.keep = keep
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def folders(self) -> list[Path]:
        """Finished checkpoints, newest first."""
        if not self.root.is_dir():
            return []
        found = [p for p in self.root.iterdir() if p.is_dir() and p.name.startswith(PREFIX)]
        return sorted(found, reverse=True)

    def save(self, state: TrainState, run: dict[str, Any], *, overwrite: bool = False) -> None:
        """Copies the state to the host, and writes it in the background: see `wait`.

        Of several processes all must come here: the first one gathers the state and writes.
        """
        self.wait()
        host = fetch(state)
        if host is None:
            return
        self._thread = threading.Thread(
            target=self._write, args=(host, run, overwrite), name="pinxit-checkpoint"
        )
        self._thread.start()

    def _write(self, state: TrainState, run: dict[str, Any], overwrite: bool) -> None:
        folder = self.root / f"{PREFIX}{int(state.step):08d}"
        try:
            write_checkpoint(folder, state, run, overwrite=overwrite)
            for old in self.folders()[self.keep :]:
                shutil.rmtree(old, ignore_errors=True)
        except Exception as error:  # told to whoever waits: a thread's own end is silent
            self._error = error

    def wait(self) -> None:
        """Until the last checkpoint is on the disk; raises what its writing raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def clean(self) -> None:
        """Removes what a killed process left half-written, and puts back what it was replacing."""
        if not self.root.is_dir():
            return
        for before in self.root.glob(f".{PREFIX}*{BEFORE}"):
            restore_folder(self.root / before.name[1:].removesuffix(BEFORE))
        for path in self.root.glob(f".{PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)

    def restore(self, like: TrainState) -> Restored | None:
        """The newest valid checkpoint, or None. Damaged ones are set aside and reported."""
        problems: list[str] = []
        for folder in self.folders():
            try:
                verify_checkpoint(folder)
            except CheckpointError as error:
                aside = folder.with_name(f"damaged_{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
                problems.append(f"{folder.name} is set aside: {error}")
                continue
            return replace(read_checkpoint(folder, like, verified=True), problems=tuple(problems))
        if problems:
            raise CheckpointError(f"no checkpoint in {self.root} is valid: {'; '.join(problems)}")
        return None
