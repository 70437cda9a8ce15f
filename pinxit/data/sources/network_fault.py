"""Tells errors of the network or of a busy server from damaged files and wrong paths."""

from __future__ import annotations

import errno
import socket

CLIENTS = frozenset({"aiohttp", "httpx", "httpcore", "requests", "urllib3", "botocore"})
"""Packages whose exceptions without an HTTP status mean that no answer was received."""
UNREACHABLE = frozenset(
    {
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH),
    }
)
"""The errors of the operating system, besides those of connections, that mean the same."""
WRONG_PATH = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


def is_network_fault(error: BaseException | None) -> bool:
    """Returns whether an error, or one that caused it, may be over when the network is back.

    An answer with a status is one only if the server is overloaded or broken (429, 500 to 599).
    """
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, WRONG_PATH):
            return False
        if (code := _status(error)) is not None:
            return code == 429 or 500 <= code <= 599
        if isinstance(error, ConnectionError | TimeoutError) or _is_unreachable(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _status(error: BaseException) -> int | None:
    """Returns the HTTP status that an exception of a client carries, if any."""
    response = getattr(error, "response", None)
    for code in (getattr(response, "status_code", None), getattr(error, "status", None)):
        if isinstance(code, int) and code >= 100:
            return code
    return None


def _is_unreachable(error: BaseException) -> bool:
    """Returns whether a lookup failed, a network is unreachable, or a client got no answer."""
    if isinstance(error, socket.gaierror):
        return True
    if isinstance(error, OSError) and error.errno in UNREACHABLE:
        return True
    return type(error).__module__.partition(".")[0] in CLIENTS
