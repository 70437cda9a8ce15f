"""Writes a checkpoint: one process alone, or all together, each its own pieces.

Together, process 0 creates the folder under a temporary name, each process writes and hashes its
files there, and process 0 writes the manifest and renames the folder once all have finished. They
signal each other through the key-value store: a thread that ran a computation on the devices would
disturb the order of the training step's. If a process fails, no process keeps anything.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from pinxit.array_pieces import ArrayPiece, write_pieces
from pinxit.checkpoint_files import MANIFEST, RUN, manifest_of, part_file, sha256_of
from pinxit.devices.processes import awaited, is_first, publish, several
from pinxit.files import DiskFull, sync, temporary_name, whole_folder
from pinxit.plain_json import plain_values

Pieces = Mapping[str, Sequence[ArrayPiece]]
"""Pieces of arrays by part."""
_numbers = itertools.count()


def write_folder(
    folder: Path,
    pieces: Pieces,
    run: Mapping[str, Any],
    *,
    overwrite: bool = False,
    gather: Callable[[], dict[str, str]] = dict,
    announce: Callable[[Path], None] = lambda temporary: None,
) -> None:
    """Writes a checkpoint atomically, unless it exists. `pieces` must be on the host.

    `announce` receives the temporary folder, and `gather` returns the SHA-256 of the files that
    other processes wrote there, by name.
    """
    if folder.exists() and not overwrite:
        return
    with whole_folder(folder) as temporary:
        announce(temporary)
        hashes = write_parts(temporary, pieces)
        (temporary / RUN).write_text(json.dumps(plain_values(run), indent=1))
        hashes[RUN] = sha256_of(temporary / RUN)
        hashes |= gather()
        (temporary / MANIFEST).write_text(manifest_of(hashes))


def write_parts(folder: Path, pieces: Pieces) -> dict[str, str]:
    """Writes a file for each part. Returns their SHA-256 by name."""
    hashes = {}
    for part, own in pieces.items():
        name = part_file(part, jax.process_index())
        (folder / name).parent.mkdir(exist_ok=True)
        hashes[name] = write_pieces(folder / name, own)
        sync(folder / name)
    return hashes


class SharedWriting:
    """The writing of one checkpoint, which may be tried several times.

    All processes must create it in the same order. `everywhere` tells whether all processes write;
    otherwise process 0 does, and the others do nothing.
    """

    def __init__(self, folder: Path, pieces: Pieces, run: Mapping[str, Any], *, everywhere: bool):
        """Writes nothing yet."""
        self.folder, self.pieces, self.run = folder, pieces, run
        self.everywhere = everywhere and several()
        self._key = f"pinxit/checkpoint/{next(_numbers)}"
        self._tries = 0

    def write(self, *, overwrite: bool = False) -> None:
        """Writes the checkpoint. Raises in all processes if one of them fails."""
        key, self._tries = f"{self._key}/{self._tries}", self._tries + 1
        if not self.everywhere:
            if is_first():
                write_folder(self.folder, self.pieces, self.run, overwrite=overwrite)
        elif is_first():
            self._lead(key, overwrite)
        else:
            self._follow(key)

    def again(self, decide: Callable[[], bool]) -> bool:
        """Returns whether process 0 decides to try again."""
        if not self.everywhere:
            return is_first() and decide()
        key = f"{self._key}/again/{self._tries}"
        if is_first():
            publish(key, "yes" if decide() else "no")
        return awaited(key) == "yes"

    def _lead(self, key: str, overwrite: bool) -> None:
        published = False

        def announce(temporary: Path) -> None:
            nonlocal published
            publish(f"{key}/folder", temporary.name)
            published = True

        def gather() -> dict[str, str]:
            hashes: dict[str, str] = {}
            answers = [
                json.loads(awaited(f"{key}/{number}")) for number in range(1, jax.process_count())
            ]
            for answer in answers:
                if "error" in answer:
                    raise _failure(answer)
                hashes |= answer["hashes"]
            return hashes

        problem: dict[str, str] = {}
        try:
            write_folder(
                self.folder,
                self.pieces,
                self.run,
                overwrite=overwrite,
                gather=gather,
                announce=announce,
            )
        except BaseException as error:
            problem = _described(error)
            raise
        finally:
            if not published:
                publish(f"{key}/folder", "")
            publish(f"{key}/done", json.dumps(problem))

    def _follow(self, key: str) -> None:
        if name := awaited(f"{key}/folder"):
            answer: dict[str, Any]
            try:
                answer = {"hashes": write_parts(self.folder.with_name(name), self.pieces)}
            except BaseException as error:
                answer = _described(error)
                raise
            finally:
                publish(f"{key}/{jax.process_index()}", json.dumps(answer))
        if problem := json.loads(awaited(f"{key}/done")):
            raise _failure(problem)


def _described(error: BaseException) -> dict[str, str]:
    """Returns an error as JSON for the other processes."""
    text = error.fact if isinstance(error, DiskFull) else str(error) or type(error).__name__
    return {"error": text, "kind": "disk" if isinstance(error, OSError) else type(error).__name__}


def _failure(answer: Mapping[str, str]) -> Exception:
    """Returns the error that another process had."""
    return (OSError if answer["kind"] == "disk" else RuntimeError)(answer["error"])


def is_shared(folder: Path) -> bool:
    """Returns whether all processes see the same folder. All of them must call it."""
    if not several():
        return True
    key = f"pinxit/shared/{next(_numbers)}"
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        mark = temporary_name(folder / "shared")
        mark.mkdir()
        publish(key, mark.name)
        answers = [awaited(f"{key}/{number}") for number in range(1, jax.process_count())]
        mark.rmdir()
        publish(f"{key}/all", "yes" if set(answers) == {"yes"} else "no")
    else:
        seen = (folder / awaited(key)).is_dir()
        publish(f"{key}/{jax.process_index()}", "yes" if seen else "no")
    return awaited(f"{key}/all") == "yes"
