"""`pinxit generate`: draws pictures for prompts, or again from the recipes in pictures."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinxit.cli.arguments import parse, typed_names
from pinxit.cli.generate_options import GenerateOptions
from pinxit.cli.habits import GENERATE_HABITS
from pinxit.cli.picture_requests import PictureRequest, picture_requests
from pinxit.cli.sampling_options import check_guidance
from pinxit.config import UsageError
from pinxit.output_paths import check_writable
from pinxit.progress import counted, showing
from pinxit.sampling import ALIASES, Order, Sampling
from pinxit.version import __version__

if TYPE_CHECKING:
    from pinxit.pipeline import TextToImage


@dataclass(frozen=True)
class OrderedPictures:
    """Pictures of one size and one kind of sampling, which one order draws."""

    places: list[int]
    """The position of each picture among all pictures of the command."""
    order: Order
    """The order, whose picture j has the position places[j]."""


def generate_command(argv: Sequence[str]) -> int:
    """Draws pictures, writes each when it is ready, and prints their paths.

    A command that was interrupted and runs again draws only the pictures that are missing.
    """
    options = parse(
        GenerateOptions,
        argv,
        aliases=ALIASES,
        prog="pinxit generate",
        description='Draws pictures: pinxit generate "a small red house under a full moon" --n 4',
        positional="prompt",
        habits=GENERATE_HABITS,
    )
    typed = typed_names(GenerateOptions, argv, default=GenerateOptions(), aliases=ALIASES)
    requests = picture_requests(options, argv, typed)
    out = Path(options.out)
    check_writable("out", options.out, out)
    from pinxit.picture_files import stored_pictures

    model, dtype = _load(options, requests, typed)
    groups = _groups(model, options, requests)
    recipes = _recipes(model, requests, groups, dtype)
    formats = [request.format for request in requests]
    paths = stored_pictures(out, recipes, format=formats)
    total = counted(len(requests), "picture")
    if paths:
        print(f"pinxit: already in {out}: {len(paths)} of {total}", file=sys.stderr)
    try:
        if len(paths) < len(requests):
            _draw(model, groups, recipes, formats, out, paths)
    finally:
        for i in sorted(paths):
            print(paths[i])
        if 0 < len(paths) < len(requests):
            again = shlex.join(["pinxit", "generate", *argv])
            rest = f"the same command draws the others: {again}"
            print(f"pinxit: in {out}: {len(paths)} of {total}; {rest}", file=sys.stderr)
    return 0


# --- the model --------------------------------------------------------------------------------


def _load(
    options: GenerateOptions, requests: Sequence[PictureRequest], typed: set[str]
) -> tuple[TextToImage, str]:
    """Returns the model that draws all requests, and the dtype of its encoders.

    Pictures are drawn again by the model in --checkpoint, or else by the one that drew them. Says
    on stderr if a picture will differ because its model or its version of Pinxit is another one.
    """
    from pinxit.model_loading import load_checkpoint
    from pinxit.redraw import find_model, match_in

    checkpoint, ema, dtype = options.checkpoint, options.ema, options.encoder_dtype
    drawn = {request.where: request.recipe for request in requests if request.recipe is not None}
    choices: dict[tuple[str | None, str | None, str], str] = {}
    for where, recipe in drawn.items():
        if checkpoint is None:
            path, average = find_model(recipe, where=where)
        else:
            match = match_in(checkpoint, recipe) if ema is None else None
            path, average = match or (checkpoint, ema)
        precision = dtype if "encoder_dtype" in typed else recipe.encoder_dtype
        choices.setdefault((path, average, precision), where)
    if len(choices) > 1:
        first, second = list(choices.values())[:2]
        problem = f"drawn by another model, or with another encoder_dtype, than {first!r}"
        raise UsageError("prompt", second, problem=problem, valid="one command for each model")
    if choices:
        checkpoint, ema, dtype = next(iter(choices))
    loaded = load_checkpoint(checkpoint, ema=ema, encoder_dtype=dtype)
    for where, recipe in drawn.items():
        _say_differences(where, recipe, loaded)
    return loaded, dtype


def _say_differences(where: str, recipe: Any, model: TextToImage) -> None:
    """Warns on stderr if a picture was drawn by another model or another version of Pinxit."""
    if recipe.model_hash != model.model_hash:
        theirs = f"{recipe.model!r} (hash {recipe.model_hash!r})"
        print(
            f"pinxit: warning: {where} was drawn by another model, {theirs}, than "
            f"{model.name!r} (hash {model.model_hash!r}): the picture will differ",
            file=sys.stderr,
        )
    if recipe.version != __version__:
        print(
            f"pinxit: {where} was drawn by pinxit {recipe.version!r}, this is {__version__}: "
            "the bytes may differ",
            file=sys.stderr,
        )


# --- orders -----------------------------------------------------------------------------------


def _groups(
    model: TextToImage, options: GenerateOptions, requests: Sequence[PictureRequest]
) -> list[OrderedPictures]:
    """Returns orders for the requests, one for each size and sampling, so that each program is
    compiled once. Checks every request before anything is drawn."""
    from pinxit.redraw import check_source

    places: dict[Any, list[int]] = {}
    for i, request in enumerate(requests):
        try:
            size, sampling = _checked(model, options, request)
        except UsageError as error:
            raise _located(request, error) from error
        source = tuple(sorted(request.source.items()))
        places.setdefault((size, sampling, request.batch_size, source), []).append(i)
    groups = []
    for (size, sampling, batch_size, source), members in places.items():
        chosen = [requests[i] for i in members]
        order = model.order(
            [request.prompt for request in chosen],
            negative_prompt=[request.negative_prompt for request in chosen],
            seed=[request.seed for request in chosen],
            size=size,
            batch_size=batch_size,
            **vars(sampling),
            **dict(source),
        )
        for where, recipe in {r.where: r.recipe for r in chosen if r.recipe is not None}.items():
            same, source_of = size == recipe.size, dict(source)
            # the hash of a source is that of its pixels at the size of the picture
            old = order if same else model.order(recipe.prompt, size=recipe.size, **source_of)
            check_source(old, recipe, where=where)
        groups.append(OrderedPictures(members, order))
    return groups


def _checked(
    model: TextToImage, options: GenerateOptions, request: PictureRequest
) -> tuple[tuple[int, int], Sampling]:
    """Returns the size and the sampling settings of a request, which the model can draw."""
    size = request.width or model.image_size, request.height or model.image_size
    model.latent_shape(size)
    sampling = model.sampling.override(**request.sampling)
    line = request.line
    if line is None or line.guidance_scale is None:
        check_guidance(options, sampling)
    if line is not None and line.negative_prompt and sampling.guidance_scale == 1:
        problem = "without effect, since the guidance scale 1 turns guidance off"
        raise UsageError("--n", line.negative_prompt, problem=problem, valid="leave it out")
    return size, sampling


def _recipes(
    model: TextToImage,
    requests: Sequence[PictureRequest],
    groups: Sequence[OrderedPictures],
    dtype: str,
) -> list[dict[str, Any]]:
    """Returns the recipe of each picture, as its file stores it."""
    from pinxit.picture_files import stored_recipe

    added = {} if dtype == "float32" else {"encoder_dtype": dtype}
    recipes: list[dict[str, Any]] = [{}] * len(requests)
    for group in groups:
        for j, i in enumerate(group.places):
            recipe = model.recipe(group.order, j) | added
            try:
                recipes[i] = stored_recipe(recipe, requests[i].format, requests[i].quality)
            except UsageError as error:
                raise _located(requests[i], error) from error
    return recipes


def _located(request: PictureRequest, error: UsageError) -> UsageError:
    """Returns the error with the line or the picture that asks for a request, if there is one."""
    return UsageError(f"{request.where}: {error}" if request.where else str(error))


# --- drawing ----------------------------------------------------------------------------------


def _draw(
    model: TextToImage,
    groups: Sequence[OrderedPictures],
    recipes: list[dict[str, Any]],
    formats: list[str],
    out: Path,
    paths: dict[int, Path],
) -> None:
    """Draws the pictures that are not in `paths`, and adds the path of each once it is written."""
    from rich.console import Console

    from pinxit import picture_files

    missing = len(recipes) - len(paths)
    numbers = _numbers(out, paths, len(recipes))
    text = f"drawing {counted(missing, 'picture')}"
    with showing(Console(stderr=True), text, unit="picture") as report:
        report(0, missing)
        for done, (i, image) in enumerate(_pictures(model, groups, paths), start=1):
            paths[i] = picture_files.save_picture(
                out, image, recipes[i], format=formats[i], number=numbers[i]
            )
            report(done, missing)


def _pictures(
    model: TextToImage, groups: Sequence[OrderedPictures], paths: dict[int, Path]
) -> Iterator[tuple[int, Any]]:
    """Yields each picture that is not in `paths`, with its position among all pictures."""
    for group in groups:
        skip = frozenset(j for j, i in enumerate(group.places) if i in paths)
        if len(skip) < len(group.places):
            for j, image in model.pictures(group.order, skip=skip):
                yield group.places[j], image


def _numbers(out: Path, paths: dict[int, Path], count: int) -> dict[int, int]:
    """Returns the numbers of the files that are missing, in the order of the pictures.

    They continue the numbers of an interrupted command, so that the folder is the same as after an
    uninterrupted one, or else follow the largest number in the folder.
    """
    from pinxit.picture_files import numbers_in

    firsts = {int(path.name.partition("-")[0]) - i for i, path in paths.items()}
    if len(firsts) == 1 and (first := firsts.pop()) > 0:
        return {i: first + i for i in range(count) if i not in paths}
    following = max(numbers_in(out), default=0) + 1
    missing = [i for i in range(count) if i not in paths]
    return {i: following + rank for rank, i in enumerate(missing)}
