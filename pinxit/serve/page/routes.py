"""Routes of the page and its assets, which are read once when the server starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response

import pinxit
from pinxit.serve.studio import Studio

FOLDER = Path(pinxit.__file__).parent / "assets" / "studio"
"""The folder of the page's files."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
"""The media types of the page's files."""


@dataclass(frozen=True)
class Asset:
    """One file of the page."""

    content: bytes
    """The file's bytes."""
    media_type: str
    """The media type that browsers are told."""
    tag: str
    """A hash of the content, for browsers that have it already."""


def page_assets(folder: Path = FOLDER) -> dict[str, Asset]:
    """Returns the page's files by their path below the folder."""
    assets = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            name = path.relative_to(folder).as_posix()
            assets[name] = Asset(content, TYPES[path.suffix], tag)
    return assets


def add_to(app: FastAPI, studio: Studio) -> None:
    """Adds the routes of the page."""
    assets = page_assets()

    def answer(request: Request, name: str) -> Response:
        asset = assets.get(name)
        if asset is None:
            raise HTTPException(404, "there is no such file")
        headers = {"ETag": asset.tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == asset.tag:
            return Response(status_code=304, headers=headers)
        return Response(asset.content, media_type=asset.media_type, headers=headers)

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        """Returns the page."""
        return answer(request, "index.html")

    @app.get("/assets/{name:path}", include_in_schema=False)
    async def asset(request: Request, name: str) -> Response:
        """Returns a file of the page."""
        return answer(request, name)
