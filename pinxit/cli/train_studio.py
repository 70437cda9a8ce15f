"""`pinxit train --studio [PORT]`: serves the studio beside a run.

The server is a child process. Whatever happens to it, the training goes on.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import quote

from pinxit.config import UsageError

OPTION = "--studio"
PORT = 7860
"""The port without a value, or a free one if it is in use."""


def without_studio(argv: Sequence[str]) -> tuple[list[str], int | None]:
    """Returns the words without --studio and its port, and the port: None without the option."""
    words, port = [], None
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name != OPTION:
            words.append(word)
            continue
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("-") else str(_free(PORT))
        port = _port(value)
    return words, port


def _port(value: str) -> int:
    """Returns a port that was typed, or a free one for 0."""
    if not value.isdecimal() or int(value) >= 2**16:
        raise UsageError("studio", value, problem="not a port", valid="0 to 65535, or no value")
    return int(value) or _free(0)


def _free(port: int) -> int:
    """Returns the port if it is free on this machine, else another one."""
    for candidate in (port, 0):
        with socket.socket() as listener, suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", candidate))
            return int(listener.getsockname()[1])
    return port


@contextmanager
def studio_beside(output_dir: str, name: str, port: int) -> Generator[None]:
    """Serves the runs in a folder while the block runs, and prints the address of the run."""
    child = subprocess.Popen(
        [sys.executable, "-m", "pinxit.serve.beside", output_dir, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    address = f"http://127.0.0.1:{port}/#/runs/{quote(name, safe='')}"
    print(
        f"studio: {address} (ends with the training; later: pinxit studio --runs {output_dir})",
        flush=True,
    )
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(child, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        with suppress(OSError):
            if child.stdin is not None:
                child.stdin.close()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        watcher.join(1)


def _watch(child: subprocess.Popen[bytes], over: threading.Event) -> None:
    """Says so if the server ends before the training."""
    lines = deque((line for line in child.stderr or () if line.strip()), maxlen=1)
    if child.stderr is not None:
        child.stderr.close()
    if not over.is_set():
        reason = lines[-1].decode("utf-8", "replace").strip() if lines else "without a word"
        print(f"warning: the studio has ended, and the training goes on: {reason}", flush=True)
