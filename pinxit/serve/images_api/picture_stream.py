"""Streams the pictures of a job as they form, with the two event types of OpenAI's API."""

from __future__ import annotations

import base64
import io
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from pinxit.picture_files import FORMATS, stored_recipe
from pinxit.serve.engine.events import Finished, JobEnded, Preview
from pinxit.serve.engine.jobs import Job
from pinxit.serve.errors import error_content, refusal_of
from pinxit.serve.images_api.attended_job import cancelled_with_client
from pinxit.serve.images_api.chosen_model import ChosenModel
from pinxit.serve.images_api.drawing_request import Drawing, Output
from pinxit.serve.images_api.drawn_pictures import encoded, error_of, size_text, usage_of
from pinxit.serve.server_events import server_event


async def picture_stream(
    request: Request,
    job: Job,
    drawing: Drawing,
    output: Output,
    model: ChosenModel,
    *,
    kind: str,
) -> AsyncIterator[bytes]:
    """Yields the events of a job, whose types begin with `kind`; cancels it if the client leaves.

    An error ends the stream with an event that OpenAI's SDK raises as an `APIError`.
    """
    common = {
        "background": "opaque",
        "output_format": output.format,
        "quality": drawing.quality or "auto",
        "size": size_text(model.size(job.request.size)),
    }
    previews: Counter[int] = Counter()
    async with cancelled_with_client(request, job):
        async for event in job.events():
            if isinstance(event, Preview):
                name = f"{kind}.partial_image"
                data = await run_in_threadpool(preview_data, event, output.format, output.quality)
                index = previews[event.picture]
                previews[event.picture] += 1
                data |= {"type": name, **common, "partial_image_index": index}
                yield server_event(name, {**data, "created_at": int(time.time())})
            elif isinstance(event, Finished):
                name = f"{kind}.completed"
                data = await _completed(event, job, drawing, output, model)
                data |= {"type": name, **common, "created_at": int(time.time())}
                yield server_event(name, data)
            elif isinstance(event, JobEnded) and event.state != "done":
                yield server_event("error", event_error(error_of(event)))


def preview_data(event: Preview, format: str, quality: int | None) -> dict[str, Any]:
    """Returns the picture of a preview, which has no recipe, with its step."""
    return {
        "b64_json": base64.b64encode(_preview_file(event.image, format, quality)).decode(),
        "picture": event.picture,
        "step": event.step,
        "steps": event.steps,
    }


def _preview_file(image: Image.Image, format: str, quality: int | None) -> bytes:
    buffer, kind = io.BytesIO(), FORMATS[format]
    if kind.quality is None:
        image.save(buffer, kind.pillow, compress_level=1)
    else:
        image.save(buffer, kind.pillow, quality=quality or 90)
    return buffer.getvalue()


async def _completed(
    event: Finished, job: Job, drawing: Drawing, output: Output, model: ChosenModel
) -> dict[str, Any]:
    """Returns the data of a finished picture."""
    recipe = stored_recipe(event.recipe, output.format, output.quality)
    file = await encoded(event.image, event.recipe, output)
    return {
        "b64_json": base64.b64encode(file).decode(),
        "picture": event.picture,
        "seed": recipe["seed"],
        "recipe": recipe,
        "usage": usage_of(job, model, 1),
        "warnings": [*job.warnings, *drawing.warnings],
    }


def event_error(error: Exception) -> dict[str, Any]:
    """Returns the error that ended a job as the API writes it. The engine has logged it."""
    refused = refusal_of(error)
    if refused is None:
        return error_content(500, "an error in the server; its log says more")
    return error_content(refused.status, refused.message, param=refused.param, code=refused.code)
