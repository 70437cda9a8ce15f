"""The checksums by which an upload is compared with the local file."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from pinxit.data.stores.upload_check import digests_of, matches


@pytest.mark.parametrize("size", [0, 1, 10, 11, 20, 25])
def test_the_checksums_of_a_file_and_of_its_parts(tmp_path: Path, size: int):
    content = bytes(range(size))
    (tmp_path / "a").write_bytes(content)
    digests = digests_of(tmp_path / "a", part_bytes=10)
    parts = [hashlib.md5(content[at : at + 10]).digest() for at in range(0, size, 10)]
    assert digests.size == size and digests.md5 == hashlib.md5(content).hexdigest()
    assert digests.in_parts == f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}"


def test_what_a_store_says_of_a_file_is_compared(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"content")
    digests = digests_of(tmp_path / "a", part_bytes=3)
    assert matches({"ETag": f'"{digests.md5}"'}, digests) is True
    assert matches({"ETag": f'"{digests.in_parts}"'}, digests) is True
    assert matches({"ETag": f'"{"0" * 32}"'}, digests) is False
    google = base64.b64encode(hashlib.md5(b"content").digest()).decode()
    assert matches({"md5Hash": google, "etag": "CJ/x"}, digests) is True
    assert matches({"md5Hash": base64.b64encode(b"0" * 16).decode()}, digests) is False
    assert matches({"ETag": '"0x8DC"'}, digests) is None and matches({}, digests) is None
