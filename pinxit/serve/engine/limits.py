"""The limits of requests, which are checked before anything is computed."""

from __future__ import annotations

from pinxit.config import UsageError, positive
from pinxit.sampling import Sampling, check_seeds
from pinxit.serve.engine.jobs import DrawRequest
from pinxit.serve.settings import StudioConfig
from pinxit.text_decoding import valid_unicode

MOST_CHARACTERS = 32_000
"""The length of a prompt that a request may have."""


def check_request(request: DrawRequest, config: StudioConfig) -> None:
    """Raises `UsageError` for a request that no model of this server draws."""
    positive("n", request.n)
    _at_most("n", request.n, config.max_pictures)
    check_seeds(request.seed, request.n)
    for field in ("prompt", "negative_prompt"):
        text = getattr(request, field)
        if len(text) > MOST_CHARACTERS:
            problem = f"{len(text)} characters long"
            valid = f"up to {MOST_CHARACTERS} characters"
            raise UsageError(field, text[:40], problem=problem, valid=valid)
        if valid_unicode(text) != text:
            raise UsageError(field, valid_unicode(text)[:40], problem="not valid Unicode")
    sampling = Sampling().override(**request.sampling)
    if "steps" in request.sampling or "num_inference_steps" in request.sampling:
        _at_most("steps", sampling.steps, config.max_steps)
    if request.size is not None:
        for side in request.size:
            positive("size", side)
    if request.previews < -1:
        raise UsageError("previews", request.previews, problem="too small", valid="-1 or more")


def check_side_lengths(size: tuple[int, int], image_size: int, config: StudioConfig) -> None:
    """Raises `UsageError` for a picture that is larger than this server draws.

    `size` is that of an order and `image_size` the model's own, which is always allowed.
    """
    for side in size:
        _at_most("size", side, max(config.max_side, image_size))


def _at_most(field: str, value: int, limit: int) -> None:
    if value > limit:
        raise UsageError(field, value, problem="too large for this server", valid=f"up to {limit}")
