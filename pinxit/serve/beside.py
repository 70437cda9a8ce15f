"""The studio beside a training, in a process of its own that ends with it: `pinxit train --studio`.

::

    python -m pinxit.serve.beside RUNS PORT

Its standard input is a pipe from the training. Once that is closed, however the training ended, the
server ends. It computes on the CPU only and with the lowest priority, so that it takes neither the
accelerator nor time from the training.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading


def _end_with_the_training() -> None:
    """Waits until the training closes the pipe, then asks this process to end."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main(runs: str, port: str) -> int:
    """Serves the runs in a folder until the training ends."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(19)
    threading.Thread(target=_end_with_the_training, daemon=True).start()
    from pinxit.serve.server import run_studio
    from pinxit.serve.settings import StudioConfig

    config = StudioConfig(runs=runs, port=int(port), open="0", max_trainings=0, drain_seconds=1)
    return run_studio(config)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
