"""The answers of the API, as its OpenAPI document describes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    """Says what was wrong with a request."""

    message: str = Field(description="What is wrong, and what would be right.")
    type: str = Field(description="The kind of error.")
    param: str | None = Field(description="The field of the request that is wrong.")
    code: str | None = Field(description="A short name of the error.")


class ErrorAnswer(BaseModel):
    """The answer to a request that fails."""

    error: ErrorDetail


class InputDetails(BaseModel):
    """The tokens that a request's input has."""

    text_tokens: int = Field(description="Tokens of the prompt that the text encoder read.")
    image_tokens: int = Field(description="Tokens of the picture to begin with.")


class OutputDetails(BaseModel):
    """The tokens that a request's pictures have."""

    image_tokens: int
    text_tokens: int


class Usage(BaseModel):
    """The number of tokens that were read and drawn."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class PictureData(BaseModel):
    """Holds one picture."""

    b64_json: str | None = Field(None, description="The file, with its recipe, in base64.")
    url: str | None = Field(None, description="The address of the file, for response_format url.")
    seed: int = Field(description="The seed that was used.")
    recipe: dict[str, Any] = Field(description="The settings that draw the same picture again.")


class ImagesAnswer(BaseModel):
    """The pictures of a request."""

    created: int = Field(description="Seconds since 1970.")
    data: list[PictureData]
    background: Literal["opaque"]
    output_format: Literal["png", "webp", "jpeg"]
    quality: Literal["low", "medium", "high", "xhigh", "max"] | None = Field(
        description="Null if the request has a number of steps."
    )
    size: str
    usage: Usage
    warnings: list[str] = Field(description="What the client should know, such as cut prompts.")


class ModelAnswer(BaseModel):
    """A model that can draw."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    loaded: bool = Field(description="Whether the model is in memory.")
    defaults: dict[str, Any] | None = Field(
        description="The model's sampling settings; null until it is loaded for the first time."
    )
    image_size: int | None = Field(description="The side of a picture of size auto, in pixels.")
    size_unit: int | None = Field(description="The sides of pictures are multiples of this.")
    qualities: dict[str, int] | None = Field(description="The number of steps of each quality.")


class ModelsAnswer(BaseModel):
    """The models that can draw."""

    object: Literal["list"]
    data: list[ModelAnswer]


class JobPicture(BaseModel):
    """A picture of a job."""

    index: int
    url: str | None = Field(description="The address of the file; null until it is drawn.")
    recipe: dict[str, Any] | None
    stored: str | None = Field(description="Name in the gallery; null if it is not there.")


class JobAnswer(BaseModel):
    """A job and what it has drawn so far."""

    id: str
    object: Literal["job"]
    created: int
    state: Literal["queued", "drawing", "done", "failed", "cancelled"]
    position: int = Field(description="0 when it is drawn, 1 when it is the next.")
    n: int
    warnings: list[str]
    pictures: list[JobPicture]
    error: ErrorDetail | None = Field(description="Why the job failed.")


class JobsAnswer(BaseModel):
    """The jobs that the server remembers, the newest last."""

    object: Literal["list"]
    data: list[JobAnswer]


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "A field is wrong; `param` names it."},
    401: {"model": ErrorAnswer, "description": "The token is missing or wrong."},
    403: {"model": ErrorAnswer, "description": "The host or the origin is not allowed."},
    404: {"model": ErrorAnswer, "description": "There is no such model, job or picture."},
    405: {"model": ErrorAnswer, "description": "The method is not possible at this address."},
    408: {"model": ErrorAnswer, "description": "The body came too slowly."},
    409: {"model": ErrorAnswer, "description": "The job was cancelled."},
    413: {"model": ErrorAnswer, "description": "The body is too large."},
    415: {"model": ErrorAnswer, "description": "The body has another content type."},
    429: {"model": ErrorAnswer, "description": "The queue is full; see Retry-After."},
    500: {"model": ErrorAnswer, "description": "An error in the server; its log says more."},
    503: {"model": ErrorAnswer, "description": "The server is ending."},
}
"""The errors that every route can answer with."""


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the description of some errors, for a route."""
    return {status: ERRORS[status] for status in (400, 401, 403, 500, *statuses)}
