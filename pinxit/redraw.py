"""Reads the recipe in a picture for drawing it again, and finds the model that drew it.

A recipe may come from anybody, so its types and its ranges are checked before it is used, and it
names files only beside the picture.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pinxit import stored_model
from pinxit.checkpoint_files import MANIFEST, CheckpointManifest, checkpoints_in
from pinxit.config import UsageError, choice, few, from_json, hints, misfit, positive
from pinxit.model_hash import hash_of_params
from pinxit.picture_files import FORMATS, PictureFile, check_format, read_picture
from pinxit.sampling import Order, Sampling, check_seed
from pinxit.text_decoding import valid_unicode

MOST_STEPS = 10_000
"""The number of steps that a recipe may ask for."""
MOST_PIXELS = 2**26
"""The number of pixels that a recipe may ask for."""
MOST_TOGETHER = 1024
"""The number of pictures that a recipe may compute together."""
DTYPES = ("float32", "bfloat16")
"""The dtypes of the encoders that a recipe may name."""


@dataclass(frozen=True)
class SourceOfRecipe:
    """The picture that an image-to-image picture was drawn from, as its recipe names it."""

    sha256: str
    """The SHA-256 of the source's pixels at the size of the picture."""
    strength: float
    """The part of the path from noise to data that was drawn, from 0 to 1."""
    name: str = ""
    """The name of the source's file, without its folder; empty if it had none."""
    mask_name: str | None = None
    """The name of the mask's file; None or empty if there was none."""
    mask_sha256: str | None = None
    """The SHA-256 of the mask; None without a mask."""


@dataclass(frozen=True)
class DrawnRecipe:
    """The checked recipe of a picture."""

    prompt: str
    """The text that the picture shows."""
    seed: int
    """The seed of the picture's noise."""
    size: tuple[int, int]
    """Width and height, in pixels."""
    negative_prompt: str = ""
    """The text that guidance steers away from."""
    batch_size: int | None = None
    """The number of pictures that were computed together; None where that has no effect."""
    model: str = ""
    """The name of the model that drew the picture."""
    model_hash: str = ""
    """The hash of the model's parameters (see `model_hash.py`)."""
    version: str = ""
    """The version of Pinxit that drew the picture."""
    encoder_dtype: str = "float32"
    """The dtype of the encoders."""
    quality: int | None = None
    """The quality of a WebP or JPEG file; None for a PNG."""
    image: SourceOfRecipe | None = None
    """The source of an image-to-image picture, otherwise None."""
    sampling: Sampling = field(default_factory=Sampling)
    """The sampling settings; older recipes lack some, which then have their defaults."""

    def __post_init__(self) -> None:
        positive("size", min(self.size))
        _at_most("size", self.size[0] * self.size[1], MOST_PIXELS)
        check_seed("seed", self.seed)
        _at_most("steps", self.sampling.steps, MOST_STEPS)
        positive("batch_size", self.batch_size)
        _at_most("batch_size", self.batch_size or 1, MOST_TOGETHER)
        choice("encoder_dtype", self.encoder_dtype, DTYPES)
        for name in ("prompt", "negative_prompt"):
            text = getattr(self, name)
            if valid_unicode(text) != text:
                raise UsageError(name, valid_unicode(text), problem="not valid Unicode")


def _at_most(field: str, value: int, limit: int) -> None:
    if value > limit:
        raise UsageError(field, value, problem="too large for a recipe", valid=f"up to {limit}")


def checked_recipe(recipe: Mapping[str, Any], *, where: str) -> DrawnRecipe:
    """Returns a recipe whose values have the right types and are in range.

    Raises `UsageError`, which begins with `where`, for wrong values, and for settings that this
    version lacks, because it would draw another picture without them.
    """
    own = {each.name for each in fields(DrawnRecipe)} - {"sampling"}
    names = {each.name for each in fields(Sampling)}
    if unknown := sorted(map(str, recipe.keys() - own - names)):
        version, listed = str(recipe.get("version", "")), few([repr(name) for name in unknown])
        raise UsageError(
            f"{where}: its recipe has settings that this version of Pinxit lacks: {listed}; "
            f"valid: the version that drew it ({version!r})"
        )
    missing = [name for name in ("prompt", "seed", "size") if name not in recipe]
    if missing:
        raise UsageError(f"{where}: its recipe lacks {', '.join(missing)}")
    try:
        _check_lists(DrawnRecipe, recipe)
        _check_lists(Sampling, recipe)
        sampling = from_json(Sampling, {n: v for n, v in recipe.items() if n in names})
        plain = {n: v for n, v in recipe.items() if n in own}
        if isinstance(source := recipe.get("image"), Mapping):
            plain["image"] = _source(source)
        return from_json(DrawnRecipe, {**plain, "sampling": sampling})
    except UsageError as error:
        raise UsageError(f"{where}: its recipe is wrong: {error}") from error


def _check_lists(cls: type, recipe: Mapping[str, Any]) -> None:
    """Raises for lists of another length, or of other values, than the fields of a dataclass."""
    for name, hint in hints(cls).items():
        value, kinds = recipe.get(name), typing.get_args(hint)
        if typing.get_origin(hint) is not tuple or not isinstance(value, list | tuple):
            continue
        problems = [misfit(kind, item) for kind, item in zip(kinds, value, strict=False)]
        if len(value) != len(kinds) or any(problems):
            valid = f"{len(kinds)} of {misfit(kinds[0], None)}"
            raise UsageError(name, value, problem="not understood", valid=valid)


def _source(source: Mapping[str, Any]) -> SourceOfRecipe:
    """Returns the source in a recipe. Raises `UsageError` for wrong values."""
    if missing := [name for name in ("sha256", "strength") if name not in source]:
        raise UsageError("image", dict(source), problem=f"without {' and '.join(missing)}")
    return from_json(SourceOfRecipe, source, prefix="image.")


def read_drawn(path: str | Path) -> tuple[DrawnRecipe, PictureFile]:
    """Returns the checked recipe in a picture, and the picture's file.

    Raises the errors of `read_picture` and `checked_recipe`.
    """
    file = read_picture(path)
    recipe = checked_recipe(file.recipe, where=str(path))
    try:
        check_format(file.format, recipe.quality if FORMATS[file.format].quality else None)
    except UsageError as error:
        raise UsageError(f"{path}: its recipe is wrong: {error}") from error
    return recipe, file


# --- the model --------------------------------------------------------------------------------


def find_model(
    recipe: DrawnRecipe, *, where: str, runs: str | Path = "runs"
) -> tuple[str | None, str | None]:
    """Returns the checkpoint and the average of the model that drew a picture.

    The checkpoint is None for the shipped model. Otherwise it is a release or a checkpoint of the
    run in `runs` that has the model's name. A model is recognised by the hash of its parameters.
    Raises `UsageError`, which begins with `where`, if there is none.
    """
    shipped = stored_model.read_model(None)
    if hash_of_params(shipped.params) == recipe.model_hash:
        return None, None
    folder = Path(runs) / recipe.model
    name = recipe.model
    local = bool(name) and Path(name).name == name and name not in (".", "..") and "\0" not in name
    match = match_in(folder, recipe) if local and folder.is_dir() else None
    if match is None:
        places = f"neither the shipped one nor in {folder}" if local else "not the shipped one"
        raise UsageError(
            f"{where}: drawn by the model {name!r} with the hash {recipe.model_hash!r}, which is "
            f"{places}; valid: --checkpoint and the path of a run, a checkpoint or a release"
        )
    return match


def match_in(path: str | Path, recipe: DrawnRecipe) -> tuple[str, str | None] | None:
    """Returns the release, or the checkpoint and its average, that drew a picture.

    Looks in `path`, which is a run, a checkpoint or a release. Returns None if there is none.
    Models that cannot be read are left out.
    """
    for folder, ema in _models_in(Path(path)):
        try:
            params = stored_model.read_model(folder, ema=ema).params
        except UsageError:
            continue
        if hash_of_params(params) == recipe.model_hash:
            return str(folder), ema
    return None


def _models_in(path: Path) -> Iterator[tuple[Path, str | None]]:
    """Yields a folder that is no run, the release in a run, and its checkpoints, newest first, with
    each average."""
    if path.is_dir() and not (path / "checkpoints").is_dir():
        yield path, None
    if (path / "model" / "model.safetensors").is_file():
        yield path / "model", None
    alone = (path / MANIFEST).is_file()
    for folder in [path] if alone else checkpoints_in(path / "checkpoints"):
        try:
            averages = CheckpointManifest(folder).averages()
        except UsageError:
            continue
        for ema in [*averages, "raw"]:
            yield folder, ema


# --- the source of an image-to-image picture --------------------------------------------------


def source_arguments(
    recipe: DrawnRecipe, picture: str | Path, *, image: str | None = None, mask: str | None = None
) -> dict[str, Any]:
    """Returns the arguments `image`, `mask` and `strength` of `TextToImage.order` for a picture.

    Files that are not given are looked for beside the picture, by the names in the recipe. Raises
    `UsageError` for a source or a mask that is not there.
    """
    if recipe.image is None:
        return {}
    source = recipe.image
    arguments: dict[str, Any] = {"strength": source.strength}
    arguments["image"] = image or _beside(picture, source.name, "image", source.sha256)
    if mask or source.mask_sha256:
        digest = source.mask_sha256 or ""
        arguments["mask"] = mask or _beside(picture, source.mask_name or "", "mask", digest)
    return arguments


def _beside(picture: str | Path, name: str, option: str, digest: str) -> str:
    """Returns the path of a file of this name in the picture's folder."""
    path = Path(picture).parent / name
    plain = bool(name) and Path(name).name == name and "\0" not in name
    if plain and path.is_file():
        return str(path)
    raise UsageError(
        f"{picture}: drawn from the {option} {name!r} (SHA-256 {digest[:12]!r}), which is not "
        f"beside it; valid: --{option} and the path of that file"
    )


def check_source(order: Order, recipe: DrawnRecipe, *, where: str) -> None:
    """Raises unless the source and the mask of an order of the recipe's size are those that the
    recipe names."""
    source, drawn_from = getattr(order, "source", None), recipe.image
    if drawn_from is None or source is None:
        return
    pairs = {
        "image": ("sha256", drawn_from.sha256),
        "mask": ("mask_sha256", drawn_from.mask_sha256),
    }
    for option, (name, expected) in pairs.items():
        digest = getattr(source, name)
        if (digest or "") != (expected or ""):
            raise UsageError(
                f"{where}: its {option} is another file than the one that it was drawn from "
                f"(SHA-256 {str(digest)[:12]!r}, not {str(expected)[:12]!r}); valid: --{option} "
                "and the path of that file"
            )
