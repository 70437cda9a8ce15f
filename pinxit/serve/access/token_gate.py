"""Refuses every request without the token, except the one that asks whether the server lives."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from urllib.parse import parse_qs, parse_qsl, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send

from pinxit.serve.access.access_rules import AccessRules
from pinxit.serve.access.access_token import COOKIE_SECONDS, AccessToken
from pinxit.serve.access.content_policy import POLICY
from pinxit.serve.access.failed_attempts import FailedAttempts
from pinxit.serve.access.refusal import Refusal, end_of_body, refuse
from pinxit.serve.access.request_parts import client_address, header_text, route_path
from pinxit.serve.access.sign_in_page import POLICY_OF_PAGE, SIGN_IN, sign_in_page

OPEN_PATHS = frozenset({"/health"})
"""Paths that need no token."""
LONGEST_FORM = 4096
"""Bytes of the form with the token."""
FORM_SECONDS = 10.0
"""Seconds in which the form must arrive."""
SLOW_SECONDS = 1.0
"""Seconds by which a wrong token is answered late once its address has shown too many."""
BEARER = b"bearer "
"""The beginning of the header Authorization, in lower case."""


class TokenGate:
    """Passes requests with the token, or with the cookie that it was exchanged for."""

    def __init__(self, app: ASGIApp, rules: AccessRules, token: AccessToken) -> None:
        self.app = app
        self.cookie = rules.cookie
        self.token = token
        self.attempts = FailedAttempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope) if scope["type"] in ("http", "websocket") else None
        if path is None or path in OPEN_PATHS:
            await self.app(scope, receive, send)
        elif scope.get("method") == "POST" and path == SIGN_IN:
            await self._sign_in(scope, receive, send)
        elif scope.get("method") == "GET" and path == "/" and _linked_token(scope) is not None:
            candidate = _linked_token(scope) or ""
            await self._exchange(candidate, scope, receive, send)
        elif self._has_cookie(scope):
            await self.app(scope, receive, send)
        else:
            await self._bearer(scope, receive, send)

    def _has_cookie(self, scope: Scope) -> bool:
        """Returns whether a cookie of the request is valid."""
        pairs = header_text(scope, b"cookie").replace(",", ";").split(";")
        cookies = [pair.strip().partition("=") for pair in pairs]
        values = [value for name, _, value in cookies if name == self.cookie]
        return any(self.token.accepts_cookie(value) for value in values[:4])

    async def _bearer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks the header Authorization."""
        text = header_text(scope, b"authorization").encode("latin-1")
        if not text.lower().startswith(BEARER):
            await refuse(self._no_token(scope), scope, receive, send)
            return
        refusal = await self._compared(text[len(BEARER) :].strip(), scope)
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await refuse(refusal, scope, receive, send)

    async def _compared(self, candidate: bytes, scope: Scope) -> Refusal | None:
        """Returns None for the right token, else the refusal, and counts the attempt."""
        address = client_address(scope)
        if (wait := self.attempts.wait_seconds(address)) > 0:
            return _too_many(wait)
        if self.token.matches(candidate):
            self.attempts.succeeded(address)
            return None
        await asyncio.sleep(min(SLOW_SECONDS, self.attempts.failed(address)))
        return self._no_token(scope, "the token is wrong")

    async def _exchange(self, text: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Sets the cookie for a token or a code in a link or a form, and goes to the page."""
        candidate = text.encode("utf-8", "surrogatepass")
        address = client_address(scope)
        by_code = self.attempts.wait_seconds(address) == 0 and self.token.takes_code(candidate)
        refusal = None if by_code else await self._compared(candidate, scope)
        if refusal is not None:
            await refuse(refusal, scope, receive, send)
            return
        location = _without_token(scope)
        value = self.token.cookie()
        cookie = f"{self.cookie}={value}; Path={scope.get('root_path', '')}/; HttpOnly"
        cookie += f"; SameSite=Strict; Max-Age={COOKIE_SECONDS}"
        cookie += "; Secure" if scope.get("scheme") == "https" else ""
        headers = [(b"location", location.encode()), (b"set-cookie", cookie.encode())]
        headers.append((b"content-length", b"0"))
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _sign_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads the form with the token."""
        body, complete = await _read_form(receive)
        if not complete or len(body) > LONGEST_FORM:
            message = f"the form has more than {LONGEST_FORM} bytes, or comes too slowly"
            following = end_of_body if complete else receive
            await refuse(Refusal(413, message, "request_too_large"), scope, following, send)
            return
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
        await self._exchange(fields.get("token", [""])[0].strip(), scope, end_of_body, send)

    def _no_token(self, scope: Scope, problem: str = "") -> Refusal:
        """Returns the refusal of a request without the right token: a form for a browser."""
        message = f"{problem or 'this server needs its token'}: Authorization: Bearer TOKEN"
        headers = ((b"www-authenticate", b'Bearer realm="pinxit"'), (b"vary", b"Accept"))
        form = scope.get("method") in ("GET", "HEAD") or route_path(scope) == SIGN_IN
        page = None
        if form and "text/html" in header_text(scope, b"accept").lower():
            scope[POLICY] = POLICY_OF_PAGE
            page = sign_in_page(scope.get("root_path", ""), problem.capitalize())
        return Refusal(401, message, "invalid_api_key", headers, page)


def _too_many(wait: float) -> Refusal:
    seconds = math.ceil(wait)
    message = f"too many wrong tokens from this address; wait {seconds} seconds"
    return Refusal(429, message, "too_many_attempts", ((b"retry-after", str(seconds).encode()),))


def _linked_token(scope: Scope) -> str | None:
    """Returns the token in the address of a request, if there is one."""
    pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    return next((value for name, value in pairs if name == "token"), None)


def _without_token(scope: Scope) -> str:
    """Returns the address of the page, with the query of the request but for the token. It is
    relative, so it holds behind a proxy that serves the studio below another path."""
    pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    rest = urlencode([pair for pair in pairs if pair[0] != "token"])
    if route_path(scope) == SIGN_IN:
        return "../"
    return f"./?{rest}" if rest else "./"


async def _read_form(receive: Receive) -> tuple[bytes, bool]:
    """Returns the body of the form, and whether it is complete: it is too long otherwise, or too
    slow."""
    body = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(FORM_SECONDS):
            while len(body) <= LONGEST_FORM:
                message = await receive()
                if message["type"] != "http.request":
                    break
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    return body, True
    return body, False
