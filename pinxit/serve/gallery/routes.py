"""Routes of the gallery, of the forms' defaults, and of recipes in uploaded pictures."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Query, Request, Response
from PIL import Image
from starlette.concurrency import run_in_threadpool

from pinxit.picture_files import FORMATS
from pinxit.serve.engine.engine import DrawingEngine
from pinxit.serve.engine.jobs import Job
from pinxit.serve.engine.limits import MOST_CHARACTERS
from pinxit.serve.engine.prompt_cut import characters_read
from pinxit.serve.errors import error_response
from pinxit.serve.gallery import grid_routes
from pinxit.serve.gallery.folder import SUFFIXES, Gallery, PictureEntry, UnknownPicture
from pinxit.serve.gallery.form_defaults import form_defaults
from pinxit.serve.gallery.uploaded_picture import uploaded_recipe
from pinxit.serve.request_body import read_form, read_json_body
from pinxit.serve.studio import Studio

MOST_LISTED = 200
"""The largest number of pictures of one listing."""


def add_to(app: FastAPI, studio: Studio) -> None:
    """Adds the routes."""
    gallery = Gallery(studio.out)
    gallery.forget()
    app.add_exception_handler(UnknownPicture, _answer_missing)

    def store(job: Job, number: int, image: Image.Image, recipe: dict[str, Any]) -> str:
        return gallery.save(image, recipe)

    studio.engine.store = store
    _add_gallery(app, gallery)
    _add_files(app, gallery)
    _add_form(app, studio, gallery)
    grid_routes.add_grids(app, studio, gallery)


async def _answer_missing(request: Request, error: Exception) -> Response:
    """Returns the answer to a request for a picture that the gallery lacks."""
    return error_response(404, "there is no such picture in the gallery")


def listed_picture(gallery: Gallery, entry: PictureEntry) -> dict[str, Any]:
    """Returns a picture of the gallery as the page shows it."""
    path = f"/studio/gallery/{quote(entry.name, safe='')}"
    return {
        "name": entry.name,
        "version": entry.stamp,
        "url": f"{path}?v={entry.stamp}",
        "thumbnail": f"{path}/thumbnail?v={entry.stamp}",
        "created": entry.changed_ns / 1e9,
        **gallery.description(entry),
    }


def _add_gallery(app: FastAPI, gallery: Gallery) -> None:
    @app.get("/studio/gallery", tags=["studio"])
    def pictures(
        limit: int = Query(60, ge=1, le=MOST_LISTED),
        before: str | None = Query(None, max_length=300),
        name: str | None = Query(None, max_length=300),
    ) -> dict[str, Any]:
        """Lists pictures of the gallery, newest first: those behind the picture `before`, or the
        one of a `name`, if there is one."""
        if name is not None:
            entries = [entry for entry in gallery.entries() if entry.name == name]
            return {"pictures": [listed_picture(gallery, each) for each in entries]}
        entries, more = gallery.page(limit, before=before)
        listed = []
        for entry in entries:
            try:
                listed.append(listed_picture(gallery, entry))
            except UnknownPicture:  # removed meanwhile
                continue
        return {"pictures": listed, "more": more, "folder": str(gallery.folder)}

    @app.delete("/studio/gallery/{name}", tags=["studio"])
    def delete(name: str) -> dict[str, Any]:
        """Deletes a picture. For an hour it can be restored."""
        gallery.delete(name)
        return {"deleted": name}

    @app.post("/studio/gallery/{name}/restore", tags=["studio"])
    def restore(name: str) -> dict[str, Any]:
        """Puts a deleted picture back."""
        return {"name": gallery.restore(name)}


def _add_files(app: FastAPI, gallery: Gallery) -> None:
    @app.get("/studio/gallery/{name}", tags=["studio"], response_class=Response)
    def picture(
        request: Request, name: str, format: Literal["png", "webp", "jpeg"] | None = None
    ) -> Response:
        """Returns the file of a picture, or the picture in another format with its recipe."""
        entry = gallery.entry(name)
        tag = f'"{entry.stamp}-{format or entry.format}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=_cached(tag))
        if format in (None, entry.format):
            return Response(gallery.read(entry), media_type=entry.media_type, headers=_cached(tag))
        data = gallery.converted(entry, str(format))
        kind = SUFFIXES[FORMATS[str(format)].suffix]
        return Response(data, media_type=kind, headers=_cached(tag))

    @app.get("/studio/gallery/{name}/thumbnail", tags=["studio"], response_class=Response)
    def thumbnail(request: Request, name: str) -> Response:
        """Returns a small picture for the gallery."""
        entry = gallery.entry(name)
        tag = f'"{entry.stamp}-thumbnail"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=_cached(tag))
        return Response(gallery.thumbnail(entry), media_type="image/webp", headers=_cached(tag))


def _cached(tag: str) -> dict[str, str]:
    """Returns headers that let a browser keep a file, and ask whether it has changed."""
    return {"ETag": tag, "Cache-Control": "private, no-cache"}


def _add_form(app: FastAPI, studio: Studio, gallery: Gallery) -> None:
    @app.get("/studio/defaults", tags=["studio"])
    def defaults() -> dict[str, Any]:
        """Returns what the forms need: models, defaults and limits."""
        return form_defaults(studio)

    @app.get("/studio/changes", tags=["studio"])
    def changes() -> dict[str, Any]:
        """Returns a text that changes with the gallery, and the numbers of unfinished pictures and
        of models in memory."""
        return {
            "gallery": gallery.state,
            "unfinished": unfinished_pictures(studio.engine),
            "loaded": sum(model.loaded for model in studio.engine.models()),
        }

    @app.post("/studio/prompt", tags=["studio"])
    async def prompt(request: Request) -> dict[str, Any]:
        """Returns how many characters of a prompt and a negative prompt the model reads."""
        body = await read_json_body(request)
        texts = {name: body.get(name) or "" for name in ("prompt", "negative_prompt")}
        for name, text in texts.items():
            if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
                raise HTTPException(
                    400, f"{name}: not a text of up to {MOST_CHARACTERS} characters"
                )
        model = body.get("model")
        if model is not None and not isinstance(model, str):
            raise HTTPException(400, "model: not a name")
        return await run_in_threadpool(_read_lengths, studio.engine, model, texts)

    @app.post("/studio/recipe", tags=["studio"])
    async def recipe(request: Request) -> dict[str, Any]:
        """Returns what the form can take from a picture, the file `picture` of the request."""
        files = (await read_form(request)).files.get("picture", [])
        if len(files) != 1:
            raise HTTPException(400, "picture: one file is needed")
        name, data = files[0]
        models = studio.engine.models()
        hashes = {model.id: model.defaults.get("model_hash") for model in models}
        return await run_in_threadpool(uploaded_recipe, data, name=name, hashes=hashes)


def unfinished_pictures(engine: DrawingEngine) -> int:
    """Returns the number of pictures that wait or are being drawn."""
    jobs = [job for job in engine.jobs() if not job.is_ended]
    return sum(picture is None for job in jobs for picture in job.pictures)


def _read_lengths(
    engine: DrawingEngine, model: str | None, texts: dict[str, str]
) -> dict[str, Any]:
    """Returns the number of characters of each text that the text encoder of a model reads."""
    text_encoder = engine.text_encoder(model)
    lengths: dict[str, Any] = {
        name: characters_read(text_encoder, text) for name, text in texts.items()
    }
    return lengths | {"max_tokens": text_encoder.max_tokens}
