"""The answers to requests that fail, all in the form of OpenAI's API.

::

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

An answer has at most `LONGEST` bytes, whatever the request was, and says nothing about the server's
insides: the traceback of a bug is in the server's log alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from pinxit.config import UsageError
from pinxit.serve.engine.jobs import Draining, QueueFull
from pinxit.text_decoding import valid_unicode

LONGEST = 4096
"""The largest number of bytes of an answer."""
MESSAGE, NAME = 1200, 100
"""The largest number of characters of a message, and of the name of a field or a code."""
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""The error types of statuses that have their own; others depend on the hundreds alone."""
FIELD = re.compile(r"([a-z_][\w.-]*): ", re.ASCII)
"""The beginning of a `UsageError` that names a field."""
CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    415: "unsupported_media_type",
    500: "internal_error",
    503: "unavailable",
}
"""The codes of statuses whose errors name no other."""


class RefusedRequest(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers


def error_content(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Returns the JSON object of an error. Long texts lose their middle."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {
        "error": {
            "message": shorten(message, MESSAGE),
            "type": kind,
            "param": None if param is None else shorten(param, NAME),
            "code": CODES.get(status) if code is None else shorten(code, NAME),
        }
    }


def error_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Returns the answer with an error."""
    content = error_content(status, message, param=param, code=code)
    body = json.dumps(content, ensure_ascii=False).encode()
    if len(body) > LONGEST:  # many characters that JSON escapes, or of several bytes
        content["error"]["message"] = shorten(message, MESSAGE // 6)
        body = json.dumps(content, ensure_ascii=False).encode()
    return Response(body, status, dict(headers or {}), media_type="application/json")


def shorten(text: str, length: int) -> str:
    """Returns a text of at most this length in valid Unicode, with "..." in place of its middle."""
    if len(text) > length:
        half = (length - 3) // 2
        text = f"{text[:half]}...{text[-half:]}"
    return valid_unicode(text)


def refusal_of(error: Exception) -> RefusedRequest | None:
    """Returns the answer to an error that the client can act on, or None for a bug."""
    if isinstance(error, RefusedRequest):
        return error
    if isinstance(error, UsageError):
        field = FIELD.match(str(error))
        param = field[1] if field else None
        return RefusedRequest(400, str(error), param=param, code="invalid_value")
    if isinstance(error, QueueFull):
        again = {"Retry-After": str(error.retry_after)}
        return RefusedRequest(429, str(error), code="queue_full", headers=again)
    if isinstance(error, Draining):
        message = str(error) or "the server is ending and takes no more requests"
        return RefusedRequest(503, message, headers={"Retry-After": "30"})
    if isinstance(error, RequestValidationError):
        return invalid_fields(error)
    if isinstance(error, HTTPException):
        return RefusedRequest(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, ClientDisconnect):  # the answer is not read
        return RefusedRequest(400, "the client left", code="client_left")
    return None


def invalid_fields(error: RequestValidationError | ValidationError) -> RefusedRequest:
    """Returns the answer for values that do not fit the types of their fields."""
    first = error.errors()[0]
    places = [str(part) for part in first["loc"] if part not in ("query", "path", "body")]
    field = ".".join(places[:2])
    missing = first["type"] == "missing"
    problem = "it is missing" if missing else first["msg"].removeprefix("Value error, ")
    code = "missing_required_parameter" if missing else "invalid_value"
    return RefusedRequest(400, f"{field}: {problem}", param=field, code=code)


def _allowed(request: Request) -> str:
    """Returns the methods of all routes with the path of a request, for the header Allow."""
    methods: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] != Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(methods))


async def answer_error(request: Request, error: Exception) -> Response:
    """Returns the answer to a request that raised an exception."""
    refused = refusal_of(error)
    if refused is None:
        return error_response(500, "an error in the server; its log says more")
    message, headers = refused.message, dict(refused.headers or {})
    if refused.status == 404 and message == "Not Found":
        message = "there is nothing at this address; valid: the addresses in /openapi.json"
    if refused.status == 405:
        headers["Allow"] = _allowed(request)
        message = f"{request.method} is not possible here; valid: {headers['Allow']}"
    return error_response(
        refused.status, message, param=refused.param, code=refused.code, headers=headers
    )


def answer_errors(app: FastAPI) -> None:
    """Makes an application answer every error in this form."""
    kinds = (
        *(RefusedRequest, UsageError, QueueFull, Draining, RequestValidationError),
        *(HTTPException, ClientDisconnect, Exception),
    )
    for kind in kinds:
        app.add_exception_handler(kind, answer_error)
    _leave_out_422(app)


def _leave_out_422(app: FastAPI) -> None:
    """Removes FastAPI's own form of errors from the OpenAPI document, since it is never answered.

    A route with parameters answers wrong ones with status 400.
    """
    whole = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = whole()
            for operations in described["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                described.get("components", {}).get("schemas", {}).pop(name, None)
        return whole()

    app.openapi = document  # type: ignore[method-assign]
