"""Checkpoints: written atomically, and used only if every file has the right hash.

A checkpoint is a folder ``step_00000500``. It contains the arrays (Orbax, ``state/``), the state of
the host (``run.json``: step, seed, resolved config, metrics not yet written) and, written last,
``manifest.json`` with the SHA-256 of every file. The folder is built under another name and renamed
when complete, so a process that is killed leaves either the whole checkpoint or none. Reading
checks the manifest first, because Orbax and safetensors both return wrong numbers for a flipped bit
without an error. If it does not match, the next older valid checkpoint is used.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from pinxit.config import UsageError, read_json
from pinxit.devices.transfer import fetch
from pinxit.files import BEFORE, FULL, DiskFull, restore_folder, sync, whole_folder
from pinxit.stored_model import (
    MANIFEST,
    checkpoints_in,
    damage,
    files_of_checkpoint,
    mismatches,
    sha256_of,
    step_of_checkpoint,
    write_choice,
)
from pinxit.train.state import TrainState

PREFIX = "step_"
RETRY_SECONDS = 5.0
"""Seconds after which a checkpoint that could not be written is tried again."""


class CheckpointError(UsageError):
    """The reason why a checkpoint cannot be used."""


@dataclass(frozen=True)
class Restored:
    """A run that was restored from a checkpoint."""

    step: int
    """Number of steps taken."""
    state: TrainState
    """State, with its arrays on the host."""
    run: dict[str, Any]
    """The `run` argument of `Checkpoints.save`."""
    problems: tuple[str, ...] = field(default=())
    """A message for each newer checkpoint that could not be used."""


def _named(tree: Any) -> dict[str, Any]:
    """Returns the leaves by their path in the tree."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def _as_tree(state: TrainState) -> dict[str, Any]:
    """Converts the state to nested dicts. Parameters keep their nesting, the optimiser becomes
    flat."""
    counters = ("step", "skipped", "consecutive", "loss_scale", "good_steps")
    return {
        "params": state.params,
        "ema": state.ema,
        "optimizer": {k.replace("/", "."): v for k, v in _named(state.opt_state).items()},
        "counters": {name: getattr(state, name) for name in counters},
    }


def _with_clipping(stored: dict[str, Any]) -> dict[str, Any]:
    """Returns the leaves of an older version's state without gradient clipping, whose optimiser was
    not the second of a chain, under their names of today."""
    prefix = "optimizer/"
    return {
        name.replace(prefix, f"{prefix}1.", 1) if name.startswith(prefix) else name: leaf
        for name, leaf in stored.items()
    }


def _from_tree(tree: dict[str, Any], like: TrainState) -> TrainState:
    """Reverses `_as_tree`. Raises if the tree differs in names or shapes from the state `like`."""
    stored, expected = _named(tree), _named(_as_tree(like))
    if (older := _with_clipping(stored)).keys() == expected.keys():
        stored = older
    if problems := mismatches(stored, expected):
        raise CheckpointError(
            "the checkpoint's state does not match these settings in this version: " + problems
        )

    def fill(part: Any, prefix: str, separator: str = "/") -> Any:
        names = [prefix + name.replace("/", separator) for name in _named(part)]
        leaves = [np.asarray(stored[name], expected[name].dtype) for name in names]
        return jax.tree.unflatten(jax.tree.structure(part), leaves)

    counters = {
        name: np.asarray(stored[f"counters/{name}"], expected[f"counters/{name}"].dtype)
        for name in ("step", "skipped", "consecutive", "loss_scale", "good_steps")
    }
    return TrainState(
        params=fill(like.params, "params/"),
        ema=fill(like.ema, "ema/"),
        opt_state=fill(like.opt_state, "optimizer/", "."),
        **counters,
    )


def verify_checkpoint(folder: Path) -> None:
    """Raises `CheckpointError` unless every file matches the manifest."""
    if (problem := damage(folder)) is not None:
        raise CheckpointError(problem)


def _orbax() -> ocp.Checkpointer:
    """Returns an Orbax checkpointer for this process alone. By default Orbax would wait for the
    other processes, which do not take part."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix="pinxit"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _save_arrays(path: Path, tree: dict[str, Any]) -> None:
    """Writes the arrays with Orbax, whose errors of the disk become OSError. Orbax would also print
    their traceback."""
    log = logging.getLogger("absl")
    quiet, log.disabled = log.disabled, True
    try:
        with _orbax() as writer:
            writer.save(path, tree)
    except ValueError as error:
        numbers = [n for n in (*FULL, errno.EROFS) if os.strerror(n) in str(error)]
        if not numbers:
            raise
        raise OSError(numbers[0], os.strerror(numbers[0]), str(path)) from error
    finally:
        log.disabled = quiet


def write_checkpoint(
    folder: Path, state: TrainState, run: dict[str, Any], *, overwrite: bool = False
) -> None:
    """Writes a checkpoint atomically, unless it exists. `state` must be on the host."""
    if folder.exists() and not overwrite:
        return
    with whole_folder(folder) as temporary:
        _save_arrays(temporary.absolute() / "state", _as_tree(state))
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
    """Reads a checkpoint. Raises `CheckpointError` if anything is wrong with it."""
    if not verified:
        verify_checkpoint(folder)
    with _orbax() as reader:
        tree = reader.restore(folder.absolute() / "state")
    run = json.loads((folder / "run.json").read_text())
    state = _from_tree(tree, like)
    return Restored(step=int(state.step), state=state, run=run)


def _reason(error: Exception) -> str:
    """Returns why a checkpoint could not be written, in one line."""
    text = error.fact if isinstance(error, DiskFull) else repr(error)
    return " ".join(text.split())[:400]


class Checkpoints:
    """The checkpoints of a run. Writes them in the background, one at a time.

    The newest `keep` remain, and those that are permanent: the checkpoints of every `keep_every`
    steps (0: none) and those that were saved with `permanent` in their run.json. One that the disk
    does not take is tried again, until the next one is due.
    """

    def __init__(
        self,
        root: Path,
        *,
        keep: int = 2,
        keep_every: int = 0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Writes nothing yet. `say` receives warnings."""
        self.root = root
        self.keep = keep
        self.keep_every = keep_every
        self.say = say
        self.step: int | None = None
        """Step of the last checkpoint that was saved or is being written."""
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._superseded = threading.Event()

    def folders(self) -> list[Path]:
        """Returns the folders of complete checkpoints, newest first."""
        return checkpoints_in(self.root)

    def steps(self) -> list[int]:
        """Returns the steps of complete checkpoints, newest first."""
        return [step_of_checkpoint(folder) or 0 for folder in self.folders()]

    def permanent(self, folder: Path) -> bool:
        """Returns whether a checkpoint remains when newer ones are written."""
        if self.keep_every and (step_of_checkpoint(folder) or 0) % self.keep_every == 0:
            return True
        try:
            return bool(read_json(folder / "run.json").get("permanent"))
        except (OSError, UsageError):
            return False  # damaged: its loss is noticed when it is restored

    def save(
        self, state: TrainState, run: dict[str, Any], *, overwrite: bool = False
    ) -> TrainState | None:
        """Copies the state to the host, and writes it in the background. `wait` waits for that.

        All processes must call this. Process 0 gathers the state, writes it and returns it. If the
        previous checkpoint could not be written, that has been said.
        """
        with contextlib.suppress(Exception):
            self.wait()
        self.step = int(state.step)
        host = fetch(state)
        if host is None:
            return None
        self._superseded.clear()
        self._thread = threading.Thread(
            target=self._write, args=(host, run, overwrite), name="pinxit-checkpoint"
        )
        self._thread.start()
        return host

    def choose(self, step: int, best: str) -> None:
        """Records in the checkpoint of a step which parameters are the best ones."""
        write_choice(self._folder(step), best)

    def _folder(self, step: int) -> Path:
        return self.root / f"{PREFIX}{step:08d}"

    def _write(self, state: TrainState, run: dict[str, Any], overwrite: bool) -> None:
        folder = self._folder(int(state.step))
        while True:
            try:
                write_checkpoint(folder, state, run, overwrite=overwrite)
                self._prune()
            except Exception as error:  # `wait` raises it: exceptions in threads are silent
                first, self._error = self._error is None, error
                if first:
                    self.say(
                        f"warning: {folder.name} is not written yet, and is tried again every "
                        f"{RETRY_SECONDS:g} seconds: {_reason(error)}"
                    )
                if not self._superseded.wait(RETRY_SECONDS):
                    continue
                return
            if self._error is not None:
                self.say(f"{folder.name} is written now")
                self._error = None
            return

    def _prune(self) -> None:
        for old in self.folders()[self.keep :]:
            if not self.permanent(old):
                shutil.rmtree(old, ignore_errors=True)

    def wait(self, seconds: float = 0.0) -> None:
        """Waits until the last checkpoint is on the disk, or has been tried again for `seconds`.
        Raises the error of its writing, if any."""
        if self._thread is not None:
            self._thread.join(seconds)
            self._superseded.set()
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def clean(self) -> None:
        """Removes incomplete checkpoints of a killed process, and restores the one it was
        replacing."""
        if not self.root.is_dir():
            return
        for before in self.root.glob(f".{PREFIX}*{BEFORE}"):
            restore_folder(self.root / before.name[1:].removesuffix(BEFORE))
        for path in self.root.glob(f".{PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)

    def folder_at(self, step: int) -> Path:
        """Returns the folder of a step's checkpoint. Raises `UsageError` if there is none."""
        folder = self.root / f"{PREFIX}{step:08d}"
        if step not in (steps := self.steps()):
            valid = ", ".join(map(str, sorted(steps))) or "none, since there are no checkpoints"
            problem = "not the step of a checkpoint"
            raise UsageError("resume_step", step, problem=problem, valid=valid)
        return folder

    def restore(self, like: TrainState, *, step: int | None = None) -> Restored | None:
        """Returns the newest valid checkpoint, or None. Renames damaged ones and reports them.

        With `step`, returns that step's checkpoint, and raises if it is absent or damaged.
        """
        if step is not None:
            return read_checkpoint(self.folder_at(step), like)
        problems: list[str] = []
        for folder in self.folders():
            try:
                verify_checkpoint(folder)
            except CheckpointError as error:
                damaged = folder.with_name(f"damaged_{folder.name}")
                shutil.rmtree(damaged, ignore_errors=True)
                folder.rename(damaged)
                problems.append(f"{folder.name} was renamed to {damaged.name}: {error}")
                continue
            return replace(read_checkpoint(folder, like, verified=True), problems=tuple(problems))
        if problems:
            raise CheckpointError(f"no checkpoint in {self.root} is valid: {'; '.join(problems)}")
        return None
