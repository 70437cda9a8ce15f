"""Counts requests and measures their time, by route."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OTHER = "other"
"""The label of requests that fit no route."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that are labels. Any other is called `OTHER`, since a client can send any word."""


class RequestCounts:
    """Counts the requests that an app answers."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        self.requests = Counter(
            "pinxit_http_requests",
            "Requests by route and status",
            ["method", "route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "pinxit_http_request_seconds",
            "Seconds until an answer begins, by route",
            ["route"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", None) or OTHER
                method = scope["method"] if scope["method"] in METHODS else OTHER
                self.requests.labels(method, route, str(message["status"])).inc()
                self.seconds.labels(route).observe(time.perf_counter() - start)
            await send(message)

        await self.app(scope, receive, counted)
