"""The files of a checkpoint: their names, and the manifest that shows whether they are intact.

::

    step_00000500/
      run.json                              the state of the host, such as the settings
      counters.00000.safetensors            the number of steps and the like
      params.00000.safetensors              the parameters
      ema/ema_0.1.00000.safetensors         each of their averages
      optimizer.00000.safetensors           the moments of the optimiser
      manifest.json                         the SHA-256 of every file, written last
      chosen.json                           the best parameters, if a run has finished

A *part* is what one kind of file holds, such as ``params``. The number in a file's name is that of
the process that wrote it. Each file holds pieces of the arrays of its part (`array_pieces`), so a
model can be drawn with from the files of one part alone. Files that the manifest does not list are
ignored. Version 1 of the format stored all arrays in one folder, ``state/``, with Orbax.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pinxit.array_pieces import ArraysInMemory, StoredArrays
from pinxit.checkpoint_version_1 import read_version_1
from pinxit.config import UsageError
from pinxit.files import write_json

MANIFEST = "manifest.json"
"""The file of a checkpoint that lists its files with their hashes."""
CHOICE = "chosen.json"
"""The file of a checkpoint that names its best parameters. It is written after the manifest."""
RUN = "run.json"
"""The file with the state of the host."""
VERSION = 2
"""The version of the format that is written. Version 1 can be read."""
PARAMS, COUNTERS, OPTIMIZER, AVERAGE = "params", "counters", "optimizer", "ema/"
"""The names of parts; that of an average begins with `AVERAGE`."""
INSTALL = "install that version of Pinxit, or start a new run with --name"
"""Advice for a checkpoint of a newer version."""
PREFIX = "step_"
"""The beginning of the name of a checkpoint's folder, before the step."""
THREADS = 8
"""Number of files that are hashed at once."""


class DamagedCheckpoint(UsageError):
    """A checkpoint whose files are not those that were written."""


class NewerCheckpoint(UsageError):
    """An intact checkpoint that a newer version of Pinxit wrote."""

    def __init__(self, folder: Path, version: int) -> None:
        self.fact = (
            f"a newer version of Pinxit wrote it (format {version}; this version reads {VERSION})"
        )
        """The versions of the format, in one clause."""
        super().__init__(f"{folder}: {self.fact}: {INSTALL}")


def part_file(part: str, process: int) -> str:
    """Returns the name of the file with a process's pieces of a part."""
    return f"{part}.{process:05d}.safetensors"


def _part_of(file: str) -> str | None:
    """Returns the part that a file holds, or None for other files."""
    match = re.fullmatch(r"(.+)\.\d{5,}\.safetensors", file)
    return match[1] if match else None


def manifest_of(hashes: Mapping[str, str]) -> str:
    """Returns the text of the manifest of files with these SHA-256, by name."""
    return json.dumps(signed({"version": VERSION, "sha256": dict(sorted(hashes.items()))}))


def signed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Returns the manifest with its own SHA-256, since a flipped bit may be anywhere.

    Every version from 2 on does this in the same way: otherwise a flipped bit of the version's
    number would look like a newer version.
    """
    return manifest | {"self": _digest_of(json.dumps(manifest, sort_keys=True))}


class CheckpointManifest:
    """The list of a checkpoint's files, and what it tells without opening them."""

    def __init__(self, folder: Path) -> None:
        """Reads it. Raises `DamagedCheckpoint` if it is absent or damaged, `NewerCheckpoint` if a
        newer version wrote it, and another `UsageError` if the disk does not let it be read."""
        self.folder = folder
        self._intact: set[str] = set()
        try:
            data = json.loads((folder / MANIFEST).read_text())
            self.version: int = int(data["version"])
            self.hashes: dict[str, str] = dict(data["sha256"])
        except FileNotFoundError as error:
            raise DamagedCheckpoint(f"its {MANIFEST} cannot be read (missing)") from error
        except OSError as error:
            raise _unreadable(folder / MANIFEST, error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedCheckpoint(f"its {MANIFEST} cannot be read ({error})") from error
        plain = {name: value for name, value in data.items() if name != "self"}
        if self.version != 1 and data != signed(plain):
            raise DamagedCheckpoint(f"its {MANIFEST} is damaged")
        if self.version > VERSION:
            raise NewerCheckpoint(folder, self.version)

    def files(self, part: str) -> list[Path]:
        """Returns the files of a part."""
        return [self.folder / name for name in self.hashes if _part_of(name) == part]

    def parts(self) -> list[str]:
        """Returns the names of all parts."""
        if self.version == 1:
            return sorted(self._older)
        return sorted({part for name in self.hashes if (part := _part_of(name))})

    def averages(self) -> list[str]:
        """Returns the names of the averages of the parameters."""
        parts = self.parts()
        return [part.removeprefix(AVERAGE) for part in parts if part.startswith(AVERAGE)]

    def damage(self, parts: Collection[str] | None = None) -> str | None:
        """Hashes the files of some parts (None: all), and those that belong to none. Returns the
        first problem, or None."""
        every = parts is None or self.version == 1
        names = [n for n in sorted(self.hashes) if every or _part_of(n) in (None, *parts)]
        names = [name for name in names if name not in self._intact]
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            for problem in pool.map(self._damage_of, names):
                if problem is not None:
                    return problem
        self._intact.update(names)
        return None

    def missing(self) -> str | None:
        """Returns a problem if a file does not exist, or None. Nothing is hashed."""
        absent = (name for name in self.hashes if not (self.folder / name).is_file())
        return next((f"{name} is missing" for name in absent), None)

    def _damage_of(self, name: str) -> str | None:
        path = self.folder / name
        if not path.is_file():
            return f"{name} is missing"
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        return None if digest == self.hashes[name] else f"{name} is damaged (its SHA-256 differs)"

    def stored(self, part: str) -> StoredArrays:
        """Opens the arrays of a part, which must have been verified."""
        if self.version == 1:
            return self._older.get(part, ArraysInMemory({}))
        stored = StoredArrays(self.files(part))
        if names := stored.incomplete():
            raise DamagedCheckpoint(f"{part}/{names[0]} is incomplete")
        return stored

    def arrays(self, part: str) -> dict[str, Any]:
        """Reads the arrays of a part, by name. They must have been verified."""
        stored = self.stored(part)
        return {name: stored.read(name) for name in stored.shapes}

    @functools.cached_property
    def _older(self) -> dict[str, StoredArrays]:
        """The arrays of a checkpoint of version 1 by part."""
        parts: dict[str, dict[str, Any]] = {}
        for full, array in read_version_1(self.folder).items():
            depth = 2 if full.startswith(AVERAGE) else 1
            words = full.split("/", depth)
            parts.setdefault("/".join(words[:depth]), {})[words[depth]] = array
        return {part: ArraysInMemory(arrays) for part, arrays in parts.items()}


def _unreadable(path: Path, error: OSError) -> UsageError:
    """Returns the error for a file that may be intact but cannot be read."""
    return UsageError(f"{path} cannot be read ({error}); check the disk and the file's permissions")


def arrays_of_checkpoint(folder: Path) -> dict[str, Any]:
    """Reads all arrays of a checkpoint, by part and name, such as ``params/…``, unverified."""
    manifest = CheckpointManifest(folder)
    return {f"{p}/{n}": array for p in manifest.parts() for n, array in manifest.arrays(p).items()}


def damage(folder: Path) -> str | None:
    """Compares a checkpoint's files with its manifest; returns the first problem, or None."""
    try:
        problem = CheckpointManifest(folder).damage()
    except DamagedCheckpoint as error:
        return str(error)
    if problem is None and (folder / CHOICE).exists() and read_choice(folder) is None:
        return f"{CHOICE} is damaged"
    return problem


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_choice(folder: Path, best: str) -> None:
    """Records which parameters of a checkpoint are the best ones, atomically."""
    write_json(folder / CHOICE, {"best": best, "sha256": _digest_of(best)})


def read_choice(folder: Path) -> str | None:
    """Returns the name of a checkpoint's best parameters, or None if none or a damaged one is
    recorded."""
    try:
        value = json.loads((folder / CHOICE).read_text())
        best, digest = str(value["best"]), value["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return best if digest == _digest_of(best) else None


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def checkpoint_folder(root: Path, step: int) -> Path:
    """Returns the folder in `root` for the checkpoint of a step."""
    return root / f"{PREFIX}{step:08d}"


def step_of_checkpoint(folder: Path) -> int | None:
    """Returns the step in the name of a checkpoint's folder (``step_00000500``).

    Any other name, such as that of a copy, gives None: such a folder is never read by itself.
    """
    match = re.fullmatch(rf"{PREFIX}(\d{{8,}})", folder.name)
    return int(match[1]) if match else None


def checkpoints_in(folder: Path) -> list[Path]:
    """Returns the checkpoints in a folder by their names, newest first. Nothing is verified."""
    steps = {path: step_of_checkpoint(path) for path in folder.glob(f"{PREFIX}*") if path.is_dir()}
    return sorted(
        (path for path, step in steps.items() if step is not None),
        key=lambda path: steps[path] or 0,
        reverse=True,
    )
