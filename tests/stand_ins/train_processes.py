"""Processes of `pinxit train` that train together on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 400.0
"""Seconds: of a busy machine."""


class TrainProcesses:
    """Some processes with the same arguments."""

    def __init__(
        self,
        count: int,
        arguments: Sequence[str],
        *,
        each: Mapping[int, Sequence[str]] | None = None,
        homes: Mapping[int, Path] | None = None,
    ) -> None:
        """Starts them. `each` has further arguments of some, and `homes` their working folders."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            # what compiles fast is good enough here
            "XLA_FLAGS": "--xla_backend_optimization_level=0 "
            "--xla_llvm_disable_expensive_passes=true",
        }
        self.processes = []
        for number in range(count):
            place = f"""--distributed.coordinator 127.0.0.1:{port} --distributed.timeout 30
                --distributed.processes {count} --distributed.process_id {number}""".split()
            own = [*place, *(each or {}).get(number, [])] if count > 1 else []
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "pinxit", "train", *arguments, *own],
                    env=environment,
                    cwd=(homes or {}).get(number),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def ended(self, timeout: float = PATIENCE) -> tuple[list[int], list[str]]:
        """Exit codes, and what was said on stderr."""
        try:
            said = [process.communicate(timeout=timeout)[1] for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [process.returncode for process in self.processes], said
