"""Adds the security headers to every answer."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pinxit.serve.access.content_policy import FIXED, POLICY, policy_for

NOT_MODIFIED = 304
"""The status of an answer without content. A browser puts its headers in place of those of the
answer that it has stored, so it must not carry the policy of another media type."""


class ResponseHeaders:
    """Adds the headers to the answers of an app, also to its errors and refusals.

    A route may forbid more in a Content-Security-Policy of its own: browsers apply both. Answers
    are not stored in caches unless their route allows it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        starts = ("http.response.start", "websocket.http.response.start")

        async def send_with_headers(message: Message) -> None:
            if message["type"] in starts:
                headers = secured(list(message.get("headers", [])), scope.get(POLICY))
                if message["status"] == NOT_MODIFIED:
                    headers = [pair for pair in headers if pair[0] != b"content-security-policy"]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_headers)


def secured(headers: list[tuple[bytes, bytes]], policy: str | None) -> list[tuple[bytes, bytes]]:
    """Returns the headers of an answer with those that protect it. `policy` is the one that a layer
    has asked for, or None for that of the media type."""
    names = {name.lower() for name, _ in headers}
    media_type = next((v for name, v in headers if name.lower() == b"content-type"), b"")
    chosen = policy or policy_for(media_type.decode("latin-1"))
    others = [(name, value) for name, value in headers if name.lower() not in FIXED]
    extra = [(b"content-security-policy", chosen.encode()), *FIXED.items()]
    if b"cache-control" not in names:
        extra.append((b"cache-control", b"no-store"))
    return [*others, *extra]
