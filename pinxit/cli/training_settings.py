"""The settings of a training command: a recipe, what its data and its run know, and its options.

An option always counts. A setting that was not given comes from the run of that name, if it exists,
else from the prepared dataset, else from the model that --init_from names, else from the recipe.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pinxit import recipes
from pinxit.cli.arguments import parse, typed_names
from pinxit.cli.habits import TRAIN_HABITS
from pinxit.cli.train_aliases import TRAIN_ALIASES
from pinxit.config import diff, flattened, full_names, replace, written
from pinxit.data.prepared.dataset import DatasetManifest, is_dataset, read_manifest
from pinxit.models.transformer import preset
from pinxit.recipes.coyo import coyo_test, on_pixels
from pinxit.stored_model import read_model
from pinxit.train.init_from import TAKEN, settings_of
from pinxit.train.prepared_settings import BUNDLED, known_settings, token_side
from pinxit.train.run_folder import folder_of, has_run, saved_config
from pinxit.train.settings import TrainConfig

TEXT = ("text_max_tokens", "caption_cleaning", "cache_text")
"""Settings of stored text, which another text encoder does not share."""
AUTOMATIC = ("image_size", "text_encoder", "vae")
"""Settings whose automatic choice a run keeps when it is resumed."""


@dataclass(frozen=True)
class TrainingSettings:
    """The settings that a command line describes."""

    config: TrainConfig
    default: TrainConfig
    """The settings without the options."""
    names: Collection[str]
    """The dotted names of the settings that were given."""
    note: str = ""
    """A line about the settings that come from the model of --init_from, or nothing."""


def training_settings(
    argv: Sequence[str], *, prog: str, description: str | None = None
) -> TrainingSettings:
    """Parses the options of a training command. `--help` prints help and exits.

    ``{recipe}`` in the description stands for the name of the recipe.
    """
    is_named = any(word.partition("=")[0] == "--recipe" for word in argv)
    recipe, rest = recipes.recipe_of(argv)
    default = recipes.RECIPES[recipe]()

    def parsed(default: TrainConfig) -> TrainConfig:
        return parse(
            TrainConfig,
            rest,
            default=default,
            aliases=TRAIN_ALIASES,
            prog=prog,
            description=description and description.replace("{recipe}", recipe),
            habits=TRAIN_HABITS,
        )

    config = parsed(default)
    names = typed_names(TrainConfig, rest, default=default, aliases=TRAIN_ALIASES)
    fitted = _fitted(default, config, names, is_named=is_named)
    fitted, note = _continued(fitted, config, names)
    if fitted != default:
        default, config = fitted, parsed(fitted)
    return TrainingSettings(config, default, names, note)


def _fitted(
    default: TrainConfig, config: TrainConfig, names: Collection[str], *, is_named: bool
) -> TrainConfig:
    """Returns the recipe with the settings that the data and the run of `config` determine."""
    fitted, path = default, config.dataset_path
    if path is not None and is_dataset(path):
        fitted = _for_prepared(default, config, names, path, is_named=is_named)
    folder = folder_of(config)
    if not has_run(folder):
        return fitted
    saved = saved_config(folder)
    changed = {name for name, _, _ in diff(default, fitted)}
    if not _same_path(saved.dataset_path, path):
        changed = set()
    values = flattened(saved)
    from_model = (
        TAKEN if saved.init_from is not None and saved.init_from == config.init_from else ()
    )
    earlier = {name: values[name] for name in (*changed, *AUTOMATIC, *from_model) if name in values}
    return replace(fitted, {name: value for name, value in earlier.items() if name not in names})


def _continued(
    fitted: TrainConfig, config: TrainConfig, names: Collection[str]
) -> tuple[TrainConfig, str]:
    """Returns the settings of a new run with those of the model that --init_from names, and a line
    that says so.

    The encoders of a prepared dataset stay, since its rows are encoded with them; that they are the
    model's is checked later. A preset that was given is not replaced either.
    """
    if "init_from" not in names or config.init_from is None or has_run(folder_of(config)):
        return fitted, ""
    with full_names(checkpoint="init_from"):
        settings = settings_of(read_model(config.init_from, weights=False))
    path = config.dataset_path
    excluded = {*names, *([] if fitted.image_size == 0 else ["image_size"])}
    if path is not None and is_dataset(path):
        excluded |= set(known_settings(read_manifest(path)))
        excluded -= {"model.use_stable_vae"} - set(names)
    if "model.preset" in names:
        excluded |= {name for name in settings if name.startswith("model.")}
    from_model = {name: value for name, value in settings.items() if name not in excluded}
    words = ["the network"] if "model.preset" in from_model else []
    words += [
        f"{name} {written(from_model[name])}"
        for name in TAKEN
        if name in from_model and "." not in name
    ]
    note = f"from {config.init_from}: {', '.join(words)}" if words else ""
    return replace(fitted, from_model), note


def _for_prepared(
    default: TrainConfig,
    config: TrainConfig,
    names: Collection[str],
    path: str,
    *,
    is_named: bool,
) -> TrainConfig:
    """Returns the recipe for a prepared dataset.

    A dataset without latents is trained on with the settings of `coyo_256_pixels`. One that was
    made by the bundled autoencoder, which knows drawn scenes only, gets the small network and the
    short run of `coyo_test`, unless a recipe was named.
    """
    manifest = read_manifest(path)
    known = known_settings(manifest)
    fitted = default
    if known.get("vae") == BUNDLED and not is_named:
        own = {"name": default.name, "dataset_name": default.dataset_name}
        fitted = replace(coyo_test(), {**own, "filters": default.filters})
    given_text = config.text_encoder if "text_encoder" in names else known.get("text_encoder")
    if given_text != known.get("text_encoder"):
        known = {name: value for name, value in known.items() if name not in TEXT}
    uses_latents = known.pop("model.use_stable_vae")
    if "model.use_stable_vae" not in names and fitted.model.use_stable_vae and not uses_latents:
        fitted = on_pixels(fitted, image_size=known.get("image_size", fitted.image_size))
    fitted = replace(fitted, known)
    if "model.use_stable_vae" in names or fitted.model.use_stable_vae != uses_latents:
        return fitted
    return _with_fitting_tokens(fitted, config, manifest)


def _with_fitting_tokens(
    fitted: TrainConfig, config: TrainConfig, manifest: DatasetManifest
) -> TrainConfig:
    """Returns the recipe with smaller tokens, if its own do not divide the images."""
    preferred = fitted.model.patch_size or preset(config.model.preset).patch_size
    side = token_side(manifest, preferred)
    return fitted if side == preferred else replace(fitted, {"model.patch_size": side})


def _same_path(saved: str | None, path: str | None) -> bool:
    """Returns whether two settings name the same dataset."""
    if saved is None or path is None:
        return saved == path
    return Path(saved).expanduser().resolve() == Path(path).expanduser().resolve()
