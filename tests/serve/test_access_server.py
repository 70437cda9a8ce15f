"""The server itself: slow clients, malformed HTTP, too many connections, signals, addresses."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import protected_server
import pytest
from protected_server import protected, send_raw, small_app

from pinxit.cli.main import main
from pinxit.config import UsageError
from pinxit.serve.access.access_rules import AccessRules
from pinxit.serve.access.body_sizes import BodySizes
from pinxit.serve.access.listening import (
    Address,
    addresses_of,
    bind_sockets,
    check_reach,
    own_names,
    server_address,
)
from pinxit.serve.access.studio_rules import rules_of
from pinxit.serve.desktop import on_desktop
from pinxit.serve.http_protocol import StudioProtocol
from pinxit.serve.server import run_studio
from pinxit.serve.settings import StudioConfig

QUICK = BodySizes(upload=2**20, idle_seconds=0.2, grace_seconds=0.5, least_rate=1e6)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a small app behind the server, with short times."""
    patch = pytest.MonkeyPatch()
    patch.setattr(StudioProtocol, "header_seconds", 0.4)
    patch.setattr(StudioProtocol, "write_seconds", 0.3)
    patch.setattr(StudioProtocol, "most_connections", 20)
    patch.setattr("pinxit.serve.access.refusal.LINGER_SECONDS", 2.0)
    with protected(small_app(AccessRules(sizes=QUICK))) as (number, _):
        yield number
    patch.undo()


def request(line: str, *headers: str, body: str = "") -> bytes:
    """A request as it goes over the wire."""
    host = [] if any(h.lower().startswith("host") for h in headers) else ["Host: localhost"]
    return "\r\n".join([line, *host, *headers, "", body]).encode("latin-1")


HEALTH = request("GET /health HTTP/1.1", "Connection: close")
EDIT = "POST /v1/images/edits HTTP/1.1"
HIDDEN = "GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
MALFORMED = {
    "two lengths": request(EDIT, "Content-Length: 5", "Content-Length: 60", body="12345" + HIDDEN),
    "length list": request(EDIT, "Content-Length: 5, 60", body="12345" + HIDDEN),
    "length and chunks": request(
        *(EDIT, "Content-Length: 60", "Transfer-Encoding: chunked"), body="0\r\n\r\n" + HIDDEN
    ),
    "chunks and length": request(
        *(EDIT, "Transfer-Encoding: chunked", "Content-Length: 4"), body="0\r\n\r\n" + HIDDEN
    ),
    "two codings": request(
        *(EDIT, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"), body="0\r\n\r\n"
    ),
    "obscured coding": request(EDIT, "Transfer-Encoding: xchunked", body="0\r\n\r\n" + HIDDEN),
    "blank before colon": request(EDIT, "Transfer-Encoding : chunked", body="0\r\n\r\n" + HIDDEN),
    "folded header": request(EDIT, "X: 1\r\n Transfer-Encoding: chunked", "Content-Length: x"),
    "negative length": request(EDIT, "Content-Length: -5", body="12345"),
    "hexadecimal length": request(EDIT, "Content-Length: 0x5", body="12345"),
    "bad chunk size": request(EDIT, "Transfer-Encoding: chunked", body="-1\r\nx\r\n0\r\n\r\n"),
    "two hosts": request("GET /health HTTP/1.1", "Host: localhost", "Host: evil.example"),
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "foreign absolute address": request("GET http://evil.example/health HTTP/1.1"),
    "NUL in a header": request("GET /health HTTP/1.1", "X: a\0b"),
    "line feed in a header": request("GET /health HTTP/1.1", "X: a\nHost: evil.example"),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a long line": request("GET /" + "a" * 70_000 + " HTTP/1.1"),
    "a large header": request("GET /health HTTP/1.1", "X: " + "a" * 70_000),
    "gzip": request(EDIT, "Content-Encoding: gzip", "Content-Length: 5", body="12345"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_get_one_answer_and_the_connection_ends(name, port):
    """A second request that is hidden in the first one is never answered."""
    answer = send_raw(port, MALFORMED[name], seconds=1.5)
    heads = answer.count(b"HTTP/1.1 ")
    assert heads == 1 and answer.startswith(b"HTTP/1.1 4"), answer[:300]
    body = answer.partition(b"\r\n\r\n")[2]
    if b"chunked" not in answer.partition(b"\r\n\r\n")[0]:
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert b"nosniff" in answer and len(answer) < 4096


def test_slow_clients_are_disconnected_while_others_are_served(port):
    """As in a slow-loris attack: with headers, with bodies, and with nothing at all."""
    new = {"Connection": "close"}  # a connection for each request; the client is slow to make
    others = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=new)
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(9)]
    start = time.monotonic()
    for number, one in enumerate(slow):
        one.settimeout(5)
        if number % 3:
            one.sendall(b"GET /health HTTP/1.1\r\nX: ")
    head = request(EDIT, "Content-Length: 1000", body="{")
    slow[0].sendall(head)
    served = 0
    while time.monotonic() - start < 0.8:
        assert others.get("/health").status_code == 200
        served += 1
        for number, one in enumerate(slow):
            if number % 3:
                with contextlib.suppress(OSError):
                    one.sendall(b"a")
        time.sleep(0.1)
    endings = []
    for one in slow:
        try:
            endings.append(one.recv(4096))
        except ConnectionError:
            endings.append(b"")
        one.close()
    others.close()
    assert endings[0].startswith(b"HTTP/1.1 408") and set(endings[1:]) == {b""}
    assert served > 3


def test_a_slow_body_over_the_wire_is_answered(port):
    head = request(EDIT, "Content-Length: 1000", body="{")
    answer = send_raw(port, head, 0.1, b" ", 0.1, b" ", seconds=4)
    assert answer.startswith(b"HTTP/1.1 408") and b"slow_body" in answer


def test_a_client_that_does_not_read_is_disconnected(port):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(request("GET /large HTTP/1.1"))
        time.sleep(0.8)
        client.settimeout(5)
        size = 0
        with pytest.raises((ConnectionError, AssertionError)):
            while part := client.recv(2**20):
                size += len(part)
            raise AssertionError
        assert size < 1000 * 65536


def test_when_there_are_too_many_connections_the_idle_ones_make_room(port):
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    for one in idle:
        one.close()


def test_a_large_body_is_refused_and_the_client_can_read_why(port):
    start = time.monotonic()
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/images/edits", content=bytes(20 * 2**20))
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "request_too_large"
    chunks = (bytes(2**18) for _ in range(40))
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/images/edits", content=chunks)
    assert answer.status_code == 413 and time.monotonic() - start < 4


# --- the end ----------------------------------------------------------------------------------


def started(drain: float, limit: int) -> tuple[subprocess.Popen[str], int]:
    """The small app in a process of its own, and its port."""
    process = subprocess.Popen(
        [sys.executable, protected_server.__file__, str(drain), str(limit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    with process.stdout:
        return process, int(process.stdout.readline())


def read_events(port: int, path: str) -> socket.socket:
    """A connection on which the first event of a stream has come."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=15)
    connection.sendall(request(f"GET {path} HTTP/1.1"))
    received = b""
    while b"data: " not in received:
        received += connection.recv(4096)
    return connection


def rest(connection: socket.socket) -> bytes:
    """Everything that comes until the server closes the connection."""
    received = b""
    while part := connection.recv(65536):
        received += part
    connection.close()
    return received


def test_a_signal_drains_the_jobs_and_a_second_one_ends_at_once():
    process, port = started(0.6, 30)
    job, endless = read_events(port, "/job"), read_events(port, "/events")
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", port), timeout=2)
    assert b"event: ended\n" in rest(job)
    last = rest(endless).rstrip(b"\r\n0")
    assert last.endswith(b'event: closing\ndata: {"state": "closing"}')
    assert process.wait(10) == 0 and 0.6 <= time.monotonic() - start < 8

    process, port = started(60, 60)
    job = read_events(port, "/job")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130 and time.monotonic() - start < 2
    job.close()


def test_jobs_without_connections_are_drained_before_the_application_ends(monkeypatch):
    """The application's end closes the engine, which cancels what it still draws."""
    order: list[str] = []
    app = small_app(AccessRules(), 0.3)
    engine = app.state.studio.engine
    drain = engine.drain
    monkeypatch.setattr(engine, "drain", lambda seconds: (drain(seconds), order.append("drained")))
    app.router.on_shutdown.append(lambda: order.append("closed"))
    with protected(app, drain_seconds=5) as (port, _):
        assert send_raw(port, request("GET /health HTTP/1.1"))
    assert order == ["drained", "closed"]


# --- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.7", "127.1", "lo"]
)
def test_this_computer_s_own_addresses_need_no_token(host):
    check_reach(host, addresses_of(host), has_token=False)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "0", "192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "3221225985"]
)
def test_every_other_address_needs_a_token(host, monkeypatch):
    monkeypatch.delenv("PINXIT_TOKEN", raising=False)
    with pytest.raises(UsageError, match="PINXIT_TOKEN"):
        rules_of(StudioConfig(host=host))
    rules = rules_of(StudioConfig(host=host, token="a-token-of-20-characters"))
    assert rules.token and rules.any_address == (host in ("0.0.0.0", "::", "", "0"))


def test_a_name_and_an_interface_are_resolved_first(monkeypatch):
    import psutil

    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.5", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    with pytest.raises(UsageError, match="other computers"):
        check_reach("localhost", addresses_of("localhost"), has_token=False)
    monkeypatch.undo()
    card: Any = type("Card", (), {"family": socket.AF_INET, "address": "192.0.2.9"})()
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth7": [card]})
    addresses = addresses_of("eth7")
    assert [one.host for one in addresses] == ["192.0.2.9"]
    assert {"192.0.2.9", "eth7"} <= own_names("eth7", addresses)
    with pytest.raises(UsageError, match="host"):
        addresses_of("no such host!")


def test_the_command_refuses_before_anything_is_computed(monkeypatch, capsys):
    monkeypatch.delenv("PINXIT_TOKEN", raising=False)
    monkeypatch.setattr("pinxit.serve.server.create_app", lambda *_: pytest.fail("too late"))
    assert main(["studio", "--host", "0.0.0.0", "--port", "0"]) == 2
    message = capsys.readouterr().err
    assert "token" in message and message.count("\n") == 1
    assert main(["studio", "--token", "short", "--port", "0"]) == 2
    assert main(["studio", "--allow_origin", "*", "--port", "0"]) == 2
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["studio", "--port", str(port)]) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert f"port: {port} is in use" in message and "--port" in message
        assert f"(process {os.getpid()})" in message


def test_a_free_port_is_chosen_and_a_name_keeps_its_spelling():
    sockets = bind_sockets("localhost", 0, addresses_of("localhost"))
    ports = {one.getsockname()[1] for one in sockets}
    assert len(ports) == 1 and server_address(sockets, "localhost").startswith("http://localhost:")
    for one in sockets:
        one.close()
    every = [Address(socket.AF_INET, "0.0.0.0")]
    (listener,) = bind_sockets("0.0.0.0", 0, every)
    assert server_address([listener], "0.0.0.0").startswith("http://127.0.0.1:")
    listener.close()


def test_a_unix_socket_is_this_user_s_alone(tmp_path):
    path = tmp_path / "studio.sock"
    host = f"unix:{path}"
    check_reach(host, addresses_of(host), has_token=False)
    (listener,) = bind_sockets(host, 0, addresses_of(host))
    assert path.stat().st_mode & 0o777 == 0o600 and server_address([listener], host) == host
    with pytest.raises(UsageError, match="in use"):
        bind_sockets(host, 0, addresses_of(host))
    listener.close()
    (listener,) = bind_sockets(host, 0, addresses_of(host))  # a leftover is replaced
    listener.close()
    path.unlink()
    path.write_text("a file")
    with pytest.raises(UsageError, match="a file"):
        bind_sockets(host, 0, addresses_of(host))
    assert path.read_text() == "a file"


@pytest.mark.parametrize(
    ("environment", "terminal", "platform", "expected"),
    [
        ({"DISPLAY": ":0"}, True, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True, "linux", True),
        ({}, True, "linux", False),
        ({"DISPLAY": ":0"}, False, "linux", False),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "1"}, True, "linux", False),
        ({}, True, "darwin", True),
        ({"CI": "1"}, True, "darwin", False),
    ],
)
def test_a_browser_is_opened_on_a_desktop_only(environment, terminal, platform, expected):
    assert on_desktop(environment, terminal=terminal, platform=platform) == expected


def test_a_name_that_changes_its_meaning_is_listened_on_where_it_was_checked(monkeypatch):
    """Otherwise the address without a token could be another one than that which was checked."""
    answers = [[Address(socket.AF_INET, "127.0.0.1")], [Address(socket.AF_INET, "0.0.0.0")]]
    for module in ("server", "access.studio_rules"):
        monkeypatch.setattr(f"pinxit.serve.{module}.addresses_of", lambda host: answers.pop(0))
    bound = []

    class Stop(Exception):
        """Ends the server before it begins."""

    def bind(host: str, port: int, addresses: list[Address]):
        bound.extend(addresses)
        raise Stop

    monkeypatch.setattr("pinxit.serve.server.bind_sockets", bind)
    monkeypatch.delenv("PINXIT_TOKEN", raising=False)
    with pytest.raises(Stop):
        run_studio(StudioConfig(host="a-name", open="0"))
    assert [address.host for address in bound] == ["127.0.0.1"] and len(answers) == 1
