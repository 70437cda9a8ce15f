"""Decodes images in separate processes, so that a hang or a crash costs one image only.

A decoder that reads bytes from the web will sooner or later hang, use up the memory or crash. So
each worker is a process that decodes one image at a time. It is killed if it exceeds its time
limit, and cannot allocate more than its memory limit. A killed or crashed process is replaced, and
no other image is affected. If a process dies while it decodes an image, a new process tries this
image once more, since the cause may have been outside; if that process dies too, the image gets the
status decode_error.

The processes are fresh interpreters that import only the decoder (no JAX, no ``__main__``, so
scripts need no guard). Only JSON lines and plain bytes cross the pipes, never a pickle, so that a
compromised decoder cannot send code back. They have no secrets of the environment and, where the
system allows it, no network (see `confinement`). A worker exits when its pipe closes. If its parent
dies while the decoder hangs, an alarm ends the worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import IO, TypeVar

import numpy as np
from jaxtyping import UInt8

from pinxit.config import from_json, to_json
from pinxit.data.images.confinement import decoder_environment, leave_network
from pinxit.data.images.decode import Decoded, ImageConfig, decode
from pinxit.data.images.formats import reader_of
from pinxit.processor import usable_cores

K = TypeVar("K")

START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from pinxit.data.images.decode_pool import serve; serve(sys.argv[2])"
)
READY = b"ready\n"
START_SECONDS = 120.0
"""Seconds after which a worker that has not started counts as failed."""
TRIES = 2
"""Number of processes that may die while decoding one image."""
AHEAD = 16
"""Number of images in flight per worker, so that one slow image does not hold up the others."""
AHEAD_BYTES = 16 * 2**20
"""Bytes in flight per worker; each image counts encoded or decoded, whichever is more."""
WATCH_SECONDS = 0.05
"""Seconds between two checks for workers past their time limit."""
LONGEST_LINE = 2**16
"""Longest line, in bytes, that is read from a pipe."""


class DecodePool:
    """Runs `decode` on a stream of images, in `ImageConfig.workers` processes."""

    def __init__(self, config: ImageConfig) -> None:
        self.config = config
        self.workers = config.workers or usable_cores()
        self.window = AHEAD * self.workers
        """Largest number of images in the pool at a time, per `map`."""
        self._finished_bytes = max(3 * width * height for width, height in config.targets)
        self._all = [_Worker(config) for _ in range(self.workers)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None
        self._closed = threading.Event()

    def __enter__(self) -> DecodePool:
        if self._threads is not None:
            raise RuntimeError("a DecodePool can be entered only once; create another one")
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="pinxit-decode")
        for worker in self._all:
            worker.start()
            self._idle.put(worker)
        threading.Thread(target=self._watch, name="pinxit-decode-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills all processes immediately; may be called more than once."""
        self._closed.set()
        for worker in self._all:
            worker.close()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def map(self, items: Iterable[tuple[K, bytes]]) -> Generator[tuple[K, Decoded], None, None]:
        """Yields each key with its decoded image, in the order of `items`.

        ``str(key)`` is the key of a random crop. `items` is read in the caller's thread, at most
        `window` images and `AHEAD_BYTES` per worker ahead of the results. An exception raised by
        `items` is raised here. Several maps may run at the same time.
        """
        if self._threads is None or self._closed.is_set():
            raise RuntimeError("the DecodePool is not open; use it in a with statement")
        waiting: deque[tuple[K, Future[Decoded], int]] = deque()
        in_flight, limit = 0, AHEAD_BYTES * self.workers
        try:
            for key, data in items:
                size = max(len(data), self._finished_bytes)
                waiting.append((key, self._threads.submit(self._decode, str(key), data), size))
                in_flight += size
                del data  # so that the only reference is the pool's
                while waiting and (
                    len(waiting) >= self.window or in_flight > limit or waiting[0][1].done()
                ):
                    first, decoded, size = waiting.popleft()
                    in_flight -= size
                    yield first, decoded.result()
            while waiting:
                first, decoded, _ = waiting.popleft()
                yield first, decoded.result()
        finally:
            for _, decoded, _ in waiting:
                decoded.cancel()

    def _decode(self, key: str, data: bytes) -> Decoded:
        worker = self._idle.get()  # never waits: there are as many threads as workers
        try:
            return worker.decode(key, data)
        finally:
            self._idle.put(worker)

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_SECONDS):
            for worker in self._all:
                worker.kill_if_late()


class _Worker:
    """Runs one process at a time, which any thread may end."""

    def __init__(self, config: ImageConfig) -> None:
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._closed = False
        self._deadline = float("inf")
        self._lock = threading.Lock()
        """Guards the process and the deadline, so that a late kill never hits the next image."""

    def start(self) -> None:
        """Starts the process without waiting for it."""
        paths = [path for path in sys.path if isinstance(path, str)]
        setting = json.dumps(to_json(self.config))
        with self._lock:
            if self._closed:
                raise RuntimeError("the DecodePool was closed")
            self._ready = False
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, json.dumps(paths), setting],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=decoder_environment(),
                start_new_session=True,  # Ctrl-C reaches the parent only
            )

    def decode(self, key: str, data: bytes) -> Decoded:
        """Decodes an image in the process; returns an error if the process hangs or dies."""
        ending = ""
        for _ in range(TRIES):
            process = self._running()
            with self._within(self.config.timeout) as start:
                with contextlib.suppress(OSError, EOFError):
                    return self._ask(process, key, data)
                late = time.monotonic() - start >= self.config.timeout
            ending = self._stop()
            if late:
                return Decoded("decode_timeout", detail=f"over {self.config.timeout:g} s")
        return Decoded("decode_error", detail=f"the decoder's process ended: {ending}")

    def kill_if_late(self) -> None:
        """Kills the process if it is past its deadline."""
        with self._lock:
            if time.monotonic() >= self._deadline and self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """Kills the process, and prevents another one from starting."""
        with self._lock:
            self._closed = True
        self._stop()

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Generator[float, None, None]:
        """Sets a deadline for the code in the context; yields the start time."""
        start = time.monotonic()
        with self._lock:
            self._deadline = start + seconds
        try:
            yield start
        finally:
            with self._lock:
                self._deadline = float("inf")

    def _running(self) -> subprocess.Popen[bytes]:
        """Returns the process once it is ready; starts a new one if it died."""
        if self._process is None or self._process.poll() is not None:
            self._stop()  # it died between two images, so no image is to blame
            self.start()
        process = self._process
        assert process is not None and process.stdout is not None
        if not self._ready:
            with self._within(START_SECONDS):
                self._ready = process.stdout.readline(LONGEST_LINE) == READY
            if not self._ready:
                raise RuntimeError(
                    f"a decoding process could not start ({self._stop()}); its errors are above"
                )
        return process

    def _ask(self, process: subprocess.Popen[bytes], key: str, data: bytes) -> Decoded:
        """Sends an image and returns the result; raises OSError or EOFError if the process died."""
        assert process.stdin is not None and process.stdout is not None
        _send(process.stdin, {"key": key, "bytes": len(data)}, data)
        try:
            return self._answer(process.stdout)
        except (KeyError, TypeError, ValueError) as error:
            raise EOFError("the answer is invalid") from error

    def _answer(self, pipe: IO[bytes]) -> Decoded:
        """Reads a result from the worker; raises ValueError for a size that is not a target."""
        head = _receive(pipe)
        image = None
        if head["status"] == "ok":
            width, height = head["size"]
            if (width, height) not in self.config.targets:
                raise ValueError(f"{width} x {height} is not a target size")
            image = _exactly(pipe, width * height * 3).reshape(height, width, 3)
        left, upper, right, lower = head["crop"]
        return Decoded(
            head["status"],
            image,
            detail=head["detail"],
            original=(head["original"][0], head["original"][1]),
            crop=(left, upper, right, lower),
            body=str(head["body"]),
            look=str(head["look"]),
        )

    def _stop(self) -> str:
        """Kills the process and waits for it; returns its signal or exit code as text."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return "closed"
        process.kill()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # unwritten bytes cannot be flushed any more
                if pipe is not None:
                    pipe.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


# --- messages over the pipes ------------------------------------------------------------------


def _send(pipe: IO[bytes], head: dict, body: bytes | memoryview = b"") -> None:
    """Writes a line of JSON and then plain bytes."""
    pipe.write(json.dumps(head).encode("ascii") + b"\n")
    pipe.write(body)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> dict:
    """Reads a line of JSON; raises EOFError if the pipe is closed."""
    line = pipe.readline(LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise EOFError("the pipe is closed")
    return json.loads(line)


def _exactly(pipe: IO[bytes], count: int) -> UInt8[np.ndarray, " n"]:
    """Reads exactly `count` bytes; raises EOFError if the pipe closes before."""
    body = bytearray(count)
    if pipe.readinto(body) < count:  # type: ignore[attr-defined]  # a buffered reader's
        raise EOFError("the pipe is closed")
    return np.frombuffer(body, np.uint8)


# --- in the worker's process ------------------------------------------------------------------


def serve(setting: str) -> None:
    """Decodes the images that arrive on standard input until it closes."""
    config = from_json(ImageConfig, json.loads(setting))
    images = sys.stdin.buffer
    answers = _claim_stdout()
    leave_network()
    for name in config.accepted:
        reader_of(name)  # imported before the memory is limited
    _limit_memory(config.memory_mb)
    answers.write(READY)
    answers.flush()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            head = _receive(images)
            _alarm(2 * config.timeout + 1)
            decoded = decode(_exactly(images, head["bytes"]).tobytes(), config, key=head["key"])
            _alarm(0)
            _send_result(answers, decoded)


def _send_result(pipe: IO[bytes], decoded: Decoded) -> None:
    """Writes a result for `_Worker._answer`."""
    image = decoded.image
    head = {
        "status": decoded.status,
        "detail": decoded.detail,
        "original": decoded.original,
        "crop": decoded.crop,
        "body": decoded.body,
        "look": decoded.look,
        "size": None if image is None else (image.shape[1], image.shape[0]),
    }
    _send(pipe, head, b"" if image is None else np.ascontiguousarray(image).data)


def _claim_stdout() -> IO[bytes]:
    """Returns standard output for results only, and discards the output of C libraries."""
    answers, sys.stderr = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(2), "w")
    devnull = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(devnull, descriptor)
    return answers


def _alarm(seconds: float) -> None:
    """Ends this process after `seconds`, even inside a decoder; 0 cancels the alarm."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory(mebibytes: int) -> None:
    """Allows this process `mebibytes` more address space than now, and no core dump (Linux)."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limit, hard_limit = now + mebibytes * 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard_limit != resource.RLIM_INFINITY:
        limit = min(limit, hard_limit)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
