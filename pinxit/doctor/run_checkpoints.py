"""Checks of a run's checkpoints: damaged, copied, incomplete and newer ones, and those that work.

Hashing stops after `HASHED` bytes unless the report is full.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pinxit.checkpoint_files import (
    INSTALL,
    PREFIX,
    RUN,
    CheckpointManifest,
    DamagedCheckpoint,
    NewerCheckpoint,
    checkpoints_in,
    step_of_checkpoint,
)
from pinxit.config import UsageError, read_json
from pinxit.doctor.guard import error_text
from pinxit.doctor.network import bytes_of
from pinxit.doctor.report_line import Line, ok, problem, warning
from pinxit.doctor.run_facts import RECENT, RunFacts, age
from pinxit.files import BEFORE, is_being_filled
from pinxit.train.abandoned import PREFIX_ASIDE
from pinxit.train.checkpoint import verify_checkpoint

HASHED = 2e9
"""Bytes of checkpoints that are hashed without ``--full``."""


def check_checkpoints(facts: RunFacts) -> Iterator[Line]:
    """Checks every checkpoint against its manifest, and explains every other folder beside them."""
    root, before = facts.folder.checkpoints, facts.blocked
    if not root.exists():
        yield ok("checkpoints", "none yet")
        return
    if not root.is_dir():
        facts.blocked = str(root)
        yield problem("checkpoints", f"{root} is a file, not a folder", f"remove it: rm {root}")
        return
    facts.blocked = str(root)
    os.listdir(root)  # raises if the folder cannot be read, which `glob` ignores
    facts.blocked = before
    hashed, valid = 0.0, []
    folders = checkpoints_in(root)
    for path in folders:
        hashed += bytes_of(path)
        whole = facts.full or hashed <= HASHED
        wrong = _wrong(path, whole=whole)
        if wrong is not None:
            facts.damaged.append(path.name)
            yield wrong
            continue
        facts.valid = facts.valid or path
        valid.append(path.name if whole else f"{path.name} (not hashed: --full)")
    if valid:
        yield ok("checkpoints", f"valid: {', '.join(valid)}")
    elif not folders:
        yield ok("checkpoints", "none yet")
    yield from _others(root)


def _wrong(path: Path, *, whole: bool) -> Line | None:
    """Returns the problem of a checkpoint, or None if it can be used."""
    try:
        manifest = CheckpointManifest(path)
        if whole:
            verify_checkpoint(path)
        elif absent := manifest.missing():
            raise DamagedCheckpoint(absent)
        read_json(path / RUN)
    except NewerCheckpoint as error:
        return problem("checkpoint", f"{path.name}: {error.fact}", INSTALL)
    except Exception as error:  # whatever a broken checkpoint raises is a line of the report
        cause = error.__cause__ if isinstance(error, UsageError) else error
        if isinstance(cause, OSError) and not isinstance(error, DamagedCheckpoint):
            advice = f"make its files readable (chmod -R u+rX {path}), and check the disk"
            return problem("checkpoint", f"{path.name} cannot be read: {error_text(cause)}", advice)
        reason = str(error) if isinstance(error, DamagedCheckpoint) else error_text(error)
        advice = "resuming renames it to damaged_* and uses the checkpoint before it"
        return problem("checkpoint", f"{path.name}: {reason}", advice)
    return None


def _others(root: Path) -> Iterator[Line]:
    """Explains what lies beside the checkpoints: damaged ones, copies and unfinished ones."""
    for path in sorted(root.glob("damaged_*")):
        advice = f"check the disk, then remove the checkpoint: rm -r {path}"
        message = f"{path.name} is a damaged checkpoint that a run renamed"
        yield warning("checkpoint", message, advice)
    for path in sorted(root.glob(f"{PREFIX}*")):
        if not path.is_dir():
            message = f"{path.name} is a file, so it is not used as a checkpoint"
            yield warning("checkpoint", message, f"remove it: rm '{path}'")
        elif step_of_checkpoint(path) is None:
            message = f"{path.name} is not the name of a checkpoint: no command reads or removes it"
            advice = f"give it a name such as {PREFIX}00000500 to use it, or remove it"
            yield warning("checkpoint", message, advice)
    for path in sorted(root.glob(f".{PREFIX}*")):
        yield _unfinished_line(path)


def check_abandoned(facts: RunFacts) -> Iterator[Line]:
    """Names the folders of what a run did after the step that it went back to."""
    for path in sorted(facts.folder.root.glob(f"{PREFIX_ASIDE}*")):
        message = f"{path.name} has what the run did before it went back; it is a run of its own"
        yield ok("abandoned", message)


def _unfinished_line(path: Path) -> Line:
    """Returns the line for a checkpoint that is incomplete or was being replaced."""
    if path.name.endswith(BEFORE):
        message = f"{path.name} was being replaced when a process was killed"
        return warning("checkpoint", message, "nothing to do: the next start restores it")
    try:
        filled, seconds = is_being_filled(path), age(path)
    except FileNotFoundError:
        return ok("checkpoint", f"{path.name} was finished or removed while this report was made")
    if filled:
        return ok("checkpoint", f"{path.name} is being saved by a process that is running")
    if filled is None and seconds < RECENT:
        message = (
            f"{path.name} was written to {max(seconds, 0):.0f} s ago: a checkpoint is being saved, "
            "or a process was killed while saving it"
        )
        return ok("checkpoint", message)
    message = f"{path.name} is incomplete: a process was killed while writing it"
    return warning("checkpoint", message, "nothing to do: the next start removes it")
