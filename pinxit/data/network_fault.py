"""Tells errors of the network or of a busy server from damaged files and wrong paths.

The clients of object stores have exceptions of their own, which are no OSErrors. They are known by
their module and name, so that a client is not imported unless it is used.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Mapping

CLIENTS = frozenset({"aiohttp", "httpx", "httpcore", "requests", "urllib3"})
"""Packages whose exceptions without an HTTP status mean that no answer was received."""
UNANSWERED = frozenset(
    {
        *("botocore.HTTPClientError", "botocore.ConnectionError", "botocore.IncompleteReadError"),
        *("botocore.ResponseParserError", "botocore.CredentialRetrievalError"),
        *("google.TransportError", "google.TimeoutError"),
    }
)
"""Exceptions, by package and class, that mean the same in packages that have others, too."""
NO_CREDENTIALS = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"),
        *("NoAuthTokenError", "TokenRetrievalError", "UnauthorizedSSOTokenError"),
        *("DefaultCredentialsError", "RefreshError", "SSOTokenLoadError"),
    }
)
"""The classes of exceptions that mean that a client found no valid credentials."""
BASES = (
    *(("aiohttp", "ClientError"), ("huggingface_hub.errors", "HTTPError")),
    *(("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError")),
    *(("botocore.parsers", "ResponseParserError"), ("google.auth.exceptions", "GoogleAuthError")),
    *(("gcsfs.retry", "HttpError"), ("gcsfs.retry", "ChecksumError")),
    *(("azure.core.exceptions", "AzureError"),),
)
"""The modules and classes of the exceptions of clients that are no OSErrors."""
BUSY = frozenset({"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"})
"""Codes of object stores that ask for the same request again later, whatever the status."""
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

    An answer with a status is one only if the server is overloaded or broken (408, 429, 500 to
    599).
    """
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, WRONG_PATH) or lacks_credentials(error):
            return False
        if error_code(error) in BUSY or getattr(error, "retryable", False) is True:
            return True
        if (code := status_of(error)) is not None:
            return code in (408, 429) or 500 <= code <= 599
        if isinstance(error, ConnectionError | TimeoutError) or _is_unreachable(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def lacks_credentials(error: BaseException) -> bool:
    """Returns whether an error says that a client found no valid credentials, for good."""
    known = any(cls.__name__ in NO_CREDENTIALS for cls in type(error).__mro__)
    return known and getattr(error, "retryable", False) is not True


def client_errors() -> tuple[type[Exception], ...]:
    """Returns the exceptions besides OSError that the clients in use may raise."""
    classes = [getattr(sys.modules.get(module), name, None) for module, name in BASES]
    return tuple(cls for cls in classes if cls is not None)


def status_of(error: BaseException) -> int | None:
    """Returns the HTTP status that an exception of a client carries, if any."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        response = response.get("ResponseMetadata")
        code = response.get("HTTPStatusCode") if isinstance(response, Mapping) else None
        return code if isinstance(code, int) and code >= 100 else None
    codes = [getattr(response, "status_code", None), getattr(error, "status", None)]
    if type(error).__module__.startswith("gcsfs"):
        codes.append(getattr(error, "code", None))
    for code in codes:
        if isinstance(code, str) and code.isdecimal():
            code = int(code)
        if isinstance(code, int) and code >= 100:
            return code
    return None


def error_code(error: BaseException) -> str:
    """Returns the code by which an object store names an error, such as NoSuchBucket, or ""."""
    response = getattr(error, "response", None)
    named = response.get("Error") if isinstance(response, Mapping) else None
    return str(named.get("Code", "")) if isinstance(named, Mapping) else ""


def _is_unreachable(error: BaseException) -> bool:
    """Returns whether a lookup failed, a network is unreachable, or a client got no answer."""
    if isinstance(error, socket.gaierror):
        return True
    if isinstance(error, OSError) and error.errno in UNREACHABLE:
        return True
    if _package(type(error)) in CLIENTS:
        return True
    return any(f"{_package(cls)}.{cls.__name__}" in UNANSWERED for cls in type(error).__mro__)


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]
