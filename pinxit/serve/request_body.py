"""Reads the body of a request: JSON, or a form with files, both within bounds.

FastAPI's own reading is not used, because it answers a NaN with status 500, repeats the body in its
errors, and reads bodies of any size.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from pinxit.config import UsageError
from pinxit.serve.errors import RefusedRequest
from pinxit.text_decoding import valid_unicode

JSON_BYTES = 2**20
"""The largest number of bytes of a JSON body without pictures."""
PICTURE_BYTES = 20 * 2**20
"""The largest number of bytes of a body with pictures."""
DEEPEST = 16
"""The largest number of lists and objects around a value of JSON."""
LONGEST_TEXT = 100_000
"""The largest number of characters of a text that is not ASCII. Files are ASCII, in base64."""
MOST_VALUES = 2000
"""The largest number of values of a JSON body."""
PICTURE = b'"data:image'
"""The beginning of a picture in JSON."""
DROP_BYTES, DROP_SECONDS = 2**27, 5.0
"""The number of bytes, and of seconds, that the rest of a body that is too large is read for."""
FORM_FIELDS, FORM_FILES = 64, 4
"""The largest number of texts and of files of a form."""
FORM_TEXT = 2**18
"""The largest number of bytes of a text of a form."""


@dataclass(frozen=True)
class FormBody:
    """The content of a form."""

    texts: dict[str, str | list[str]]
    """The texts by the names of their fields, lists for names that end in ``[]``."""
    files: dict[str, list[tuple[str, bytes]]]
    """The names and the contents of the files, by the names of their fields."""


async def read_json(request: Request, *, most: int = JSON_BYTES) -> dict[str, Any]:
    """Returns the object of JSON in a body of at most `most` bytes.

    A body of more than `JSON_BYTES` has a picture, whose data URL begins within these bytes, since
    prompts are shorter. Other large bodies are refused before they fill the memory.
    """
    _check_type(request, "application/json")
    body, chunks = bytearray(), _bounded(request, most)
    async for chunk in chunks:
        large = len(body) <= JSON_BYTES < len(body) + len(chunk)
        body += chunk
        if large and PICTURE not in body:
            body.clear()
            await _drop_soon(chunks)
            raise _too_large(JSON_BYTES)
    return parse_json(body)


def parse_json(body: bytes | bytearray) -> dict[str, Any]:
    """Returns an object of JSON whose numbers are finite and whose texts are valid Unicode."""
    if not body or body.isspace():
        raise _bad("the body is empty; valid: a JSON object")
    _check_shape(body)
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_finite, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise _bad("the body is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise _bad(f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise _bad("the body is not a JSON object")
    _check_texts(value)
    return value


async def read_form(request: Request, *, most: int = PICTURE_BYTES) -> FormBody:
    """Returns the texts and the files of a form whose body has at most `most` bytes."""
    _check_type(request, "multipart/form-data")
    parser = MultiPartParser(
        request.headers,
        _bounded(request, most),
        max_files=FORM_FILES,
        max_fields=FORM_FIELDS,
        max_part_size=FORM_TEXT,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, LookupError) as error:
        text = getattr(error, "message", "it cannot be read")
        raise _bad(f"the form is broken: {text}") from error
    try:
        texts: dict[str, str | list[str]] = {}
        files: dict[str, list[tuple[str, bytes]]] = {}
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                content = (value.filename or "", await value.read())
                files.setdefault(name.removesuffix("[]"), []).append(content)
            elif name.endswith("[]"):
                several = texts.setdefault(name.removesuffix("[]"), [])
                if isinstance(several, list):
                    several.append(value)
            elif name in texts:
                raise _bad(f"the form has the field {name} twice", param=name)
            else:
                texts[name] = value
    finally:
        await form.close()
    _check_texts({**texts, "names": [name for parts in files.values() for name, _ in parts]})
    return FormBody(texts, files)


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """Yields the chunks of a body, or refuses one of more than `most` bytes.

    The rest of such a body is read and dropped, as far as it comes soon, because a client that
    still writes when the connection closes does not see the answer.
    """
    announced = request.headers.get("content-length", "")
    too_large = announced.isdecimal() and (len(announced) > 15 or int(announced) > most)
    total, chunks = 0, request.stream()
    async for chunk in chunks:
        total += len(chunk)
        if too_large or total > most:
            await _drop_soon(chunks)
            raise _too_large(most)
        yield chunk


async def _drop_soon(chunks: AsyncIterator[bytes]) -> None:
    """Reads and drops the rest of a body, for a limited time."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(_drop(chunks), DROP_SECONDS)


async def _drop(chunks: AsyncIterator[bytes]) -> None:
    """Reads the rest of a body, up to `DROP_BYTES`."""
    total = 0
    async for chunk in chunks:
        total += len(chunk)
        if total > DROP_BYTES:
            return


def _check_type(request: Request, expected: str) -> None:
    """Refuses a body of another content type than the expected one."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != expected:
        message = f"content-type: {kind or 'nothing'} is not accepted; valid: {expected}"
        raise RefusedRequest(415, message, param="content-type")


def _check_shape(body: bytes | bytearray) -> None:
    """Refuses JSON that nests deeply, or has so many values that they would fill the memory.

    Brackets and commas inside of texts count too, which is without harm for texts of usual length.
    """
    if body.count(b"[") + body.count(b"{") > MOST_VALUES:
        raise _bad(f"the body has more than {MOST_VALUES} brackets")
    if body.count(b",") + body.count(b":") > 32 * MOST_VALUES:
        raise _bad(f"the body has more than {32 * MOST_VALUES} commas and colons")


def _check_texts(value: Any, depth: int = 0) -> None:
    """Refuses texts with lone surrogates, which no file can store, and values that nest deeply."""
    if depth > DEEPEST:
        raise _bad(f"the body has values inside of more than {DEEPEST} others")
    if isinstance(value, str) and not value.isascii():
        if len(value) > LONGEST_TEXT:
            raise _bad(f"the body has a text of more than {LONGEST_TEXT:,} characters")
        if valid_unicode(value) != value:
            raise _bad("the body has a text that is not valid Unicode (a lone surrogate)")
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_texts(name, depth)
            _check_texts(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_texts(inner, depth + 1)


def _finite(text: str) -> float:
    """Parses a number of JSON, or raises `UsageError` if it is not finite."""
    number = float(text)
    if not math.isfinite(number):
        raise UsageError(f"{text[:40]} is not a finite number")
    return number


def _bad(message: str, *, param: str | None = None) -> RefusedRequest:
    return RefusedRequest(400, message, param=param, code="invalid_body")


def _too_large(most: int) -> RefusedRequest:
    message = f"the body is too large; valid: at most {most:,} bytes"
    return RefusedRequest(413, message, headers={"Connection": "close"})
