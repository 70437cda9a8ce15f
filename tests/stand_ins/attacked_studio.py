"""A studio whose folders hold what an attacker may have put there, and a secret beside them."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asgi_client import Answer, ask
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from PIL import Image

from pinxit.picture_files import save_picture
from pinxit.serve.app import create_app
from pinxit.serve.settings import StudioConfig

SECRET = b"the-secret-that-nobody-may-read"
"""The content of the files that no answer may contain."""
RECIPE: dict[str, Any] = {
    **{"prompt": "p", "seed": 1, "size": [16, 16], "steps": 1, "solver": "euler"},
    **{"guidance_scale": 1.0, "model_hash": "", "model": "m", "version": "1"},
}
"""A recipe of the picture in the gallery."""


@dataclass(frozen=True)
class Attacked:
    """The studio under attack, and the folder that holds everything."""

    app: FastAPI
    root: Path

    def ask(self, method: str, target: str, *arguments: Any, **options: Any) -> Answer:
        """Returns the answer to a request from this computer."""
        options.setdefault("client", ("127.0.0.1", 40000))
        return ask(self.app, method, target, *arguments, **options)

    def routes(self) -> list[tuple[str, str]]:
        """Returns the method and the path of every route of the app."""
        pairs = [
            (method, context.path)
            for context in iter_route_contexts(self.app.routes)
            for method in context.methods or ()
        ]
        return sorted(pairs)

    def files(self) -> dict[str, bytes | str]:
        """Returns the content of every file below the root, and the target of every link."""
        found: dict[str, bytes | str] = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                found[name] = os.readlink(path)
            elif path.is_file():
                found[name] = path.read_bytes()
        return found


def attacked(root: Path, **settings: Any) -> Attacked:
    """Fills a folder and returns the studio that shows it."""
    secret = root / "secret"
    secret.mkdir()
    for name in ("canary.txt", "canary.png", "config.json", "metrics.jsonl", "report.json"):
        (secret / name).write_bytes(SECRET)
    picture = Image.new("RGB", (16, 16), "red")
    folders = {name: root / name for name in ("outputs", "runs", "data")}
    for folder in folders.values():
        folder.mkdir()
        (folder / "link.png").symlink_to(secret / "canary.png")
        (folder / "relative.png").symlink_to("../secret/canary.png")
        (folder / "linked").symlink_to(secret, target_is_directory=True)
        (folder / "loop").symlink_to(folder / "loop")
    save_picture(folders["outputs"], picture, RECIPE)
    run = folders["runs"] / "honest"
    (run / "samples").mkdir(parents=True)
    (run / "samples" / "link.png").symlink_to(secret / "canary.png")
    picture.save(run / "samples" / "step-000001.png")
    (run / "config.json").write_text(json.dumps({"name": "honest"}))
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    linked = folders["runs"] / "linked-files"
    linked.mkdir()
    for name in ("config.json", "metrics.jsonl", "report.json"):
        (linked / name).symlink_to(secret / name)
    options = {"runs": str(folders["runs"]), "out": str(folders["outputs"])}
    config = StudioConfig(**{**options, "data": (str(folders["data"]),), **settings})
    return Attacked(create_app(config), root)


def png(
    width: int = 16, height: int = 16, *chunks: tuple[bytes, bytes], data: bytes = b""
) -> bytes:
    """Returns a PNG file that claims a size, with further chunks after its header."""
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = data or zlib.compress(b"\0" * ((width * 3 + 1) * height if width < 100 else 10))
    middle = b"".join(chunk(*one) for one in chunks)
    return b"\x89PNG\r\n\x1a\n" + head + middle + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
