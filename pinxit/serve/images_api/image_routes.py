"""Routes in the shape of OpenAI's images API: pictures of a prompt, and pictures of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from pinxit.serve.errors import RefusedRequest
from pinxit.serve.images_api.answer_models import ImagesAnswer, errors
from pinxit.serve.images_api.chosen_model import load_model
from pinxit.serve.images_api.described_body import form_body, json_body
from pinxit.serve.images_api.drawing_fields import EditBody, GenerationBody
from pinxit.serve.images_api.drawing_request import (
    checked_fields,
    drawing_of,
    ignored_header,
    output_of,
)
from pinxit.serve.images_api.drawn_pictures import (
    Sources,
    draw_request,
    images_answer,
    wait_for_end,
)
from pinxit.serve.images_api.picture_stream import picture_stream
from pinxit.serve.images_api.source_pictures import read_sources, upload
from pinxit.serve.request_body import read_form, read_json_body
from pinxit.serve.server_events import CONTENT, events_response
from pinxit.serve.studio import Studio

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ImagesAnswer,
        "description": "The pictures; with stream, server-sent events instead.",
        "content": CONTENT,
    },
    **errors(404, 408, 409, 413, 415, 429, 503),
}
"""The answers of both routes."""
FILES = {
    "image": "The picture to begin with.",
    "mask": "Its transparent part is repainted, or the white part if nothing is transparent.",
}
"""The files of an edit."""


def add_to(app: FastAPI, studio: Studio) -> None:
    """Adds the routes that draw and answer with pictures."""

    @app.post(
        "/v1/images/generations",
        tags=["images"],
        responses=ANSWERS,
        openapi_extra=json_body(GenerationBody),
    )
    async def generate_images(request: Request) -> Response:
        """Draws pictures of a prompt."""
        fields = checked_fields(GenerationBody, await read_json_body(request))
        return await answer(request, studio, fields, kind="image_generation")

    @app.post(
        "/v1/images/edits",
        tags=["images"],
        responses=ANSWERS,
        openapi_extra=form_body(EditBody, **FILES),
    )
    async def edit_image(request: Request) -> Response:
        """Draws pictures of a prompt that begin with a picture."""
        form = await read_form(request)
        for name in (*FILES, *(name for name in form.files if name not in FILES)):
            _check_file(name, form.texts, form.files.get(name, []))
        fields = checked_fields(EditBody, form.texts, texts=True)
        image = upload(*form.files["image"][0])
        masks = [upload(*file) for file in form.files.get("mask", [])]
        sources = Sources(image, masks[0] if masks else None, fields.strength)
        return await answer(request, studio, fields, kind="image_edit", sources=sources)


def _check_file(name: str, texts: Mapping[str, Any], files: list[tuple[str, bytes]]) -> None:
    """Refuses a file of another name, an absent picture, and several of them."""
    if name not in FILES:
        problem = "no file can be given for it; valid: image, mask"
    elif name in texts:
        problem = "a text, not a file"
    elif len(files) > 1:
        problem = f"{len(files)} files; valid: one"
    elif name == "image" and not files:
        problem = "it is missing"
    else:
        return
    raise RefusedRequest(400, f"{name[:40]}: {problem}", param=name, code="invalid_value")


async def answer(
    request: Request,
    studio: Studio,
    fields: GenerationBody,
    *,
    kind: str,
    sources: Sources | None = None,
) -> Response:
    """Draws what the fields of a request say, and returns the pictures or a stream of events.

    The types of the events begin with `kind`.
    """
    drawing = drawing_of(fields, studio.config)
    output, unused = output_of(fields, drawing)
    model = await load_model(studio, drawing.model)
    pictures = None
    if sources is not None:
        size = model.size(drawing.size)
        pictures = await run_in_threadpool(read_sources, sources.image, sources.mask, size)
    previews = (fields.partial_images or 0) if output.stream else 0
    order = draw_request(drawing, model, previews=previews, sources=sources, pictures=pictures)
    job = await run_in_threadpool(studio.engine.submit, order)
    headers = ignored_header([*drawing.ignored, *unused])
    if output.stream:
        events = picture_stream(request, job, drawing, output, model, kind=kind)
        return events_response(events, headers)
    await wait_for_end(request, job)
    content = await images_answer(request, job, drawing, output, model)
    return JSONResponse(content, headers=headers)
