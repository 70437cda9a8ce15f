"""Checkpoints: written atomically, and used only if every file has the right hash.

A checkpoint is a folder ``step_00000500`` with the files that `pinxit.checkpoint_files` lists. It
is built under another name and renamed when complete, so a process that is killed leaves either the
whole checkpoint or none. Reading checks the manifest first, because safetensors (and Orbax, which
older versions used) return wrong numbers for a flipped bit without an error. If it does not match,
the next older valid checkpoint is used.

If all processes see the run's folder, each writes the pieces of the state that it holds, and reads
those that it needs. Otherwise process 0 gathers, writes, reads and distributes the state.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pinxit.checkpoint_files import (
    PREFIX,
    RUN,
    checkpoint_folder,
    checkpoints_in,
    damage,
    step_of_checkpoint,
    write_choice,
)
from pinxit.config import UsageError, read_json
from pinxit.devices.processes import is_first, several
from pinxit.files import BEFORE, DiskFull, remove_folder, restore_folder, sweep
from pinxit.train.checkpoint_writing import SharedWriting, is_shared, write_folder
from pinxit.train.state import TrainState
from pinxit.train.state_arrays import gathered_pieces, own_pieces, whole_pieces
from pinxit.train.stored_state import CheckpointError, StoredState

RETRY_SECONDS = 5.0
"""Seconds after which a checkpoint that could not be written is tried again."""


@dataclass(frozen=True)
class Restored:
    """A checkpoint that was verified and fits the run."""

    folder: Path
    """The folder of the checkpoint."""
    stored: StoredState
    """Its arrays, which are read when they are asked for."""
    run: dict[str, Any]
    """The `run` argument of `Checkpoints.save`."""
    problems: tuple[str, ...] = field(default=())
    """A message for each newer checkpoint that could not be used."""

    @property
    def step(self) -> int:
        """Returns the number of steps taken."""
        return int(self.stored.numbers()["step"])

    @property
    def state(self) -> TrainState:
        """Returns the state with its arrays on the host."""
        return self.stored.on_host()


def verify_checkpoint(folder: Path) -> None:
    """Raises `CheckpointError` unless every file matches the manifest."""
    if (problem := damage(folder)) is not None:
        raise CheckpointError(problem)


def write_checkpoint(
    folder: Path, state: TrainState, run: dict[str, Any], *, overwrite: bool = False
) -> None:
    """Writes a checkpoint atomically, unless it exists. This process must hold the whole state."""
    write_folder(folder, whole_pieces(state), run, overwrite=overwrite)


def read_checkpoint(folder: Path, like: TrainState, *, verified: bool = False) -> Restored:
    """Opens a checkpoint. Raises `CheckpointError` if anything is wrong with it."""
    if not verified:
        verify_checkpoint(folder)
    return Restored(folder, StoredState(folder, like), json.loads((folder / RUN).read_text()))


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
        self._warned = False
        """Whether a warning was given since the last checkpoint that was written."""
        self._permanent: set[tuple[str, int, int]] = set()
        """The names and versions of the checkpoints that are known to be permanent."""
        self._superseded = threading.Event()
        self._shared: bool | None = None

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
            status = (folder / RUN).stat()
            version = folder.name, status.st_mtime_ns, status.st_size
            if version not in self._permanent and read_json(folder / RUN).get("permanent"):
                self._permanent.add(version)  # read once, however many checkpoints follow
            return version in self._permanent
        except (OSError, UsageError):
            return False  # damaged: its loss is noticed when it is restored

    def save(self, state: TrainState, run: dict[str, Any], *, overwrite: bool = False) -> None:
        """Copies the state to the host, and writes it in the background. `wait` waits for that.

        All processes must call this. Each copies and writes its own pieces if all see the folder,
        otherwise process 0 gathers and writes everything. If the previous checkpoint could not be
        written, that has been said.
        """
        with contextlib.suppress(Exception):
            self.wait()
        self.step = int(state.step)
        if self._shared is None:
            self._shared = is_shared(self.root)
        if not several():
            pieces = whole_pieces(state)
        else:
            pieces = own_pieces(state) if self._shared else gathered_pieces(state)
        folder = checkpoint_folder(self.root, self.step)
        writing = SharedWriting(folder, pieces, run, everywhere=self._shared)
        self._superseded.clear()
        self._thread = threading.Thread(
            target=self._write, args=(writing, overwrite), name="pinxit-checkpoint"
        )
        self._thread.start()

    def choose(self, step: int, best: str) -> None:
        """Records in the checkpoint of a step which parameters are the best ones."""
        write_choice(checkpoint_folder(self.root, step), best)

    def _write(self, writing: SharedWriting, overwrite: bool) -> None:
        try:
            self._try_to_write(writing, overwrite)
        except Exception as error:  # another process is gone; `wait` raises it
            self._error = error

    def _try_to_write(self, writing: SharedWriting, overwrite: bool) -> None:
        name = writing.folder.name
        while True:
            try:
                writing.write(overwrite=overwrite)
                if is_first():
                    self._prune()
            except Exception as error:  # `wait` raises it: exceptions in threads are silent
                self._error = error
                if not self._warned:  # the next ones fail for the same reason
                    self._warned = True
                    self.say(
                        f"warning: {name} is not written yet, and is tried again every "
                        f"{RETRY_SECONDS:g} seconds, as are later ones: {_reason(error)}"
                    )
                if writing.again(lambda: not self._superseded.wait(RETRY_SECONDS)):
                    continue
                return
            if self._warned:
                self.say(f"{name} is written now")
            self._warned, self._error = False, None
            return

    def _prune(self) -> None:
        for old in self.folders()[self.keep :]:
            if not self.permanent(old):
                remove_folder(old)

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
        """Removes everything unfinished of a killed process, and restores the checkpoint it was
        replacing."""
        if not self.root.is_dir():
            return
        for before in self.root.glob(f".{PREFIX}*{BEFORE}"):
            restore_folder(self.root / before.name[1:].removesuffix(BEFORE))
        for path in self.root.glob(f".{PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)
        sweep(self.root)

    def folder_at(self, step: int) -> Path:
        """Returns the folder of a step's checkpoint. Raises `UsageError` if there is none."""
        if step not in (steps := self.steps()):
            valid = ", ".join(map(str, sorted(steps))) or "none, since there are no checkpoints"
            problem = "not the step of a checkpoint"
            raise UsageError("resume_step", step, problem=problem, valid=valid)
        return checkpoint_folder(self.root, step)

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
