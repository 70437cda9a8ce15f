"""Writes pictures as PNG, WebP or JPEG files with the recipe inside, and reads the recipe back.

Each file has the recipe twice. ``parameters`` is the text that image viewers and web interfaces of
the field read: prompt, negative prompt, then ``Steps: 32, Sampler: euler, CFG scale: 4, Seed: 7,
Size: 64x64, ...``. ``pinxit`` is JSON with every argument that `TextToImage.generate` needs to draw
the same picture again.

=====  ==============================================  =========================================
       ``parameters``                                  ``pinxit``
=====  ==============================================  =========================================
PNG    the text chunk (iTXt) of this name              the text chunk (iTXt) of this name
WebP   EXIF UserComment: ``UNICODE`` and a NUL, then   EXIF ImageDescription: ``pinxit:``, then
JPEG   the text in UTF-16, big endian                  the JSON in ASCII
=====  ==============================================  =========================================

The JSON is in EXIF and not in XMP, so that programs that keep one of the two keep both, and because
EXIF is read without an XML parser. A JPEG stores EXIF in one segment of at most 65,533 bytes.
"""

from __future__ import annotations

import functools
import io
import json
import math
import os
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from pinxit.config import UsageError, choice
from pinxit.files import whole
from pinxit.picture_texts import (
    PARAMETERS,
    beginning,
    exif_block,
    foreign_texts,
    picture_texts,
)

JSON_KEY = "pinxit"
SEGMENT = 65533
"""The number of bytes of EXIF that a JPEG can store."""


@dataclass(frozen=True)
class PictureFormat:
    """A format of picture files."""

    pillow: str
    """Pillow's name of the format."""
    suffix: str
    """The suffix of its files."""
    quality: int | None
    """The default quality, or None for a format that is always exact."""
    longest: int
    """The longest side that the format can store, in pixels."""


FORMATS = {
    "png": PictureFormat("PNG", ".png", None, 2**31 - 1),
    "webp": PictureFormat("WEBP", ".webp", 100, 16383),
    "jpeg": PictureFormat("JPEG", ".jpg", 95, 65500),
}
"""The formats by the names that `picture_bytes` takes. WebP of quality 100 is lossless."""


@dataclass(frozen=True)
class PictureFile:
    """A picture file that Pinxit wrote."""

    recipe: dict[str, Any]
    """The recipe, as `stored_recipe` returns it."""
    format: str
    """The name of its format, one of `FORMATS`."""


def parameters_text(recipe: Mapping[str, Any]) -> str:
    """Returns the recipe as the text ``parameters``."""
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
    if recipe.get("image"):
        settings["Denoising strength"] = f"{recipe['image']['strength']:g}"
    settings["Version"] = f"pinxit {recipe['version']}"
    lines = [recipe["prompt"]]
    if recipe.get("negative_prompt"):
        lines.append(f"Negative prompt: {recipe['negative_prompt']}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)


def check_format(format: str, quality: int | None = None) -> None:
    """Raises `UsageError` for an unknown format or a quality that it does not take.

    The quality is 1 to 100 for WebP and JPEG, and None for PNG, which is always exact.
    """
    choice("format", format, FORMATS)
    if format == "webp" and not features.check("webp"):
        problem = "not in this build of Pillow"
        raise UsageError("format", format, problem=problem, valid="png, jpeg")
    if quality is None:
        return
    if FORMATS[format].quality is None:
        problem = f"without effect, since {format} is always exact"
        raise UsageError("quality", quality, problem=problem, valid="format webp or jpeg")
    if not 1 <= quality <= 100:
        raise UsageError("quality", quality, problem="out of range", valid="1 to 100")


def stored_recipe(
    recipe: Mapping[str, Any], format: str = "png", quality: int | None = None
) -> dict[str, Any]:
    """Returns the recipe as a file of this format stores it: with the quality for WebP and JPEG.

    Without a `quality`, it is the one in the recipe, or else the format's default. Raises the
    errors of `check_format`, and `UsageError` for a picture or a recipe too large for the format.
    """
    check_format(format, quality)
    stored = json.loads(_json(recipe))
    usual = FORMATS[format].quality
    if usual is None:
        stored.pop("quality", None)
    else:
        stored["quality"] = quality or stored.get("quality") or usual
        check_format(format, stored["quality"])
    longest = max(stored["size"])
    if longest > FORMATS[format].longest:
        problem = f"too long for {format}"
        raise UsageError("size", longest, problem=problem, valid=f"up to {FORMATS[format].longest}")
    if format == "jpeg" and (length := len(_exif(stored))) > SEGMENT:
        problem = f"unable to hold the recipe of this picture, {length:,} bytes of EXIF"
        valid = f"png or webp, or a shorter prompt (a JPEG holds {SEGMENT:,} bytes)"
        raise UsageError("format", format, problem=problem, valid=valid)
    return stored


def picture_bytes(
    image: Image.Image,
    recipe: Mapping[str, Any],
    *,
    format: str = "png",
    quality: int | None = None,
) -> bytes:
    """Encodes an RGB image as a file with its recipe.

    `format` is png, webp or jpeg. `quality` is 1 to 100, by default 100 for WebP, which is
    lossless, and 95 for JPEG, whose colours have the full resolution at every quality. Equal
    arguments give equal bytes with the same version of Pillow. Raises the errors of
    `stored_recipe`.
    """
    if image.mode != "RGB":
        raise UsageError("image", image.mode, problem="not the mode of a picture", valid="RGB")
    stored = stored_recipe(recipe, format, quality)
    buffer = io.BytesIO()
    if format == "png":
        info = PngInfo()
        info.add_itxt(PARAMETERS, parameters_text(stored))
        info.add_itxt(JSON_KEY, _json(stored))
        image.save(buffer, format="PNG", pnginfo=info)
    elif format == "webp":
        exact = stored["quality"] == 100
        image.save(
            buffer, format="WEBP", quality=stored["quality"], lossless=exact, exif=_exif(stored)
        )
    else:
        image.save(
            buffer, format="JPEG", quality=stored["quality"], subsampling=0, exif=_exif(stored)
        )
    return buffer.getvalue()


def _json(recipe: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    return json.dumps(dict(recipe), ensure_ascii=ascii_only, sort_keys=True)


def _exif(recipe: Mapping[str, Any]) -> bytes:
    """Returns the EXIF block with both forms of the recipe."""
    return exif_block(f"{JSON_KEY}:{_json(recipe, ascii_only=True)}", parameters_text(recipe))


# --- reading ----------------------------------------------------------------------------------


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Returns the recipe in a picture that Pinxit wrote. Raises the errors of `read_picture`."""
    return read_picture(path).recipe


def read_picture(path: str | Path) -> PictureFile:
    """Returns the recipe and the format of a picture that Pinxit wrote, and decodes it as a check.

    Raises `UsageError` for a file that is no picture, is damaged, or has no recipe, and `OSError`
    for one that cannot be read. A picture of another program is named with what it contains.
    """
    data = Path(path).read_bytes()
    texts, pillow = picture_texts(data, where=str(path))
    text = texts.get(JSON_KEY)
    if text is None:
        raise UsageError(
            f"{path} contains no recipe of Pinxit{foreign_texts(texts)}; "
            "valid: a picture written by pinxit generate"
        )
    try:
        recipe = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} has a damaged recipe: {beginning(str(error))}") from error
    if not isinstance(recipe, dict):
        raise UsageError(f"{path} has a damaged recipe: a {type(recipe).__name__}, not an object")
    names = {each.pillow: name for name, each in FORMATS.items()}
    return PictureFile(recipe, names[pillow])


def _finite(text: str) -> float:
    """Parses a number of JSON, or raises ValueError if it is not finite."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


# --- files ------------------------------------------------------------------------------------


def slug(prompt: str, *, length: int = 48) -> str:
    """Returns the prompt for use in a file name: ASCII letters and digits, joined by hyphens."""
    words = re.findall(r"[a-z0-9]+", prompt.lower())
    cut = "-".join(words)[:length].strip("-")
    return cut or "image"


def _name(recipe: Mapping[str, Any], format: str) -> str:
    """Returns the name of a picture's file, without its number."""
    return f"{recipe['seed']}-{slug(recipe['prompt'])}{FORMATS[format].suffix}"


def stored_pictures(
    directory: str | Path,
    recipes: Sequence[Mapping[str, Any]],
    *,
    format: str | Sequence[str] = "png",
) -> dict[int, Path]:
    """Returns which of these pictures `save_picture` has written to the directory, by position.

    `format` is the format of all pictures, or a list with the format of each.
    """
    if not Path(directory).is_dir():
        return {}
    formats = [format] * len(recipes) if isinstance(format, str) else format
    by_name: dict[str, list[Path]] = {}
    for path in sorted(Path(directory).glob("*-*.*")):
        by_name.setdefault(path.name.partition("-")[2], []).append(path)
    stored: dict[int, Path] = {}
    recipe_in = functools.cache(_recipe_or_none)  # pictures of one name are many in a grid
    for i, (recipe, each) in enumerate(zip(recipes, formats, strict=True)):
        plain = stored_recipe(recipe, each)
        paths = by_name.get(_name(recipe, each), [])
        match = next((path for path in paths if recipe_in(path) == plain), None)
        if match is not None:
            stored[i] = match
            paths.remove(match)
    return stored


def _recipe_or_none(path: Path) -> dict[str, Any] | None:
    """Returns the recipe in a picture, or None if the file is damaged or has none."""
    try:
        return read_recipe(path)
    except (UsageError, OSError):
        return None


def numbers_in(directory: str | Path) -> set[int]:
    """Returns the numbers that begin the names of files in a directory, which need not exist."""
    if not Path(directory).is_dir():
        return set()
    matches = (re.match(r"(\d+)-", entry.name) for entry in os.scandir(directory))
    return {int(match[1]) for match in matches if match}


@dataclass
class _UsedNumbers:
    """The numbers of the files in a directory, as of the last listing or of this process's last
    file."""

    changed_ns: int
    """The time of the directory's last change that is known."""
    numbers: set[int]
    largest: int

    def add(self, number: int, changed_ns: int) -> None:
        """Adds the number of a file that this process has written."""
        self.numbers.add(number)
        self.largest = max(self.largest, number)
        self.changed_ns = changed_ns


_USED: OrderedDict[Path, _UsedNumbers] = OrderedDict()
"""The numbers of the last few directories that this process has written to."""
_MOST_USED = 8


def _used_numbers(directory: Path) -> _UsedNumbers:
    """Returns the numbers in a directory, which is listed if another program has changed it."""
    changed = directory.stat().st_mtime_ns
    known = _USED.pop(directory, None)
    if known is None or known.changed_ns != changed:
        numbers = numbers_in(directory)
        known = _UsedNumbers(changed, numbers, max(numbers, default=0))
    _USED[directory] = known
    while len(_USED) > _MOST_USED:
        _USED.popitem(last=False)
    return known


def save_picture(
    directory: str | Path,
    image: Image.Image,
    recipe: Mapping[str, Any],
    *,
    format: str = "png",
    quality: int | None = None,
    number: int | None = None,
    max_tries: int = 1000,
) -> Path:
    """Writes ``<number>-<seed>-<slug>`` with the format's suffix and returns its path.

    The number is `number` if no file of the directory has it, else the next after the largest.
    Never overwrites an existing file, even when two programs write to the same directory. Raises
    the errors of `picture_bytes`.

    The directory is listed once, and again if anything but this function has changed it, so that a
    picture does not take longer the more there are.
    """
    directory = Path(directory)
    data = picture_bytes(image, recipe, format=format, quality=quality)
    directory.mkdir(parents=True, exist_ok=True)
    used = _used_numbers(directory)
    following = used.largest + 1
    if number is None or number in used.numbers:
        number = following
    for _ in range(max_tries):
        path = directory / f"{number:05d}-{_name(recipe, format)}"
        try:
            with whole(path, replace=False) as temporary:
                temporary.write_bytes(data)
        except FileExistsError:
            number = max(number + 1, following)
            continue
        used.add(number, directory.stat().st_mtime_ns)
        return path
    raise UsageError(f"out: {str(directory)!r} has no free file number after {max_tries} tries")
