"""Sends requests to an ASGI app without a socket, also such as no honest client sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

HOST = "127.0.0.1:7860"
"""The host of requests that name no other."""


@dataclass
class Answer:
    """What an app has answered."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False

    def header(self, name: str) -> str:
        """Returns the value of a header, or an empty string."""
        values = [value for key, value in self.headers if key.lower() == name.lower().encode()]
        return b", ".join(values).decode("latin-1")

    def json(self) -> Any:
        """Returns the body's JSON."""
        return json.loads(self.body)


def scope_of(method: str, target: str, headers: Iterable[tuple[str, str]], **more: Any) -> dict:
    """Returns the scope of a request as uvicorn builds it."""
    raw, _, query = target.partition("?")
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    if not any(name == b"host" for name, _ in pairs):
        pairs.insert(0, (b"host", HOST.encode()))
    pairs = [pair for pair in pairs if pair != (b"host", b"")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 7860),
        "client": ("203.0.113.7", 50000),
        "scheme": "http",
        "method": method,
        "root_path": "",
        "path": unquote(raw),
        "raw_path": raw.encode("latin-1", "replace"),
        "query_string": query.encode("latin-1", "replace"),
        "headers": pairs,
        "state": {},
    }
    return scope | more


def ask(
    app: Any,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | list[bytes | float] = b"",
    **more: Any,
) -> Answer:
    """Returns the answer to a request. Numbers in the body are seconds to wait between pieces."""
    return asyncio.run(ask_async(app, method, target, headers, body, **more))


async def ask_async(
    app: Any,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | list[bytes | float] = b"",
    **more: Any,
) -> Answer:
    """Returns the answer to a request, inside a running loop."""
    answer = Answer()
    pieces = list(body) if isinstance(body, list) else [body]
    headers = list(headers)
    names = {name.lower() for name, _ in headers}
    if pieces != [b""] and not names & {"content-length", "transfer-encoding"}:
        headers.append(("content-length", str(sum(len(p) for p in pieces if type(p) is bytes))))
    left = asyncio.Event()

    async def receive() -> dict[str, Any]:
        while pieces and not isinstance(pieces[0], bytes):
            await asyncio.sleep(pieces.pop(0))  # type: ignore[arg-type]
        if pieces:
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert answer.status == 0, "an answer began twice"
            answer.status, answer.headers = message["status"], list(message["headers"])
        elif message["type"] == "websocket.close":
            answer.status = message["code"]
        else:
            assert answer.status and not answer.complete, "a body after its end"
            answer.body += message.get("body", b"")
            answer.complete = not message.get("more_body", False)
            if answer.complete:
                left.set()

    await app(scope_of(method, target, headers, **more), receive, send)
    return answer
