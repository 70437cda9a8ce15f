"""Describes jobs: their state as JSON, and their events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, assert_never

from starlette.concurrency import run_in_threadpool

from pinxit.serve.engine.events import Event, Finished, JobEnded, Preview, Queued, Step
from pinxit.serve.engine.jobs import Job
from pinxit.serve.images_api.picture_stream import event_error, preview_data
from pinxit.serve.server_events import server_event


def described_job(job: Job, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the state of a job, with further warnings about its request."""
    error = None if job.error is None else event_error(job.error)["error"]
    return {
        "id": job.id,
        "object": "job",
        "created": int(job.created),
        "state": job.state,
        "position": job.position,
        "n": job.request.n,
        "warnings": [*job.warnings, *warnings],
        "pictures": [_picture(job, index) for index in range(len(job.pictures))],
        "error": error,
    }


def _picture(job: Job, index: int) -> dict[str, Any]:
    picture = job.pictures[index]
    return {
        "index": index,
        "url": None if picture is None else picture_address(job, index),
        "recipe": None if picture is None else picture.recipe,
        "stored": None if picture is None else picture.stored,
    }


def picture_address(job: Job, index: int) -> str:
    """Returns the address of a picture's file on this server."""
    return f"/v1/jobs/{job.id}/pictures/{index}"


async def job_events(job: Job) -> AsyncIterator[bytes]:
    """Yields the events of a job as server-sent events."""
    async for event in job.events():
        yield await _written(job, event)


async def _written(job: Job, event: Event) -> bytes:
    match event:
        case Queued(position):
            return server_event("queued", {"position": position})
        case Step(picture, step, steps):
            return server_event("step", {"picture": picture, "step": step, "steps": steps})
        case Preview():
            data = await run_in_threadpool(preview_data, event, "jpeg", None)
            return server_event("preview", {**data, "output_format": "jpeg"})
        case Finished(picture, _, recipe, stored):
            address = picture_address(job, picture)
            data = {"picture": picture, "url": address, "recipe": recipe, "stored": stored}
            return server_event("picture", data)
        case JobEnded(state, error):
            data = {"error": None} if error is None else event_error(error)
            return server_event("ended", {"state": state, **data})
        case _:
            assert_never(event)
