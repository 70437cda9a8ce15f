"""Decoding in processes that may be killed.

A decoder fed with the web's bytes will one day hang, eat all memory or crash. So each worker is a
process of its own that holds one image at a time: over time it is killed, over memory it is refused
more, and either way a new one takes its place and no other image is touched. An image in whose
hands a process dies gets a second try in a new one, since the killer may have come from outside;
a second death is the image's own end.

The processes are fresh interpreters that import the decoder and nothing of the program around it
(no JAX, no ``__main__``: a script needs no guard). What crosses the pipes is a line of JSON and
plain bytes, never a pickle, so that a decoder that was taken over cannot hand back a program. A
worker ends when its pipe closes; should its parent vanish amidst a hang, an alarm ends it.
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
from pinxit.data.images.decode import Decoded, ImageConfig, decode

K = TypeVar("K")

START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from pinxit.data.images.decode_pool import serve; serve(sys.argv[2])"
)
READY = b"ready\n"
START_SECONDS = 120.0
"""A worker that has not started by then never will."""
TRIES = 2
"""Processes that an image may take with it."""
AHEAD = 16
"""Images in flight, per worker: what hides an image that takes its time."""
AHEAD_BYTES = 16 * 2**20
"""Bytes of them, per worker, each counted encoded or decoded, whichever is more."""
WATCH_SECONDS = 0.05
LONGEST_LINE = 2**16


class DecodePool:
    """`decode` for a stream of images, in as many processes as the config has workers."""

    def __init__(self, config: ImageConfig) -> None:
        self.config = config
        self.workers = config.workers or _cores()
        self.window = AHEAD * self.workers
        """Most images that are in the pool at any time, per `map`."""
        self._finished_bytes = max(3 * width * height for width, height in config.targets)
        self._all = [_Worker(config) for _ in range(self.workers)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None
        self._closed = threading.Event()

    def __enter__(self) -> DecodePool:
        if self._threads is not None:
            raise RuntimeError("a DecodePool is entered once; make another")
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="pinxit-decode")
        for worker in self._all:
            worker.start()
            self._idle.put(worker)
        threading.Thread(target=self._watch, name="pinxit-decode-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes, whatever they do; again is fine."""
        self._closed.set()
        for worker in self._all:
            worker.close()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def map(self, items: Iterable[tuple[K, bytes]]) -> Generator[tuple[K, Decoded], None, None]:
        """Each image decoded, in the order given; ``str(key)`` is the key of its random crop.

        `items` is read in the thread that asks for results, at most `window` and `AHEAD_BYTES` for
        each worker ahead of them. What it raises is raised here. Several maps may run at a time.
        """
        if self._threads is None or self._closed.is_set():
            raise RuntimeError("the DecodePool is not open; use it in a with statement")
        waiting: deque[tuple[K, Future[Decoded], int]] = deque()
        held, most = 0, AHEAD_BYTES * self.workers
        try:
            for key, data in items:
                size = max(len(data), self._finished_bytes)
                waiting.append((key, self._threads.submit(self._decode, str(key), data), size))
                held += size
                del data  # so that the pool alone holds it
                while waiting and (
                    len(waiting) >= self.window or held > most or waiting[0][1].done()
                ):
                    first, decoded, size = waiting.popleft()
                    held -= size
                    yield first, decoded.result()
            while waiting:
                first, decoded, _ = waiting.popleft()
                yield first, decoded.result()
        finally:
            for _, decoded, _ in waiting:
                decoded.cancel()

    def _decode(self, key: str, data: bytes) -> Decoded:
        worker = self._idle.get()  # as many threads as workers: there is one
        try:
            return worker.decode(key, data)
        finally:
            self._idle.put(worker)

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_SECONDS):
            for worker in self._all:
                worker.kill_if_late()


class _Worker:
    """One process at a time, and the thread-safe means to end it."""

    def __init__(self, config: ImageConfig) -> None:
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._closed = False
        self._deadline = float("inf")
        self._lock = threading.Lock()
        """Held to change the process or the deadline: a late kill never hits the next image."""

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
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # an interrupt at the terminal is its parent's business
            )

    def decode(self, key: str, data: bytes) -> Decoded:
        """What the process makes of an image, or how the image ended it."""
        ended = ""
        for _ in range(TRIES):
            process = self._running()
            with self._within(self.config.timeout) as begun:
                with contextlib.suppress(OSError, EOFError):
                    return self._ask(process, key, data)
                late = time.monotonic() - begun >= self.config.timeout
            ended = self._stop()
            if late:
                return Decoded("decode_timeout", detail=f"over {self.config.timeout:g} s")
        return Decoded("decode_error", detail=f"the decoder's process ended: {ended}")

    def kill_if_late(self) -> None:
        """Ends the process if what it does has taken too long."""
        with self._lock:
            if time.monotonic() >= self._deadline and self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """Ends the process, and lets no other start."""
        with self._lock:
            self._closed = True
        self._stop()

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Generator[float, None, None]:
        begun = time.monotonic()
        with self._lock:
            self._deadline = begun + seconds
        try:
            yield begun
        finally:
            with self._lock:
                self._deadline = float("inf")

    def _running(self) -> subprocess.Popen[bytes]:
        """The process, once it says that it is ready."""
        if self._process is None or self._process.poll() is not None:
            self._stop()  # it died idle, which is nobody's fault
            self.start()
        process = self._process
        assert process is not None and process.stdout is not None
        if not self._ready:
            with self._within(START_SECONDS):
                self._ready = process.stdout.readline(LONGEST_LINE) == READY
            if not self._ready:
                raise RuntimeError(
                    f"a decoding process could not start ({self._stop()}); what it said is above"
                )
        return process

    def _ask(self, process: subprocess.Popen[bytes], key: str, data: bytes) -> Decoded:
        """One image there, one answer back; OSError or EOFError where the process is gone."""
        assert process.stdin is not None and process.stdout is not None
        _send(process.stdin, {"key": key, "bytes": len(data)}, data)
        try:
            return self._answer(process.stdout)
        except (KeyError, TypeError, ValueError) as error:
            raise EOFError("the answer makes no sense") from error

    def _answer(self, pipe: IO[bytes]) -> Decoded:
        """The other side's `_tell`; only what can be true is believed."""
        head = _receive(pipe)
        image = None
        if head["status"] == "ok":
            width, height = head["size"]
            if (width, height) not in self.config.targets:
                raise ValueError(f"{width} x {height} is no target size")
            image = _exactly(pipe, width * height * 3).reshape(height, width, 3)
        left, upper, right, lower = head["crop"]
        return Decoded(
            head["status"],
            image,
            detail=head["detail"],
            original=(head["original"][0], head["original"][1]),
            crop=(left, upper, right, lower),
        )

    def _stop(self) -> str:
        """Ends the process for good; how it ended."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return "closed"
        process.kill()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was still to be written
                if pipe is not None:
                    pipe.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- the wire ---------------------------------------------------------------------------------


def _send(pipe: IO[bytes], head: dict, body: bytes | memoryview = b"") -> None:
    pipe.write(json.dumps(head).encode("ascii") + b"\n")
    pipe.write(body)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> dict:
    line = pipe.readline(LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise EOFError("the pipe is closed")
    return json.loads(line)


def _exactly(pipe: IO[bytes], count: int) -> UInt8[np.ndarray, " n"]:
    body = bytearray(count)
    if pipe.readinto(body) < count:  # type: ignore[attr-defined]  # a buffered reader's
        raise EOFError("the pipe is closed")
    return np.frombuffer(body, np.uint8)


# --- in the worker's process ------------------------------------------------------------------


def serve(setting: str) -> None:
    """Decodes what comes in by standard input until it closes."""
    config = from_json(ImageConfig, json.loads(setting))
    images = sys.stdin.buffer
    answers = _silenced()
    _limit_memory(config.memory_mb)
    answers.write(READY)
    answers.flush()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            head = _receive(images)
            _alarm(2 * config.timeout + 1)
            decoded = decode(_exactly(images, head["bytes"]).tobytes(), config, key=head["key"])
            _alarm(0)
            _tell(answers, decoded)


def _tell(pipe: IO[bytes], decoded: Decoded) -> None:
    image = decoded.image
    head = {
        "status": decoded.status,
        "detail": decoded.detail,
        "original": decoded.original,
        "crop": decoded.crop,
        "size": None if image is None else (image.shape[1], image.shape[0]),
    }
    _send(pipe, head, b"" if image is None else np.ascontiguousarray(image).data)


def _silenced() -> IO[bytes]:
    """Standard output for the answers alone; what the libraries in C print goes nowhere."""
    answers, sys.stderr = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(2), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    return answers


def _alarm(seconds: float) -> None:
    """Ends this process in so many seconds, even inside a decoder; 0 takes it back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory(mebibytes: int) -> None:
    """Allows this process so much more address space than it has now, and no core dump (Linux)."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limit, highest = now + mebibytes * 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]
    if highest != resource.RLIM_INFINITY:
        limit = min(limit, highest)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
