"""Reads and writes the files of an object store, many requests at once, through fsspec.

Requests that fail for a reason that may pass (a timeout, a server that is busy or broken, a
connection that breaks off) are repeated after growing pauses. All other errors are raised at once.
Either way the caller gets an OSError that names the URL and the remedy (`store_errors`).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import posixpath
import random
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pinxit.config import UsageError
from pinxit.data.network_fault import is_network_fault
from pinxit.data.stores.byte_ranges import LONGEST, Range, cut_out, merged
from pinxit.data.stores.file_systems import (
    PART_BYTES,
    READ_ONLY,
    WHOLE_PUTS,
    check_url,
    open_file_system,
    protocol_of,
)
from pinxit.data.stores.store_errors import MissingBucket, is_beyond_end, store_error
from pinxit.data.stores.upload_check import Digests, digests_of, matches

T = TypeVar("T")

PARALLEL = 64
"""The number of requests that one store has under way at once."""
SLOWEST = 2**18
"""The least bytes per second of an answer that is still waited for."""


@dataclass(frozen=True)
class Retries:
    """Says how often, and for how long, a request is repeated."""

    pauses: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    """Seconds before each repetition, with up to a half more at random."""
    seconds: float = 60.0
    """No repetition begins later than this after the first try."""
    timeout: float = 30.0
    """Seconds that one try may take, beside those that `SLOWEST` allows for its bytes."""


@dataclass
class _Connection:
    """The file systems of one process. A forked process makes its own."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    opened: dict[bool, tuple[Any, str]] = field(default_factory=dict)
    """File system and path of the root, for reads (False) and for uploads (True)."""
    threads: ThreadPoolExecutor | None = None
    """The threads of a file system that is not asynchronous."""


_STORES: weakref.WeakSet[RemoteStore] = weakref.WeakSet()
_INHERITED: list[_Connection] = []
"""Connections of the parent process, which share its sockets. They are kept, since an object that
is freed would close them."""


def _disconnect_all() -> None:
    """Makes each store open connections of its own, in a process that has just been forked."""
    for store in list(_STORES):
        _INHERITED.append(store._connection)
        store._connection = _Connection()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disconnect_all)


class RemoteStore:
    """A `ByteStore` of a URL: ``s3://``, ``gs://``, or another protocol of fsspec."""

    def __init__(self, root: str, *, parallel: int = PARALLEL, retries: Retries | None = None):
        """Checks the URL, and opens nothing yet. At most `parallel` requests are under way."""
        check_url(root)
        self._root = root.rstrip("/")
        self._parallel, self._retries = parallel, retries or Retries()
        self._connection = _Connection()
        _STORES.add(self)
        self.requests = 0
        """The number of requests for bytes, repetitions included."""
        self.bytes_read = 0
        """The number of bytes that were read."""

    def __reduce__(self) -> Any:
        return partial(RemoteStore, parallel=self._parallel, retries=self._retries), (self._root,)

    @property
    def root(self) -> str:
        """The URL of the root."""
        return self._root

    def exists(self, name: str) -> bool:
        """Returns whether there is a file of this name. Raises OSError if the store does not say,
        or if it has no such bucket."""
        try:
            self.size(name)
        except MissingBucket:
            raise
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        """Returns the size of a file in bytes."""
        return int(self._info(name)["size"])

    def read(self, name: str) -> bytes:
        """Returns a whole file, in one request unless it is long."""
        first = self.ranges([(name, 0, LONGEST)])[0]
        if len(first) < LONGEST:
            return first
        return first + self.ranges([(name, LONGEST, self.size(name))])[0]

    def ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Returns the bytes of each range, in order. Requests run in parallel, and ranges that
        touch are one request."""
        self._opened()
        requests = merged(ranges, longest=LONGEST)
        return cut_out(ranges, requests, self._run(self._read_all(requests)))

    def names(self, folder: str = "") -> list[str]:
        """Returns the names of all files in a folder and those below it, sorted."""
        _, root = self._opened()
        path = posixpath.join(root, folder).rstrip("/")
        files = self._run(self._patiently("find", path, doing="listed", name=folder))
        return sorted(file.removeprefix(root).lstrip("/") for file in files)

    def upload(self, path: Path, name: str) -> None:
        """Stores a finished local file under a name, whole or not at all, and compares its size
        and, if the store keeps one, its checksum. A long file is sent in parts."""
        protocol = protocol_of(self._root)
        if protocol in READ_ONLY:
            raise UsageError(f"{self._root}: {protocol}:// can only be read; valid: s3://, gs://")
        self._opened(uploads=True)
        digests = digests_of(path, part_bytes=PART_BYTES)
        self._run(self._upload(path, name, digests))

    def close(self) -> None:
        """Closes the connections. The store opens new ones if it is used again."""
        connection, self._connection = self._connection, _Connection()
        if connection.threads is not None:
            connection.threads.shutdown(wait=False, cancel_futures=True)

    # --- requests ---

    async def _read_all(self, requests: Sequence[Range]) -> list[bytes]:
        """Returns the answers to requests, and cancels the others once one fails for good."""
        turns = asyncio.Semaphore(self._parallel)

        async def answer(request: Range) -> bytes:
            async with turns:
                return await self._read(*request)

        tasks = [asyncio.create_task(answer(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _read(self, name: str, start: int, stop: int) -> bytes:
        """Returns the bytes of one range, or fewer where the file ends."""
        length = stop - start
        file_system, root = self._opened()

        async def once() -> bytes:
            self.requests += 1
            call = self._call(file_system, "cat_file", f"{root}/{name}", start=start, end=stop)
            try:
                content = await asyncio.wait_for(call, self._retries.timeout + length / SLOWEST)
            except Exception as error:
                if is_beyond_end(error):
                    return b""
                raise
            self.bytes_read += len(content)
            return content

        content = await self._repeated(once, name, "read")
        if len(content) > length:
            problem = "the server ignores Range headers, so that a part of a file cannot be read"
            raise OSError(f"{self._url(name)} cannot be read: {problem}")
        return content

    def _info(self, name: str) -> dict[str, Any]:
        """Returns what the store says of a file. Raises FileNotFoundError if there is none."""
        _, root = self._opened()
        path = f"{root}/{name}"
        info = self._run(self._patiently("info", path, doing="read", name=name))
        if info.get("type") == "directory":
            raise store_error(FileNotFoundError(path), self._url(name), "read")
        if info.get("size") is None:
            raise OSError(f"{self._url(name)}: the server does not say how long the file is")
        return info

    async def _patiently(self, method: str, path: str, *, doing: str, name: str) -> Any:
        """Returns the result of a method of the file system that is given one path."""
        file_system, _ = self._opened()

        async def once() -> Any:
            call = self._call(file_system, method, path)
            return await asyncio.wait_for(call, self._retries.timeout)

        return await self._repeated(once, name, doing)

    async def _upload(self, path: Path, name: str, digests: Digests) -> None:
        """Sends a file, again if it arrives with other content."""
        file_system, root = self._opened(uploads=True)
        target = f"{root}/{name}"
        whole = protocol_of(self._root) in WHOLE_PUTS
        folder, short = posixpath.split(target)
        sent = target if whole else f"{folder}/.{short}.{os.urandom(6).hex()}.partial"
        limit = 10 * self._retries.timeout + digests.size / SLOWEST
        more = {"chunksize": PART_BYTES} if protocol_of(self._root).startswith(("s3", "g")) else {}

        async def once() -> None:
            if not whole:
                await self._call(file_system, "makedirs", folder, exist_ok=True)
            put = self._call(file_system, "put_file", str(path), sent, **more)
            await asyncio.wait_for(put, limit)
            if not await self._arrived(file_system, sent, digests):
                raise ConnectionError("it arrived with other content, and is sent again")
            if not whole:
                await self._call(file_system, "mv", sent, target)

        await self._repeated(once, name, "written")

    async def _arrived(self, file_system: Any, path: str, digests: Digests) -> bool:
        """Returns whether an uploaded file has the local one's size and checksum."""
        info = await self._call(file_system, "info", path)
        if info["size"] != digests.size:
            return False
        if matches(info, digests) is not False:
            return True
        md5 = hashlib.md5(usedforsecurity=False)
        for start in range(0, digests.size, LONGEST):
            stop = min(start + LONGEST, digests.size)
            md5.update(await self._call(file_system, "cat_file", path, start=start, end=stop))
        return md5.hexdigest() == digests.md5

    async def _repeated(self, once: Callable[[], Awaitable[T]], name: str, doing: str) -> T:
        """Returns the result of `once`, which is called again after errors that may pass."""
        start = time.monotonic()
        for pause in itertools.chain(self._retries.pauses, [None]):
            try:
                return await once()
            except Exception as error:
                late = time.monotonic() - start + (pause or 0) > self._retries.seconds
                if pause is None or late or not is_network_fault(error):
                    raise store_error(error, self._url(name), doing) from error
            await asyncio.sleep(pause * random.uniform(1, 1.5))
        raise AssertionError

    def _call(self, file_system: Any, method: str, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Calls a method of the file system, in a thread if it is not asynchronous."""
        if file_system.async_impl and hasattr(file_system, f"_{method}"):
            return getattr(file_system, f"_{method}")(*args, **kwargs)
        call = partial(getattr(file_system, method), *args, **kwargs)
        return asyncio.get_running_loop().run_in_executor(self._threads(), call)

    # --- connections ---

    def _run(self, work: Any) -> Any:
        """Runs a coroutine on fsspec's own thread, and returns its result."""
        from fsspec.asyn import get_loop, sync

        return sync(get_loop(), lambda: work)

    def _opened(self, *, uploads: bool = False) -> tuple[Any, str]:
        """Returns this process's file system, and the path of the root in it."""
        connection = self._connection
        with connection.lock:
            if uploads not in connection.opened:
                connection.opened[uploads] = open_file_system(
                    self._root, parallel=self._parallel, uploads=uploads
                )
            return connection.opened[uploads]

    def _threads(self) -> ThreadPoolExecutor:
        connection = self._connection
        with connection.lock:
            if connection.threads is None:
                connection.threads = ThreadPoolExecutor(self._parallel, "pinxit-store")
            return connection.threads

    def _url(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")
