"""Draws what a request asks for, and returns the pictures when all are there."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from pinxit.picture_files import picture_bytes, stored_recipe
from pinxit.serve.engine.events import JobEnded
from pinxit.serve.engine.jobs import DrawRequest, Job
from pinxit.serve.errors import RefusedRequest
from pinxit.serve.images_api.attended_job import cancelled_with_client
from pinxit.serve.images_api.chosen_model import ChosenModel
from pinxit.serve.images_api.drawing_request import Drawing, Output
from pinxit.serve.images_api.source_pictures import SourcePictures, Upload


@dataclass(frozen=True)
class Sources:
    """The files that a request begins with, and how much of the first is kept."""

    image: Upload
    """The picture to begin with."""
    mask: Upload | None
    """The mask, or None."""
    strength: float | None
    """The fraction of the steps that are made; None is the default."""


def draw_request(
    drawing: Drawing,
    model: ChosenModel | None,
    *,
    previews: int,
    sources: Sources | None = None,
    pictures: SourcePictures | None = None,
) -> DrawRequest:
    """Returns the engine's form of a request.

    The model is None if the request has no quality of its own.
    """
    sampling = dict(drawing.sampling)
    if model is not None and drawing.quality not in (None, "medium"):
        sampling["steps"] = model.steps(drawing.quality)
    return DrawRequest(
        prompt=drawing.prompt,
        model=drawing.model,
        n=drawing.n,
        seed=drawing.seed,
        size=drawing.size,
        negative_prompt=drawing.negative_prompt,
        sampling=sampling,
        image=pictures.image if pictures else None,
        mask=pictures.mask if pictures else None,
        strength=sources.strength if sources else None,
        image_name=sources.image.name if sources else "",
        mask_name=sources.mask.name if sources and sources.mask else "",
        previews=previews,
        keep=drawing.keep,
    )


async def wait_for_end(request: Request, job: Job) -> None:
    """Waits until a job has ended, and cancels it if the client leaves.

    Raises the job's error, or `RefusedRequest` if it was cancelled.
    """
    async with cancelled_with_client(request, job):
        async for event in job.events():
            if isinstance(event, JobEnded) and event.state != "done":
                raise error_of(event)


def error_of(ended: JobEnded) -> Exception:
    """Returns the error of a job that failed or was cancelled."""
    if ended.error is not None:
        return ended.error
    # The SDK repeats a request that has the status 409, unless it is told not to.
    stop = {"x-should-retry": "false"}
    return RefusedRequest(409, "the job was cancelled", code="cancelled", headers=stop)


async def encoded(image: Any, recipe: Mapping[str, Any], output: Output) -> bytes:
    """Returns a picture's file with its recipe."""
    return await run_in_threadpool(
        picture_bytes, image, recipe, format=output.format, quality=output.quality
    )


def usage_of(job: Job, model: ChosenModel, pictures: int) -> dict[str, Any]:
    """Returns the number of tokens that were read and drawn for some pictures of a job."""
    each = model.tokens(job.request.size)
    image = 0 if job.request.image is None else each
    read, drawn = job.tokens + image, pictures * each
    return {
        "input_tokens": read,
        "input_tokens_details": {"text_tokens": job.tokens, "image_tokens": image},
        "output_tokens": drawn,
        "output_tokens_details": {"image_tokens": drawn, "text_tokens": 0},
        "total_tokens": read + drawn,
    }


def size_text(size: tuple[int, int]) -> str:
    """Returns a size as the API writes it."""
    return f"{size[0]}x{size[1]}"


async def images_answer(
    request: Request, job: Job, drawing: Drawing, output: Output, model: ChosenModel
) -> dict[str, Any]:
    """Returns the answer with all pictures of a job that has ended."""
    data = []
    for index, picture in enumerate(job.pictures):
        assert picture is not None
        recipe = stored_recipe(picture.recipe, output.format, output.quality)
        item: dict[str, Any] = {"seed": recipe["seed"], "recipe": recipe}
        if output.at_address:
            item["url"] = address_of(request, job, index, output)
        else:
            file = await encoded(picture.image, picture.recipe, output)
            item["b64_json"] = base64.b64encode(file).decode()
        data.append(item)
    return {
        "created": int(time.time()),
        "data": data,
        "background": "opaque",
        "output_format": output.format,
        "quality": drawing.quality,
        "size": size_text(model.size(job.request.size)),
        "usage": usage_of(job, model, len(data)),
        "warnings": [*job.warnings, *drawing.warnings],
    }


def address_of(request: Request, job: Job, index: int, output: Output) -> str:
    """Returns the whole address of a picture's file, with its format and quality."""
    address = request.url_for("job_picture", job_id=job.id, index=str(index))
    query: dict[str, Any] = {} if output.format == "png" else {"format": output.format}
    if output.quality is not None:
        query["quality"] = output.quality
    return str(address.include_query_params(**query))
