"""Small tar archives, as img2dataset writes them."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

JPEG = b"\xff\xd8\xff\xe0 not a real picture"


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(key: str, **about) -> list[tuple[str, bytes]]:
    """The three members of one of img2dataset's samples."""
    known = {"url": f"http://a/{key}", "caption": f"json {key}", "key": key, "status": "success"}
    known |= {"width": 256, "height": 384, "original_width": 2560, "sha256": "0", **about}
    texts = [(f"{key}.json", json.dumps(known).encode()), (f"{key}.txt", f"text {key}".encode())]
    return [(f"{key}.jpg", JPEG + key.encode()), *texts]
