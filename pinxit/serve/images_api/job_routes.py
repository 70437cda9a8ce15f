"""Routes of jobs: pictures that are drawn while the client does other things.

A job goes on when its listeners leave. Deleting it cancels it.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from pinxit.picture_files import picture_bytes
from pinxit.serve.engine.jobs import DrawRequest, Job
from pinxit.serve.errors import RefusedRequest
from pinxit.serve.images_api.answer_models import JobAnswer, JobsAnswer, errors
from pinxit.serve.images_api.chosen_model import load_model, named_model
from pinxit.serve.images_api.described_body import json_body
from pinxit.serve.images_api.drawing_fields import JobBody
from pinxit.serve.images_api.drawing_request import (
    Drawing,
    checked_fields,
    drawing_of,
    ignored_header,
)
from pinxit.serve.images_api.drawn_pictures import Sources, draw_request
from pinxit.serve.images_api.job_description import described_job, job_events
from pinxit.serve.images_api.source_pictures import from_data_url, read_sources
from pinxit.serve.request_body import PICTURE_BYTES, read_json_body
from pinxit.serve.server_events import CONTENT, events_response
from pinxit.serve.studio import Studio

MEDIA_TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
"""The media types of pictures."""
FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file, with its recipe.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in MEDIA_TYPES.values()
        },
    }
}
"""The answer with a picture's file."""
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events queued, step, preview, picture, and at last ended.",
        "content": CONTENT,
    }
}
"""The answer with a job's events."""


def add_to(app: FastAPI, studio: Studio) -> None:
    """Adds the routes of jobs."""
    _add_submission(app, studio)
    _add_reading(app, studio)

    @app.delete(
        "/v1/jobs/{job_id}",
        tags=["jobs"],
        responses={200: {"model": JobAnswer}, **errors(404)},
    )
    async def cancel_job(job_id: str) -> dict[str, Any]:
        """Cancels a job, which stops within a step. Pictures that are finished remain."""
        job = _job(studio, job_id)
        await run_in_threadpool(job.cancel)
        return described_job(job)


def _add_submission(app: FastAPI, studio: Studio) -> None:
    @app.post(
        "/v1/jobs",
        tags=["jobs"],
        status_code=202,
        response_class=JSONResponse,
        responses={
            202: {"model": JobAnswer, "description": "The job that was made."},
            **errors(404, 408, 413, 415, 429, 503),
        },
        openapi_extra=json_body(JobBody),
    )
    async def create_job(request: Request) -> Response:
        """Begins to draw pictures, and answers at once."""
        fields = checked_fields(JobBody, await read_json_body(request, most=PICTURE_BYTES))
        drawing = drawing_of(fields, studio.config)
        order = await _order(studio, fields, drawing)
        job = await run_in_threadpool(studio.engine.submit, order)
        headers = {"Location": f"/v1/jobs/{job.id}", **ignored_header(drawing.ignored)}
        return JSONResponse(described_job(job, drawing.warnings), 202, headers)


async def _order(studio: Studio, fields: JobBody, drawing: Drawing) -> DrawRequest:
    """Returns the engine's form of the fields of a job."""
    sources = _sources(fields)
    model = pictures = None
    if sources is not None or drawing.quality not in (None, "medium"):
        model = await load_model(studio, drawing.model)
    else:
        await named_model(studio, drawing.model)
    if sources is not None and model is not None:
        size = model.size(drawing.size)
        pictures = await run_in_threadpool(read_sources, sources.image, sources.mask, size)
    previews = fields.previews or 0
    return draw_request(drawing, model, previews=previews, sources=sources, pictures=pictures)


def _sources(fields: JobBody) -> Sources | None:
    """Returns the files in the data URLs of a job, or None if it has no picture."""
    if fields.image is None:
        for name in ("mask", "strength", "image_name", "mask_name"):
            if getattr(fields, name) is not None:
                message = f"{name}: it has no effect, since no image is given"
                raise RefusedRequest(400, message, param=name, code="invalid_value")
        return None
    image = from_data_url("image", fields.image, fields.image_name or "")
    mask = None
    if fields.mask is not None:
        mask = from_data_url("mask", fields.mask, fields.mask_name or "")
    return Sources(image, mask, fields.strength)


def _add_reading(app: FastAPI, studio: Studio) -> None:
    @app.get("/v1/jobs", tags=["jobs"], responses={200: {"model": JobsAnswer}, **errors()})
    async def list_jobs() -> dict[str, Any]:
        """Lists the jobs that the server remembers, the newest last."""
        jobs = await run_in_threadpool(studio.engine.jobs)
        return {"object": "list", "data": [described_job(job) for job in jobs]}

    @app.get(
        "/v1/jobs/{job_id}", tags=["jobs"], responses={200: {"model": JobAnswer}, **errors(404)}
    )
    async def retrieve_job(job_id: str) -> dict[str, Any]:
        """Returns a job and what it has drawn so far."""
        return described_job(_job(studio, job_id))

    @app.get(
        "/v1/jobs/{job_id}/events",
        tags=["jobs"],
        response_class=Response,
        responses={**EVENTS, **errors(404)},
    )
    async def follow_job(job_id: str) -> Response:
        """Streams the events of a job: those so far, then those to come."""
        return events_response(job_events(_job(studio, job_id)))

    @app.get(
        "/v1/jobs/{job_id}/pictures/{index}",
        tags=["jobs"],
        response_class=Response,
        responses={**FILE, **errors(404)},
    )
    async def job_picture(
        job_id: str,
        index: str,
        format: Literal["png", "webp", "jpeg"] = "png",
        quality: int | None = Query(None, ge=1, le=100),
    ) -> Response:
        """Returns the file of a finished picture, with its recipe."""
        pictures = _job(studio, job_id).pictures
        number = int(index) if index.isascii() and index.isdecimal() and len(index) < 6 else -1
        picture = pictures[number] if 0 <= number < len(pictures) else None
        if picture is None:
            raise RefusedRequest(404, "the job has no such picture, or has not drawn it yet")
        file = await run_in_threadpool(
            picture_bytes, picture.image, picture.recipe, format=format, quality=quality
        )
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(file, headers=headers, media_type=MEDIA_TYPES[format])


def _job(studio: Studio, name: str) -> Job:
    """Returns the job with an id, or refuses the request."""
    try:
        return studio.engine.job(name)
    except KeyError:
        message = "there is no such job; those that ended some time ago are forgotten"
        raise RefusedRequest(404, message, param="job_id") from None
