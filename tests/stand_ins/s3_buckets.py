"""Fixtures for tests of stores: credentials, a moto server with a bucket, and the small server.

A conftest.py imports those that its folder needs.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from s3_server import S3Server

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets credentials that moto accepts, and no others."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Starts moto's server, and returns its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto: str, credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes a new bucket, which the environment leads to, and returns its URL."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto)
    name = f"pinxit-{uuid.uuid4().hex[:12]}"
    client = boto3.client("s3", endpoint_url=moto)
    client.create_bucket(Bucket=name)
    client.close()
    return f"s3://{name}"


@pytest.fixture
def serving(credentials: None, monkeypatch: pytest.MonkeyPatch):
    """Returns a context manager that serves objects as s3://bucket from the small server."""

    @contextmanager
    def serve(objects: dict[str, bytes], *, latency: float = 0.0) -> Iterator[S3Server]:
        with S3Server(objects, latency=latency) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
            yield server

    return serve
