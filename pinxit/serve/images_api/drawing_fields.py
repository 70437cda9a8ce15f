"""The fields of a drawing request: their names, their types and the bounds that always hold.

Names are those of OpenAI's images API, then those of vLLM-Omni, then our own. `Sampling` alone
lists the sampling settings, so their fields are made from it. Null is the same as no field.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from pinxit.config import hints
from pinxit.sampling import ALIASES, SEEDS, Sampling
from pinxit.serve.engine.limits import MOST_CHARACTERS

LARGEST, LEAST = 1e4, {"shift": 1e-4, "guidance_scale": 0.0, "zero_init": 0.0}
"""The largest value of a sampling setting, and the least one of those that have another than its
negative."""
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]
"""The names of qualities that OpenAI's clients send."""
Format = Literal["png", "webp", "jpeg"]
"""The formats of pictures."""


def _sampling_types() -> dict[str, Any]:
    """Returns the type and the default, None, of each sampling setting and each other name of it.

    Pairs of numbers are lists in JSON. Numbers have bounds within which float32 is exact enough.
    """
    kinds: dict[str, Any] = {}
    for name, kind in hints(Sampling).items():
        if typing.get_origin(kind) is tuple:
            members = typing.get_args(kind)
            bounds = Field(min_length=len(members), max_length=len(members))
            kind = Annotated[list[members[0]], bounds]  # type: ignore[valid-type]
        elif kind is float:
            least = LEAST.get(name, -LARGEST)
            kind = Annotated[float, Field(ge=least, le=LARGEST)]
        kinds[name] = (kind | None, None)
    return kinds | {name: kinds[full] for name, full in ALIASES.items()}


class DrawingFields(BaseModel):
    """The fields that every drawing request has."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    prompt: str = Field(max_length=MOST_CHARACTERS, description="The text that the picture shows.")
    model: str | None = Field(
        None, max_length=300, description="A model of /v1/models; by default the first."
    )
    n: int | None = Field(None, ge=1, le=1000, description="Number of pictures, by default 1.")
    size: str | None = Field(
        None,
        max_length=40,
        description="WIDTHxHEIGHT in pixels, or auto: the size that the model was trained on.",
    )
    quality: Quality | None = Field(
        None, description="Number of steps relative to the model's default (see /v1/models)."
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=SEEDS,
        description="Seed of the first picture; picture i has seed + i. Random by default.",
    )
    negative_prompt: str | None = Field(
        None, max_length=MOST_CHARACTERS, description="The text that guidance steers away from."
    )
    keep: bool | None = Field(
        None, description="Whether finished pictures are stored in the gallery."
    )


class OutputFields(BaseModel):
    """The fields of OpenAI's API that say how pictures are returned."""

    response_format: Literal["b64_json", "url"] | None = Field(
        None, description="Whether pictures are in the answer (b64_json) or at an address."
    )
    output_format: Format | None = Field(
        None, description="Format of the pictures, by default png."
    )
    output_compression: int | None = Field(
        None, ge=0, le=100, description="Quality of webp (100 is lossless) and jpeg."
    )
    background: Literal["auto", "opaque"] | None = Field(
        None, description="Pictures are always opaque."
    )
    stream: bool | None = Field(
        None, description="Whether to answer with server-sent events as pictures form."
    )
    partial_images: int | None = Field(
        None, ge=0, le=100, description="Number of previews of each picture in a stream."
    )


class EditFields(BaseModel):
    """The fields of requests that begin with a picture."""

    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Fraction of the steps that are made; 1 ignores the picture. By default 0.6,"
        " and 1 with a mask.",
    )


class JobFields(BaseModel):
    """The fields that only jobs have."""

    previews: int | None = Field(
        None, ge=-1, le=1000, description="Previews of each picture; -1 sends one at every step."
    )
    image: str | None = Field(None, description="A picture to begin with, as a data URL.")
    mask: str | None = Field(None, description="The mask of the part to repaint, as a data URL.")
    image_name: str | None = Field(None, max_length=300, description="Name for the recipe.")
    mask_name: str | None = Field(None, max_length=300, description="Name for the recipe.")


SamplingFields = create_model("SamplingFields", **_sampling_types())


class GenerationBody(OutputFields, SamplingFields, DrawingFields):  # type: ignore[misc, valid-type]
    """A request for pictures of a prompt."""


class EditBody(EditFields, GenerationBody):
    """A request for pictures that begin with a picture, without the files."""


class JobBody(JobFields, EditFields, SamplingFields, DrawingFields):  # type: ignore[misc, valid-type]
    """A request for pictures that are drawn while the client does other things."""


REFUSED: Mapping[str, str] = {
    "svg": "pictures have pixels",
    "frame_count": "pictures do not move",
    "frame_duration_ms": "pictures do not move",
    "markup": "only a mask tells where to repaint",
}
"""Fields of OpenAI's API whose effect this server cannot give, each with the reason."""
