"""Compares an uploaded file with its local copy by the checksum that a store keeps.

S3 and Google Cloud Storage keep an MD5. S3 has one of each part for a file that was sent in parts,
and the MD5 of those. With some kinds of encryption its ETag is none, so that a different one alone
proves nothing: the file is then read back.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = 2**20


@dataclass(frozen=True)
class Digests:
    """The checksums of a local file."""

    size: int
    md5: str
    """The MD5 in hex digits."""
    in_parts: str
    """The MD5 of the MD5s of its parts, in hex digits, a hyphen, and the number of parts."""


def digests_of(path: Path, *, part_bytes: int) -> Digests:
    """Reads a file once and returns its checksums, in parts of that many bytes."""
    whole, size, parts = _md5(), 0, []
    with path.open("rb") as file:
        while True:
            part, left = _md5(), part_bytes
            while left and (block := file.read(min(BLOCK, left))):
                part.update(block)
                whole.update(block)
                left -= len(block)
            if left == part_bytes:
                break
            parts.append(part.digest())
            size += part_bytes - left
    together = _md5(b"".join(parts)).hexdigest()
    return Digests(size, whole.hexdigest(), f"{together}-{len(parts)}")


def matches(info: Mapping[str, Any], digests: Digests) -> bool | None:
    """Returns whether the checksum in fsspec's `info` of a file is one of the `digests`, or None if
    the store keeps none."""
    etag = str(info.get("ETag") or "").strip('"').lower()
    if re.fullmatch(r"[0-9a-f]{32}(-\d+)?", etag):
        return etag in (digests.md5, digests.in_parts)
    if isinstance(stored := info.get("md5Hash"), str):
        return base64.b64decode(stored).hex() == digests.md5
    return None


def _md5(content: bytes = b"") -> Any:
    return hashlib.md5(content, usedforsecurity=False)
