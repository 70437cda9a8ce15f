"""Damages a shard of a prepared dataset before or during a run, in this process or another one.

As a program: ``damaged_shards.py CONFIG DAMAGE SHARDS STEP`` runs the settings in a file. SHARDS
are paths with colons between them. The process that reads the batch of that step first does the
damage. STEP -1 damages before the start.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pinxit.config import to_json
from pinxit.devices.processes import DistributedConfig
from pinxit.train.settings import TrainConfig

DAMAGES = ("flipped", "deleted", "truncated", "EIO", "EMFILE")
ON_DISK = DAMAGES[:3]


def damage_file(path: Path, kind: str) -> None:
    """Does one of the damages `ON_DISK`. Doing it twice changes nothing more."""
    done = path.parents[2] / f"{path.name}.{kind}.done"
    try:
        os.close(os.open(done, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    data = bytearray(path.read_bytes())
    if kind == "deleted":
        path.unlink()
    elif kind == "truncated":
        os.truncate(path, 100)  # a shard is padded: a third of it may hold all records
    else:
        for start in range(0, len(data), 64):  # all records: whichever is read next is damaged
            data[start] ^= 4
        with path.open("r+b") as file:  # in place, as a disk does it
            file.write(data)


def refuse(path: Path, kind: str, patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """Makes each further reading of a file fail with EIO or EMFILE, with short pauses between."""
    from pinxit.data.prepared import shards, unit_readers

    code = getattr(errno, kind)

    def failing(original: Any, at: Callable[..., Path]) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            if at(*arguments) == path:
                raise OSError(code, os.strerror(code), str(path))
            return original(*arguments, **more)

        return call

    patch(shards, "describe", failing(shards.describe, lambda path: path))
    reader = shards.ShardReader
    patch(reader, "read", failing(reader.read, lambda self, rows: self.path))
    patch(reader, "__init__", failing(reader.__init__, lambda self, path: path))
    patch(unit_readers, "PAUSES", (0.01, 0.01))


def damage(path: Path, kind: str, patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """Does one of the `DAMAGES`."""
    damage_file(path, kind) if kind in ON_DISK else refuse(path, kind, patch)


def damage_at(step: int, act: Callable[[], None], patch: Any = setattr) -> None:
    """Calls `act` before the batch of a step is read."""
    from pinxit.data.loader import Loader

    original = Loader.batch

    def batch(self: Loader, at: int) -> Any:
        if at == step:
            act()
        return original(self, at)

    patch(Loader, "batch", batch)


def run_two(
    config: TrainConfig, folder: Path, arguments: Sequence[tuple[str, str, int]]
) -> tuple[list[int], list[str]]:
    """Runs this program in two processes of one run, each with its damage, shards and step.

    Returns their exit codes and what they wrote to stderr.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for number, (kind, shards, step) in enumerate(arguments):
        group = DistributedConfig(f"127.0.0.1:{port}", 2, number, timeout=100)
        path = folder / f"config{number}.json"
        path.write_text(json.dumps(to_json(dataclasses.replace(config, distributed=group))))
        command = [sys.executable, __file__, str(path), kind, shards, str(step)]
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        processes.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    try:
        output = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], output


def main(config_path: str, kind: str, path: str, step: str) -> None:
    """Runs the settings in a file."""
    from pinxit.train.attended_work import end_without_waiting
    from pinxit.train.run import run
    from pinxit.train.settings import config_from_json

    def act() -> None:
        for one in path.split(":"):
            damage(Path(one), kind)

    if kind != "none":
        if int(step) < 0:
            act()
        else:
            damage_at(int(step), act)
    code = run(config_from_json(json.loads(Path(config_path).read_text()))).exit_code
    end_without_waiting(code)
    sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
