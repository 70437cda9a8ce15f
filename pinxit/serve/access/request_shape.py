"""Refuses requests whose address or headers no honest client sends."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from pinxit.serve.access.refusal import Refusal, refuse
from pinxit.serve.access.request_parts import header_values

LONGEST_PATH = 2048
"""Bytes of a path."""
LONGEST_QUERY = 8192
"""Bytes of a query."""
LARGEST_HEADERS = 32 * 1024
"""Bytes of all headers together."""
MOST_HEADERS = 100
"""Number of headers."""


def shape_problem(scope: Scope) -> Refusal | None:
    """Returns the refusal of a malformed request, or None."""
    if scope.get("http_version", "1.1") not in ("1.0", "1.1", "2", "3"):
        return _closing(400, "this version of HTTP is unknown", "invalid_http")
    raw = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    if len(raw) > LONGEST_PATH or len(scope.get("query_string", b"")) > LONGEST_QUERY:
        return _closing(414, "the address is too long", "address_too_long")
    headers = scope["headers"]
    if len(headers) > MOST_HEADERS or sum(len(k) + len(v) for k, v in headers) > LARGEST_HEADERS:
        return _closing(431, "the headers are too large", "headers_too_large")
    if path_is_strange(scope["path"]) and scope["path"] != "*":
        return _closing(400, "the address is not a plain path", "invalid_path")
    if any(len(header_values(scope, name)) > 1 for name in (b"host", b"origin", b"authorization")):
        return _closing(400, "a header is repeated that must not be", "repeated_header")
    return None


def _closing(status: int, message: str, code: str) -> Refusal:
    """Returns a refusal after which the connection ends."""
    return Refusal(status, message, code, close=True)


def path_is_strange(path: str) -> bool:
    """Returns whether a decoded path has control characters, backslashes, or dots that leave it."""
    if not path.startswith("/") or "\\" in path or any(ord(c) < 32 or ord(c) == 127 for c in path):
        return True
    return any(part in (".", "..") for part in path.split("/"))


class RequestShape:
    """Passes well-formed requests to an app."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = shape_problem(scope) if scope["type"] in ("http", "websocket") else None
        if problem is not None:
            await refuse(problem, scope, receive, send)
        else:
            await self.app(scope, receive, send)
