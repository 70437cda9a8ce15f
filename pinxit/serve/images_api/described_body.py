"""Describes bodies for the OpenAPI document, since the routes read them without FastAPI."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

FILE = {"type": "string", "format": "binary"}
"""The schema of a file in a form."""


def json_body(cls: type[BaseModel]) -> dict[str, Any]:
    """Returns the addition to a route's description for a body of JSON."""
    return _body("application/json", cls.model_json_schema())


def form_body(cls: type[BaseModel], **files: str) -> dict[str, Any]:
    """Returns the addition to a route's description for a form with files.

    `files` has the description of each file; the first is required.
    """
    schema = cls.model_json_schema()
    for name, text in files.items():
        schema["properties"][name] = {**FILE, "description": text}
    schema["required"] = [*schema["required"], next(iter(files))]
    return _body("multipart/form-data", schema)


def _body(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    content = {kind: {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}
