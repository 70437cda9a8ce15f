"""Turns the prompts, the prompt file and the pictures of `pinxit generate` into requests."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinxit.cli.generate_options import GenerateOptions
from pinxit.cli.sampling_options import sampling_options
from pinxit.config import UsageError, positive, to_json
from pinxit.picture_files import check_format
from pinxit.picture_size import VALID_SIZE, parse_size
from pinxit.prompt_file import PromptLine, read_prompt_file
from pinxit.redraw import DrawnRecipe, read_drawn, source_arguments
from pinxit.sampling import check_seeds
from pinxit.text_decoding import valid_unicode

OURS = (".png", ".webp", ".jpg", ".jpeg", ".jpe", ".jfif")
"""Suffixes of the formats that have a recipe."""
OTHERS = (".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jxl")
"""Suffixes of other pictures, which are refused rather than drawn as a prompt."""
MODEL_FILES = ("config.json", "model_index.json", "model/config.json")
"""Files of which a folder with a model has at least one."""


@dataclass(frozen=True)
class PictureRequest:
    """One picture to draw. What is None here, the model decides."""

    prompt: str
    """The text that the picture shows."""
    negative_prompt: str
    """The text that guidance steers away from."""
    seed: int
    """The seed of the picture's noise."""
    width: int | None
    """The width, in pixels."""
    height: int | None
    """The height, in pixels."""
    sampling: dict[str, Any]
    """The sampling settings that differ from the model's."""
    batch_size: int | None
    """The number of pictures that each device computes together."""
    format: str
    """The format of the file."""
    quality: int | None
    """The quality of the file; None means the format's default."""
    source: dict[str, Any] = field(default_factory=dict)
    """The arguments image, mask and strength of `TextToImage.order` that are set."""
    where: str = ""
    """The line of a prompt file or the picture that asks for this, for messages."""
    line: PromptLine | None = None
    """The line of a prompt file that asks for this."""
    recipe: DrawnRecipe | None = None
    """The recipe of the picture that is drawn again."""


def is_picture(word: str) -> bool:
    """Returns whether a word of the command line names a picture and is not a prompt.

    It ends with the suffix of a picture, and is a file or has no white space.
    """
    suffix = os.path.splitext(word)[1].lower()
    return suffix in (*OURS, *OTHERS) and (os.path.isfile(word) or not re.search(r"\s", word))


def holds_model(word: str) -> bool:
    """Returns whether a word of the command line is the folder of a run or of a model.

    A folder without settings, such as one that has the name of what is to be drawn, does not count.
    """
    return bool(word) and any(os.path.isfile(os.path.join(word, name)) for name in MODEL_FILES)


def picture_requests(
    options: GenerateOptions, argv: Sequence[str], typed: Collection[str]
) -> list[PictureRequest]:
    """Returns the pictures that a command asks for, in their order. `typed` names its options.

    Raises `UsageError` for wrong values before a model is loaded.
    """
    positive("n", options.n)
    size = _size(options.size, argv)
    pictures = [word for word in options.prompt if is_picture(word)]
    _check_files(options, pictures)
    if pictures:
        return [request for path in pictures for request in _redrawn(path, options, typed, size)]
    lines = [PromptLine(text) for text in options.prompt]
    if options.prompts_file is not None:
        lines += read_prompt_file(options.prompts_file, options.text_encoding)
    elif options.text_encoding is not None:
        problem = "without effect, since it is the encoding of --prompts_file"
        raise UsageError("text_encoding", options.text_encoding, problem=problem)
    if not lines:
        raise UsageError("prompt", lines, problem="an empty list", valid="at least one prompt")
    for word in options.prompt:
        if holds_model(word):
            problem = "a folder with a model in it, not a prompt"
            valid = f'--checkpoint {shlex.quote(word)} "a prompt"'
            raise UsageError("prompt", word, problem=problem, valid=valid)
    for line in lines:
        if valid_unicode(line.prompt) != line.prompt:
            raise UsageError("prompt", valid_unicode(line.prompt), problem="not valid Unicode")
    return _requests(lines, options, size)


def _check_files(options: GenerateOptions, pictures: Sequence[str]) -> None:
    """Raises for options that do not go together, and for pictures among prompts."""
    if not pictures or options.format is not None:
        check_format(options.format or "png", options.quality)
    if pictures:
        prompts = [word for word in options.prompt if word not in pictures]
        if prompts or options.prompts_file is not None:
            problem = f"beside the picture {pictures[0]!r}"
            other = prompts[0] if prompts else options.prompts_file
            name = "prompt" if prompts else "prompts_file"
            raise UsageError(name, other, problem=problem, valid="only prompts, or only pictures")
        if options.ema is not None and options.checkpoint is None:
            problem = "without effect, since the average that drew the picture is used"
            raise UsageError("ema", options.ema, problem=problem, valid="with --checkpoint")
    elif options.image is None:
        for name in ("mask", "strength"):
            if (value := getattr(options, name)) is not None:
                problem = "without effect, since there is no --image"
                raise UsageError(name, value, problem=problem, valid="with --image")


def _size(text: str | None, argv: Sequence[str]) -> tuple[int | None, int | None]:
    """Returns the width and the height of --size. Refuses two words, of which one would become a
    prompt."""
    if text is None:
        return None, None
    size = parse_size(text)
    words = [word.removeprefix("--size=") for word in argv if word != "--size"]
    following = words[words.index(text) + 1 :][:1] if text in words else []
    if following and following[0].isdigit():
        problem = "two words"
        raise UsageError("size", f"{text} {following[0]}", problem=problem, valid=VALID_SIZE)
    return (size, size) if isinstance(size, int) else size


def _requests(
    lines: Sequence[PromptLine], options: GenerateOptions, size: tuple[int | None, int | None]
) -> list[PictureRequest]:
    """Returns the pictures of prompts. Picture i has the seed + i of the command line, and picture
    j of a line with a seed has that seed + j."""
    seeds = check_seeds(options.seed, options.n * len(lines))
    requests = []
    for number, line in enumerate(lines):
        own = None if line.seed is None else _seeds_of(line.seed, options.n, line.where)
        for j in range(options.n):
            negative = line.negative_prompt
            requests.append(
                PictureRequest(
                    prompt=line.prompt,
                    negative_prompt=options.negative_prompt if negative is None else negative,
                    seed=own[j] if own else seeds[number * options.n + j],
                    width=line.width or size[0],
                    height=line.height or size[1],
                    sampling=sampling_options(options) | line.sampling(),
                    batch_size=options.batch_size,
                    format=options.format or "png",
                    quality=options.quality,
                    source=_source_options(options),
                    where=line.where,
                    line=line,
                )
            )
    return requests


def _redrawn(
    path: str,
    options: GenerateOptions,
    typed: Collection[str],
    size: tuple[int | None, int | None],
) -> list[PictureRequest]:
    """Returns the requests that draw a picture again, with the options that were typed."""
    recipe, file = read_drawn(path)
    first = options.seed if "seed" in typed else recipe.seed
    format = options.format or file.format
    same = format == file.format and options.quality is None
    width, height = (size[0] or recipe.size[0]), (size[1] or recipe.size[1])
    negative = options.negative_prompt if "negative_prompt" in typed else recipe.negative_prompt
    source = source_arguments(recipe, path, image=options.image, mask=options.mask)
    return [
        PictureRequest(
            prompt=recipe.prompt,
            negative_prompt=negative,
            seed=seed,
            width=width,
            height=height,
            sampling=to_json(recipe.sampling) | sampling_options(options),
            batch_size=recipe.batch_size if options.batch_size is None else options.batch_size,
            format=format,
            quality=recipe.quality if same else options.quality,
            source=source | _source_options(options),
            where=path,
            recipe=recipe,
        )
        for seed in _seeds_of(first, options.n, path)
    ]


def _seeds_of(first: int, count: int, where: str) -> list[int]:
    try:
        return check_seeds(first, count)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _source_options(options: GenerateOptions) -> dict[str, Any]:
    """Returns the image options that were typed."""
    names = ("image", "mask", "strength")
    values = {name: getattr(options, name) for name in names}
    for name in ("image", "mask"):
        if values[name] is not None and not Path(values[name]).is_file():
            raise UsageError(name, values[name], problem="not a file", valid="a picture")
    return {name: value for name, value in values.items() if value is not None}
