"""Errors that may pass with an outage, and those that will not."""

from __future__ import annotations

import errno
import socket
from types import SimpleNamespace

import aiohttp
import botocore.exceptions
import gcsfs.retry
import google.auth.exceptions
import pytest

from pinxit.config import UsageError
from pinxit.data.network_fault import client_errors, is_network_fault


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


def boto(code: str, status: int) -> botocore.exceptions.ClientError:
    """An answer of an S3 store with this code and status."""
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(answer, "GetObject")


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
        *(kind(code) for kind in (Response, Status) for code in (408, 429, 500, 503)),
        botocore.exceptions.EndpointConnectionError(endpoint_url="http://a"),
        botocore.exceptions.ReadTimeoutError(endpoint_url="http://a"),
        botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        botocore.exceptions.CredentialRetrievalError(provider="iam", error_msg="no answer"),
        boto("SlowDown", 503),
        boto("RequestTimeout", 400),
        gcsfs.retry.HttpError({"code": 503}),
        gcsfs.retry.HttpError({"code": "429"}),
        google.auth.exceptions.TransportError("no answer"),
        google.auth.exceptions.RefreshError("busy", retryable=True),
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
        botocore.exceptions.NoCredentialsError(),
        botocore.exceptions.PartialCredentialsError(provider="env", cred_var="key"),
        botocore.exceptions.ParamValidationError(report="a bucket's name"),
        boto("InvalidArgument", 400),
        boto("NoSuchBucket", 404),
        gcsfs.retry.HttpError({"code": 401}),
        google.auth.exceptions.DefaultCredentialsError("none"),
    ],
)
def test_what_stays_wrong_is_not_an_outage(error: Exception):
    assert not is_network_fault(caused(error)) and not is_network_fault(error)
    assert not is_network_fault(None)


def test_missing_credentials_stay_missing_whatever_was_tried_for_them():
    """Outside Google's cloud, nobody answers at the address of its metadata."""
    missing = google.auth.exceptions.DefaultCredentialsError("none")
    missing.__context__ = google.auth.exceptions.TransportError("no answer")
    assert not is_network_fault(missing) and not is_network_fault(caused(missing))


def test_a_ring_of_causes_ends():
    first, second = OSError("a"), OSError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_network_fault(first)


def test_the_exceptions_of_clients_in_use_are_known():
    expected = {aiohttp.ClientError, botocore.exceptions.BotoCoreError, gcsfs.retry.HttpError}
    assert expected <= set(client_errors())
    for error in (botocore.exceptions.NoCredentialsError(), boto("SlowDown", 503)):
        assert isinstance(error, client_errors())
