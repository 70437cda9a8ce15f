"""Refuses requests that a foreign web page makes through its visitor's browser.

The host is checked, so that a page cannot point its own name at this server (DNS rebinding). The
origin, and the headers in which a browser says where a request comes from, are checked on every
request: a foreign page may link to the studio, but not load from it or send to it.
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pinxit.serve.access.access_rules import ORIGIN, PORTS, AccessRules, plain_origin
from pinxit.serve.access.refusal import Refusal, refuse
from pinxit.serve.access.request_parts import header_text, header_values

HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?::(\d{1,5}))?")
"""The header Host: a name or an address, and a port."""
OWN = ("same-origin", "none")
"""The values of Sec-Fetch-Site for the studio's own page, and for addresses that a user types."""
METHODS = b"GET, HEAD, POST, DELETE"
"""The methods that pages of accepted origins may use."""


class OriginGate:
    """Passes requests of this server's own pages, of programs, and of accepted origins."""

    def __init__(self, app: ASGIApp, rules: AccessRules) -> None:
        self.app = app
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self.host_problem(scope) or self.origin_problem(scope)
        if refusal is not None:
            await refuse(refusal, scope, receive, send)
            return
        origin = plain_origin(header_text(scope, b"origin").lower())
        if origin not in self.rules.origins:
            await self.app(scope, receive, send)
        elif scope.get("method") == "OPTIONS":
            await _answer_preflight(scope, origin, send)
        else:
            await self.app(scope, receive, _shared_with(origin, send))

    def host_problem(self, scope: Scope) -> Refusal | None:
        """Returns the refusal of a request for another host, or None."""
        text = header_text(scope, b"host").lower()
        match = HOST.fullmatch(text)
        if match is not None and self.rules.accepts_host(match[1].strip("[]")):
            return None
        message = f"this server is not {text[:100]!r}; start it with --allow_host NAME if it is"
        return Refusal(421, message, "unknown_host")

    def origin_problem(self, scope: Scope) -> Refusal | None:
        """Returns the refusal of a request that a foreign page makes, or None."""
        site = header_text(scope, b"sec-fetch-site").lower()
        if header_values(scope, b"origin"):
            origin = header_text(scope, b"origin").lower()
            if plain_origin(origin) in self.rules.origins:
                return None
            own = same_origin(origin, header_text(scope, b"host").lower())
            return None if own and site in ("", *OWN) else _foreign(origin)
        if site in ("", *OWN) or _is_visit(scope):
            return None
        return _foreign(site)


def same_origin(origin: str, host: str) -> bool:
    """Returns whether an origin is the page of a host. A proxy may add or remove encryption, so the
    scheme is not compared."""
    page, server = ORIGIN.fullmatch(origin), HOST.fullmatch(host)
    if page is None or server is None or page[2].rstrip(".") != server[1]:
        return False
    implied = str(PORTS[page[1]])
    return (page[3] or implied) == (server[2] or implied)


def _is_visit(scope: Scope) -> bool:
    """Returns whether a user follows a link to the studio, which opens it as a page of its own."""
    fetch = [header_text(scope, b"sec-fetch-" + name) for name in (b"mode", b"dest")]
    return scope.get("method") in ("GET", "HEAD") and fetch == ["navigate", "document"]


def _foreign(origin: str) -> Refusal:
    message = f"requests from {origin[:100]!r} are refused; --allow_origin accepts a page's origin"
    return Refusal(403, message, "foreign_origin")


def _shared_with(origin: str, send: Send) -> Send:
    """Returns a `send` that lets pages of the origin read the answer."""
    shared = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"retry-after"),
        (b"vary", b"Origin"),
    ]

    async def send_shared(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *shared]}
        await send(message)

    return send_shared


async def _answer_preflight(scope: Scope, origin: str, send: Send) -> None:
    """Tells a browser which requests a page of the origin may make."""
    asked = header_text(scope, b"access-control-request-headers")
    names = asked if re.fullmatch(r"[A-Za-z0-9, _-]{0,2000}", asked) else ""
    headers = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", names.encode("latin-1")),
        (b"access-control-max-age", b"600"),
        (b"vary", b"Origin"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
