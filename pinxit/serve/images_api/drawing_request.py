"""Checks the fields of a drawing request, before anything is spent.

Every route that draws uses this parser, so that a setting means the same everywhere.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pinxit.config import UsageError, full_names, hints
from pinxit.picture_files import check_format, stored_recipe
from pinxit.picture_size import parse_size
from pinxit.sampling import ALIASES, HABITS, SEEDS, Sampling
from pinxit.serve.errors import RefusedRequest, invalid_fields, shorten
from pinxit.serve.images_api.drawing_fields import REFUSED, DrawingFields, OutputFields
from pinxit.serve.images_api.quality import quality_name
from pinxit.serve.settings import StudioConfig

Body = TypeVar("Body", bound=BaseModel)
IGNORED_NAMES, IGNORED_LENGTH = 20, 40
"""The largest number of ignored fields that an answer names, and of characters of each."""
IGNORED = ("complexity", "input_fidelity", "moderation", "safety_identifier", "style", "user")
"""Fields of OpenAI's API that have no effect here. Like unknown ones, they are only named."""
STEP_NAMES = ("steps", *(name for name, full in ALIASES.items() if full == "steps"))
"""The names of the number of steps."""


@dataclass(frozen=True)
class Output:
    """Says how the pictures of a request are returned."""

    at_address: bool = False
    """Whether the answer has the pictures' addresses instead of the pictures."""
    format: str = "png"
    """The format of the pictures."""
    quality: int | None = None
    """The quality of a WebP or JPEG; None is the format's default."""
    stream: bool = False
    """Whether the answer is a stream of events."""


@dataclass(frozen=True)
class Drawing:
    """The checked fields of a request, except for what depends on its model."""

    prompt: str
    """The text that the pictures show."""
    negative_prompt: str
    """The text that guidance steers away from."""
    model: str | None
    """The model's id, or None for the default."""
    n: int
    """The number of pictures."""
    seed: int
    """The seed of the first picture, which is random unless the request has one."""
    size: tuple[int, int] | None
    """Width and height; None is the size that the model was trained on."""
    sampling: dict[str, Any]
    """The sampling settings of the request, by their names in `Sampling`."""
    quality: str | None
    """The quality, one of `quality.FACTORS`; None where the request has a number of steps."""
    keep: bool
    """Whether finished pictures are stored in the gallery."""
    ignored: list[str]
    """The fields of the request that have no effect."""
    warnings: list[str]
    """Things that the client should know about the request."""


def checked_fields(cls: type[Body], data: Mapping[str, Any], *, texts: bool = False) -> Body:
    """Returns the fields of a request, whose types fit. Null is the same as no field.

    With `texts`, the values are those of a form, and numbers and truth values are written out.
    """
    values = {name: value for name, value in data.items() if value is not None}
    for name, reason in REFUSED.items():
        if name in values:
            problem = f"it cannot be given, since {reason}"
            raise RefusedRequest(
                400, f"{name}: {problem}", param=name, code="unsupported_parameter"
            )
    try:
        return cls.model_validate(values, strict=not texts)
    except ValidationError as error:
        raise invalid_fields(error) from error


def drawing_of(fields: DrawingFields, config: StudioConfig) -> Drawing:
    """Returns the checked drawing of a request."""
    n = fields.n or 1
    _at_most("n", n, config.max_pictures)
    sampling, names = _sampling(fields)
    _at_most(names.get("steps", "steps"), sampling.get("steps", 1), config.max_steps)
    seed = secrets.randbelow(SEEDS - n + 1) if fields.seed is None else fields.seed
    if seed + n > SEEDS:
        problem = f"too large for {n} pictures, the last of which would have seed + n - 1"
        raise UsageError("seed", seed, problem=problem, valid=f"0 to {SEEDS - n}")
    ignored = sorted(fields.model_extra or {})
    named = [name for name in STEP_NAMES if getattr(fields, name, None) is not None]
    if named and fields.quality not in (None, "auto"):
        ignored.append("quality")
    return Drawing(
        prompt=fields.prompt,
        negative_prompt=fields.negative_prompt or "",
        model=fields.model or None,
        n=n,
        seed=seed,
        size=_size(fields.size),
        sampling=sampling,
        quality=None if named else quality_name(fields.quality),
        keep=bool(fields.keep),
        ignored=ignored,
        warnings=[_hint(name) for name in ignored if name in HABITS],
    )


def output_of(fields: OutputFields, drawing: Drawing) -> tuple[Output, list[str]]:
    """Returns how to return the pictures, and the fields that then have no effect.

    Refuses a format that cannot hold the recipe before anything is drawn.
    """
    ignored, format = [], fields.output_format or "png"
    stream, quality = bool(fields.stream), fields.output_compression
    if format == "png":
        if quality is not None and quality < 100:
            problem = "without effect, since png is always exact"
            valid = "output_format webp or jpeg"
            raise UsageError("output_compression", quality, problem=problem, valid=valid)
        quality = None
    elif quality is not None:
        quality = max(1, quality)
    with full_names(format="output_format", quality="output_compression"):
        check_format(format, quality)
        stored_recipe(_longest_recipe(drawing), format, quality)
    if not stream and fields.partial_images:
        ignored.append("partial_images")
    if stream and fields.response_format == "url":
        ignored.append("response_format")
    at_address = fields.response_format == "url" and not stream
    return Output(at_address, format, quality, stream), ignored


def ignored_header(names: list[str]) -> dict[str, str]:
    """Returns the header that names the fields without effect, as far as a header can."""
    if not names:
        return {}
    shown = [re.sub(r"[^\w.\[\]-]", "?", name, flags=re.ASCII) for name in names]
    shown = [shorten(name, IGNORED_LENGTH) for name in shown[:IGNORED_NAMES]]
    more = [f"and {len(names) - IGNORED_NAMES} more"] if len(names) > IGNORED_NAMES else []
    return {"X-Pinxit-Ignored": ", ".join([*shown, *more])}


# --- single settings --------------------------------------------------------------------------


def _sampling(fields: DrawingFields) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the sampling settings of a request, and the name that it uses for each.

    Their values are checked as far as they do not depend on the model.
    """
    values = {
        name: getattr(fields, name)
        for name in (*hints(Sampling), *ALIASES)
        if getattr(fields, name, None) is not None
    }
    names = {ALIASES.get(name, name): name for name in values}
    with full_names(**names):
        Sampling().override(**values)
    return {full: values[name] for full, name in names.items()}, names


def _size(text: str | None) -> tuple[int, int] | None:
    """Returns a size as width and height, or None for auto."""
    if text is None or text.strip() == "auto":
        return None
    parsed = parse_size(text)
    return (parsed, parsed) if isinstance(parsed, int) else parsed


def _at_most(field: str, value: int, most: int) -> None:
    if value > most:
        raise UsageError(field, value, problem="too large", valid=f"at most {most}")


def _hint(name: str) -> str:
    """Returns a warning about a name of another program."""
    return f"{name} has no effect; valid: {HABITS[name]}"


def _longest_recipe(drawing: Drawing) -> dict[str, Any]:
    """Returns a recipe that is at least as long as that of any picture of the drawing."""
    return {
        "prompt": drawing.prompt,
        "negative_prompt": drawing.negative_prompt,
        "size": [1, 1],
        "steps": 1,
        "solver": "",
        "guidance_scale": 1.0,
        "seed": 0,
        "model": "m" * 300,
        "model_hash": "",
        "version": "v" * 1500,
    }
