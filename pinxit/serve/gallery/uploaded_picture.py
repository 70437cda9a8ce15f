"""Reads the recipe in an uploaded picture, for the form of the page.

The picture may come from anybody. Its recipe is checked as that of a file is (see `redraw`), and
texts of other programs are returned as texts.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image

from pinxit.config import UsageError, to_json
from pinxit.picture_files import FORMATS, JSON_KEY
from pinxit.picture_texts import (
    DAMAGE,
    PARAMETERS,
    SHEET,
    beginning,
    foreign_texts,
    picture_texts,
)
from pinxit.picture_texts import FORMATS as PILLOW_FORMATS
from pinxit.redraw import MOST_PIXELS, DrawnRecipe, checked_recipe
from pinxit.serve.engine.limits import MOST_CHARACTERS
from pinxit.serve.gallery.foreign_recipe import foreign_settings
from pinxit.version import __version__


def uploaded_recipe(
    data: bytes, *, name: str, hashes: Mapping[str, str | None] | None = None
) -> dict[str, Any]:
    """Returns the format and size of a picture, its `kind`, and what the form can take from it.

    ========  ====================================================================================
    kind      result
    ========  ====================================================================================
    pinxit    ``recipe``, with every setting; ``model``, the id of the model that drew it, or None
    sheet     ``command``, the command of a comparison grid
    other     ``settings`` of another program, as `foreign_settings` returns them
    none      nothing more: a picture without a recipe, for image to image
    ========  ====================================================================================

    ``message`` says in a sentence what the picture is, and ``warnings`` lists reasons why the same
    bytes are not to be expected. `hashes` has the hash of each model, by its id. Raises
    `UsageError`, which begins with the name, for a file that is no picture or has a wrong recipe.
    """
    where = beginning(name, length=80) or "the picture"
    width, height = _size(data, where)
    texts, pillow = picture_texts(data, where=where)
    format = next(key for key, each in FORMATS.items() if each.pillow == pillow)
    about: dict[str, Any] = {"format": format, "width": width, "height": height, "warnings": []}
    if JSON_KEY in texts:
        recipe = checked_recipe(_json_object(texts[JSON_KEY], where), where=where)
        return about | _restored(recipe, hashes or {})
    if SHEET in texts:
        return about | _sheet(texts, where)
    if PARAMETERS in texts:
        settings = foreign_settings(texts[PARAMETERS][:MOST_CHARACTERS])
        message = (
            "This picture was drawn by another program. Its prompt and the settings that Pinxit "
            "knows were taken over; the same picture cannot be drawn again."
        )
        return about | {"kind": "other", "settings": settings, "message": message}
    message = "This picture has no recipe. You can start from it."
    if others := foreign_texts(texts):
        message = f"This picture has no recipe of Pinxit{others}. You can start from it."
    return about | {"kind": "none", "message": message}


def _size(data: bytes, where: str) -> tuple[int, int]:
    """Returns width and height of a picture. Raises for more pixels than a recipe may ask for."""
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(where) from error
    except DAMAGE as error:
        valid = "a PNG, WebP or JPEG picture"
        problem = "is empty" if not data else "is no picture, or damaged"
        raise UsageError(f"{where} {problem}; valid: {valid}") from error
    if width * height > MOST_PIXELS:
        raise _too_large(where)
    return width, height


def _too_large(where: str) -> UsageError:
    valid = f"a picture of at most {MOST_PIXELS:,} pixels"
    return UsageError(f"{where} is too large to be read; valid: {valid}")


def _json_object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} has a damaged recipe: {beginning(str(error))}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{where} has a damaged recipe: a {type(value).__name__}, not an object")
    return value


def _restored(recipe: DrawnRecipe, hashes: Mapping[str, str | None]) -> dict[str, Any]:
    """Returns the recipe as JSON, with the model that drew it and the reasons for differences."""
    if max(len(recipe.prompt), len(recipe.negative_prompt)) > MOST_CHARACTERS:
        valid = f"at most {MOST_CHARACTERS:,} characters"
        raise UsageError("prompt", beginning(recipe.prompt), problem="too long", valid=valid)
    plain = to_json(recipe)
    plain |= plain.pop("sampling")
    model = next((id for id, digest in hashes.items() if digest == recipe.model_hash), None)
    warnings = []
    if model is None and None not in hashes.values():
        drawn_by = beginning(recipe.model, length=60)
        warnings.append(
            f"It was drawn by another model, {drawn_by!r} (hash {recipe.model_hash[:10]}), than "
            "the ones of this studio: the picture will differ."
        )
    if recipe.version != __version__:
        version = beginning(recipe.version, length=40)
        warnings.append(
            f"It was drawn by Pinxit {version!r}, and this is {__version__}: the bytes may differ."
        )
    message = "The form has the settings of this picture. Drawing it again gives the same picture."
    if warnings:
        message = "The form has the settings of this picture."
    return {
        "kind": "pinxit",
        "recipe": plain,
        "model": model,
        "message": message,
        "warnings": warnings,
    }


def _sheet(texts: Mapping[str, str], where: str) -> dict[str, Any]:
    """Returns the axes, the settings and the command of a comparison grid's sheet."""
    grid = _json_object(texts[SHEET], where)
    command = str(grid.get("command", "pinxit grid"))[:MOST_CHARACTERS]
    message = "This is a comparison grid. The command below draws it again."
    return {"kind": "sheet", "command": command, "message": message}
