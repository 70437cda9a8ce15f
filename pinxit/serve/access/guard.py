"""Composes the layers that protect the app, in the order in which a request passes them."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from pinxit.serve.access.access_rules import AccessRules
from pinxit.serve.access.access_token import AccessToken
from pinxit.serve.access.body_limits import BodyLimits
from pinxit.serve.access.origin_gate import OriginGate
from pinxit.serve.access.request_shape import RequestShape
from pinxit.serve.access.response_headers import ResponseHeaders
from pinxit.serve.access.stream_endings import StreamEndings
from pinxit.serve.access.token_gate import TokenGate


class StudioGuard:
    """Protects an app by the rules.

    From the outside in: headers of answers, streams that end with the server, the request's shape,
    its host and origin, the token, and its body.
    """

    def __init__(self, app: ASGIApp, rules: AccessRules, token: AccessToken | None) -> None:
        self.root_path = rules.root_path
        inner: ASGIApp = BodyLimits(app, rules.sizes)
        if token is not None:
            inner = TokenGate(inner, rules, token)
        shape = RequestShape(OriginGate(inner, rules))
        self.streams = StreamEndings(shape)
        self._outer = ResponseHeaders(self.streams)

    async def end_streams(self) -> int:
        """Ends the open streams of events, each with a last event, and returns their number."""
        return await self.streams.end_all()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.root_path and not scope.get("root_path"):
            scope["root_path"] = self.root_path
        await self._outer(scope, receive, send)


def guard(app: FastAPI, rules: AccessRules) -> None:
    """Puts the layers around an app, outside of its own handling of errors.

    The app's state gets the `token`, and once the app has started, the `guard`.
    """
    token = None if rules.token is None else AccessToken(rules.token)
    app.state.token = token
    build = app.build_middleware_stack

    def build_guarded() -> ASGIApp:
        app.state.guard = StudioGuard(build(), rules, token)
        return app.state.guard

    app.build_middleware_stack = build_guarded  # type: ignore[method-assign]
