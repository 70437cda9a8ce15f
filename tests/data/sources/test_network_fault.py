"""Errors that may pass with an outage, and those that will not."""

from __future__ import annotations

import errno
import socket
from types import SimpleNamespace

import aiohttp
import pytest

from pinxit.config import UsageError
from pinxit.data.sources.network_fault import is_network_fault


def caused(error: Exception) -> OSError:
    """The error as `reading` raises it."""
    try:
        raise OSError("https://a.b/c.parquet cannot be read") from error
    except OSError as raised:
        return raised


class Response(Exception):
    """An exception of a client of the hub, with the server's answer."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code}")
        self.response = SimpleNamespace(status_code=code)


class Status(Exception):
    """The same of aiohttp."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code}")
        self.status = code


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        ConnectionResetError(),
        TimeoutError(),
        socket.gaierror(socket.EAI_AGAIN, "no such name"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError(),
        *(kind(code) for kind in (Response, Status) for code in (429, 500, 503)),
    ],
)
def test_an_outage_is_known_by_the_error_or_its_cause(error: Exception):
    if isinstance(error, OSError):
        assert is_network_fault(error)
    assert is_network_fault(caused(error))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EMFILE, "Too many open files"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        PermissionError(errno.EACCES, "Permission denied"),
        UsageError("a.parquet is not a readable parquet file"),
        *(kind(code) for kind in (Response, Status) for code in (401, 403, 404, 416)),
    ],
)
def test_what_stays_wrong_is_not_an_outage(error: Exception):
    assert not is_network_fault(caused(error)) and not is_network_fault(error)
    assert not is_network_fault(None)


def test_a_ring_of_causes_ends():
    first, second = OSError("a"), OSError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_network_fault(first)
