"""Stores the recipe of a picture in two text chunks of its PNG.

``parameters`` is the text that image viewers and web interfaces of the field read: prompt, negative
prompt, then ``Steps: 32, Sampler: euler, CFG scale: 4, Seed: 7, Size: 64x64, ...``. ``pinxit`` is
JSON with every argument that `TextToImage.generate` needs to draw the same bytes again on the same
kind of device, including the number of pictures that are computed together (`batch_size`).
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pinxit.config import UsageError
from pinxit.files import whole

TEXT_KEY = "parameters"
JSON_KEY = "pinxit"


def parameters_text(recipe: Mapping[str, Any]) -> str:
    """Returns the recipe as the text of the chunk ``parameters``."""
    width, height = recipe["size"]
    settings = {
        "Steps": recipe["steps"],
        "Sampler": recipe["solver"],
        "CFG scale": f"{recipe['guidance_scale']:g}",
        "Seed": recipe["seed"],
        "Size": f"{width}x{height}",
        "Model hash": recipe["model_hash"],
        "Model": recipe["model"],
    }
    if recipe.get("shift", 1.0) != 1.0:
        settings["Shift"] = f"{recipe['shift']:g}"
    settings["Version"] = f"pinxit {recipe['version']}"
    lines = [recipe["prompt"]]
    if recipe.get("negative_prompt"):
        lines.append(f"Negative prompt: {recipe['negative_prompt']}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)


def png_bytes(image: Image.Image, recipe: Mapping[str, Any]) -> bytes:
    """Encodes the image as a PNG with its recipe. Equal images and recipes give equal bytes."""
    info = PngInfo()
    info.add_itxt(TEXT_KEY, parameters_text(recipe))
    info.add_itxt(JSON_KEY, json.dumps(dict(recipe), ensure_ascii=False, sort_keys=True))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Returns the recipe in a PNG that Pinxit wrote. Raises `UsageError` if it has none."""
    with Image.open(path) as image:
        image.load()
        text = getattr(image, "text", {})
    if JSON_KEY not in text:
        raise UsageError(f"{path} contains no recipe; valid: a PNG written by pinxit generate")
    return json.loads(text[JSON_KEY])


def slug(prompt: str, *, length: int = 48) -> str:
    """Returns the prompt for use in a file name: ASCII letters and digits, joined by hyphens."""
    words = re.findall(r"[a-z0-9]+", prompt.lower())
    cut = "-".join(words)[:length].strip("-")
    return cut or "image"


def _name(recipe: Mapping[str, Any]) -> str:
    """Returns the name of a picture's file, without its number."""
    return f"{recipe['seed']}-{slug(recipe['prompt'])}.png"


def stored_pictures(directory: str | Path, recipes: Sequence[Mapping[str, Any]]) -> dict[int, Path]:
    """Returns which of these pictures `save_png` has written to the directory, by position."""
    if not Path(directory).is_dir():
        return {}
    by_name: dict[str, list[Path]] = {}
    for path in sorted(Path(directory).glob("*-*.png")):
        by_name.setdefault(path.name.partition("-")[2], []).append(path)
    stored: dict[int, Path] = {}
    for i, recipe in enumerate(recipes):
        plain = json.loads(json.dumps(dict(recipe)))
        paths = by_name.get(_name(recipe), [])
        match = next((path for path in paths if _recipe_or_none(path) == plain), None)
        if match is not None:
            stored[i] = match
            paths.remove(match)
    return stored


def _recipe_or_none(path: Path) -> dict[str, Any] | None:
    """Returns the recipe in a PNG, or None if the file is damaged or has none."""
    try:
        return read_recipe(path)
    except (OSError, ValueError, SyntaxError):  # Pillow raises SyntaxError for a damaged PNG
        return None


def save_png(
    directory: str | Path, image: Image.Image, recipe: Mapping[str, Any], *, max_tries: int = 1000
) -> Path:
    """Writes `<number>-<seed>-<slug>.png` under the next free number and returns its path.

    Never overwrites an existing file, even when two programs write to the same directory.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    data = png_bytes(image, recipe)
    matches = (re.match(r"(\d+)-", entry.name) for entry in os.scandir(directory))
    number = max((int(match[1]) for match in matches if match), default=0)
    for _ in range(max_tries):
        number += 1
        path = directory / f"{number:05d}-{_name(recipe)}"
        try:
            with whole(path, replace=False) as temporary:
                temporary.write_bytes(data)
        except FileExistsError:
            continue
        return path
    raise UsageError(f"out: {str(directory)!r} has no free file number after {max_tries} tries")
