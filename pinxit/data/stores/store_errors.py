"""Explains the errors of object stores: which URL, what failed, and what to set.

The clients raise dozens of classes. Callers of a store see only OSErrors: `FileNotFoundError`,
`PermissionError` (access or credentials), `ConnectionError` (it may pass), or another one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from pinxit.data.network_fault import (
    error_code,
    is_network_fault,
    lacks_credentials,
    status_of,
)
from pinxit.data.stores.file_systems import masked, protocol_of

CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a "
    "role; a public bucket needs FSSPEC_S3_ANON=1",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run `gcloud auth "
    "application-default login`, or give the machine a service account; a public bucket needs "
    "FSSPEC_GS_TOKEN=anon",
}
CREDENTIALS |= {"s3a": CREDENTIALS["s3"], "gcs": CREDENTIALS["gs"]}
"""What to set so that a client finds credentials, by protocol."""
ENDPOINTS = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("STORAGE_EMULATOR_HOST",)}
"""The environment variables that name another server than the usual one, by protocol."""
LONGEST_REASON = 300


class MissingBucket(FileNotFoundError):
    """Raised for a bucket that does not exist."""


def store_error(error: Exception, url: str, doing: str) -> OSError:
    """Returns an error of a client as an OSError that names the URL. `doing` is a participle, such
    as "read". The caller raises it from the error."""
    protocol = protocol_of(url)
    where, chain = masked(url), list(_causes(error))
    if any(lacks_credentials(cause) for cause in chain):
        advice = CREDENTIALS.get(protocol, "see the documentation of its fsspec package")
        return _named(PermissionError, errno.EACCES, f"no valid credentials: {advice}", where)
    statuses = {status for cause in chain if (status := status_of(cause)) is not None}
    refused = any(isinstance(cause, PermissionError) for cause in chain) or "Forbidden" in str(
        error
    )
    if refused or statuses & {401, 403}:
        advice = CREDENTIALS.get(protocol, "check the permissions")
        problem = f"access is refused ({reason_of(error)}); check that this key may use it, or "
        return _named(PermissionError, errno.EACCES, problem + advice, where)
    if any(isinstance(cause, FileNotFoundError) for cause in chain) or 404 in statuses:
        return _missing(chain, protocol, url)
    if is_network_fault(error):
        problem = f"cannot be {doing}{_endpoint(protocol)}: {reason_of(error)}"
        return ConnectionError(f"{where} {problem}")
    code = next((c.errno for c in chain if isinstance(c, OSError) and c.errno), errno.EIO)
    return _named(OSError, code, f"cannot be {doing}: {reason_of(error)}", where)


def is_beyond_end(error: Exception) -> bool:
    """Returns whether an error says that a range begins after the end of its file."""
    return any(status_of(cause) == 416 for cause in _causes(error))


def reason_of(error: Exception) -> str:
    """Returns the text of an error, or else the name of its class, in one short line."""
    text = " ".join(masked(str(error)).split()) or type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


def _named(cls: type[OSError], code: int, problem: str, where: str) -> OSError:
    return cls(code, problem, where)


def _missing(chain: list[BaseException], protocol: str, url: str) -> OSError:
    """Returns the error for a bucket, or a file in it, that does not exist."""
    if any(error_code(cause) == "NoSuchBucket" for cause in chain):
        bucket = url.partition("://")[2].partition("/")[0]
        problem = f"the bucket {bucket} does not exist{_endpoint(protocol)}"
        return _named(MissingBucket, errno.ENOENT, problem, masked(url))
    problem = f"there is no such file{_endpoint(protocol)}"
    return _named(FileNotFoundError, errno.ENOENT, problem, masked(url))


def _endpoint(protocol: str) -> str:
    """Returns which server was asked, if the environment names one."""
    for variable in ENDPOINTS.get({"s3a": "s3", "gcs": "gs"}.get(protocol, protocol), ()):
        if address := os.environ.get(variable):
            return f" at {masked(address)} ({variable})"
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and those that caused it."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
