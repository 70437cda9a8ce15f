"""Reads the parts of an ASGI request that the access checks need."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any


def header_values(scope: MutableMapping[str, Any], name: bytes) -> list[bytes]:
    """Returns the values of a header, in their order. `name` is in lower case."""
    return [value for key, value in scope["headers"] if key == name]


def header_text(scope: MutableMapping[str, Any], name: bytes) -> str:
    """Returns the value of a header, several joined by commas, or an empty string."""
    return b", ".join(header_values(scope, name)).decode("latin-1").strip()


def route_path(scope: MutableMapping[str, Any]) -> str:
    """Returns the path below the prefix that a proxy serves the studio under."""
    path, prefix = scope["path"], scope.get("root_path", "")
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path


def client_address(scope: MutableMapping[str, Any]) -> str:
    """Returns the address of the client, or an empty string on a Unix socket."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def has_body(scope: MutableMapping[str, Any]) -> bool:
    """Returns whether the client announces a body."""
    length = header_text(scope, b"content-length")
    return length not in ("", "0") or bool(header_values(scope, b"transfer-encoding"))


def declared_length(scope: MutableMapping[str, Any]) -> int | None:
    """Returns the body's length in bytes that the client announces, or None without one.

    A length that is not a number counts as -1.
    """
    text = header_text(scope, b"content-length")
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
