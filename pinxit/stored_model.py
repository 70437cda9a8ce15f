"""Reads trained models from disk or from the Hub, and writes releases.

A *release* consists of ``model.safetensors`` and ``config.json``: the parameters, the network's
configuration, the names of the text encoder and of the autoencoder, and the sampling settings. A
*run* holds checkpoints ``checkpoints/step_*`` (`pinxit.checkpoint_files`). Of a checkpoint only the
parameters to draw with are verified and read, not the optimiser's state or the other averages. A
file that does not match its checkpoint's manifest is never used. A *pipeline* is a directory of
diffusers (`pinxit.prx_directory`). Releases and pipelines are also read from the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pinxit.checkpoint_files import (
    AVERAGE,
    COUNTERS,
    MANIFEST,
    PARAMS,
    RUN,
    CheckpointManifest,
    DamagedCheckpoint,
    checkpoints_in,
    read_choice,
)
from pinxit.config import UsageError, few
from pinxit.encoders.fingerprint import SCALING
from pinxit.encoders.safetensors_files import open_tensors
from pinxit.encoders.weights import flatten, unflatten
from pinxit.exported_file import read_exported_file
from pinxit.files import whole_set
from pinxit.hub_model import fetch_settings, fetch_weights, repository_of
from pinxit.lfs_pointer import pointer_problem
from pinxit.model_record import Stored, from_described
from pinxit.prx_directory import INDEX, OWN, read_prx, read_prx_settings

__all__ = [
    *("FORMAT", "SHIPPED", "Stored", "check_encoders", "choose_ema", "mismatches", "read_model"),
    "write_release",
]

FORMAT = "pinxit-release"
SHOWN = 5
"""The number of differences that an error message lists."""
OF_GRIDS = ("prompts", "seeds")
"""Settings of the sample grids that older versions stored among the sampling settings."""
SHIPPED = Path(__file__).parent / "assets" / "scenes"
"""The release that ships with the package."""


def read_model(path: str | Path | None, *, ema: str | None = None, weights: bool = True) -> Stored:
    """Reads a release, a checkpoint, the newest valid checkpoint of a run, or a PRX pipeline.

    `path` is a directory, a file that ``pinxit export --format safetensors`` wrote, or the id of a
    repository on the Hugging Face Hub that is a release or a PRX pipeline. Without it, the model
    that ships with the package is read. `ema` is one of a run's averages or "raw" (see
    `choose_ema`). Without `weights`, the record has no parameters, and as little as possible is
    read. Raises `UsageError` if there is no valid model.
    """
    directory, source = (SHIPPED, "") if path is None else (Path(path), str(path))
    if directory.is_file():
        _no_averages(ema, "a file")
        return read_exported_file(directory, weights=weights)
    if not directory.is_dir() and (repository := repository_of(source)) is not None:
        _no_averages(ema, "a model of the Hub")
        directory, source = _fetched(repository, weights=weights)
    if not directory.is_dir():
        raise _unknown(directory, "not a directory" if directory.exists() else "missing")
    if _is_release(directory):
        _no_averages(ema, "a release")
        return _read_release(directory, weights=weights)
    if (directory / INDEX).is_file():
        _no_averages(ema, "a pipeline of diffusers")
        return read_prx(directory, source=source, weights=weights)
    return _read_newest(directory, ema=ema, weights=weights)


def _fetched(repository: str, *, weights: bool) -> tuple[Path, str]:
    """Fetches a model from the Hub, its weights only if it can be used.

    Returns its folder and the id of its repository at the commit that was fetched.
    """
    directory, pinned = fetch_settings(repository)
    if (directory / INDEX).is_file():
        read_prx_settings(directory, source=pinned)
        weights = weights or (directory / OWN).is_dir()  # which decide on the modulation
    elif not _is_release(directory):
        raise _unknown(repository, "neither a Pinxit release nor a pipeline of diffusers")
    return fetch_weights(pinned) if weights else directory, pinned


def _is_release(directory: Path) -> bool:
    """Returns whether a directory is a release. Its weights may not have been fetched yet."""
    if (directory / INDEX).is_file():
        return False
    config = directory / "config.json"
    return (directory / "model.safetensors").is_file() or (
        config.is_file() and _json(config).get("format") == FORMAT
    )


def _no_averages(ema: str | None, where: str) -> None:
    """Raises if an average was asked for where there is only one set of parameters."""
    if ema is not None:
        raise UsageError("ema", ema, problem=f"not in {where}", valid=["runs and checkpoints"])


def _read_newest(directory: Path, *, ema: str | None, weights: bool) -> Stored:
    """Reads a checkpoint, or the newest valid one of a run."""
    folders = [directory] if (directory / MANIFEST).is_file() else []
    problems = []
    for folder in folders or checkpoints_in(directory / "checkpoints") or checkpoints_in(directory):
        try:
            return _read_checkpoint(folder, ema=ema, weights=weights)
        except DamagedCheckpoint as error:
            problems.append(f"{folder.name}: {error}")
    if problems:
        raise _unknown(directory, f"damaged ({'; '.join(problems)})")
    config = directory / "config.json"
    part = _json(config).get("_class_name") if config.is_file() else None
    if part is not None:
        problem = f"one part of a pipeline, a {part}; pass the folder that has {INDEX}"
        raise _unknown(directory, problem)
    raise _unknown(directory, "not a Pinxit model")


def _unknown(path: str | Path, problem: str) -> UsageError:
    """Returns the error for something that is no model that can be read."""
    return UsageError("checkpoint", str(path), problem=problem, valid=_kinds())


def _kinds() -> str:
    return (
        "a run (runs/<name>), one of its checkpoints, a release directory, a PRX directory of "
        "diffusers, an exported file, or the id of a release or PRX model on the Hub (owner/name)"
    )


def write_release(directory: str | Path, stored: Stored, *, dtype: str = "float32") -> Path:
    """Writes a release atomically. `dtype` is the dtype in the file; "float16" halves its size."""
    from safetensors.numpy import save_file

    directory = Path(directory)
    tensors = {name: np.asarray(leaf, dtype) for name, leaf in flatten(stored.params).items()}
    config = release_config(stored)
    with whole_set(directory, "model.safetensors", "config.json") as (weights, about):
        save_file(tensors, weights, metadata={"format": "np"})
        about.write_text(json.dumps(config, indent=2) + "\n")
    return directory


def release_config(stored: Stored) -> dict[str, Any]:
    """Returns the config.json of a release: everything about the model except its parameters."""
    return {
        "format": FORMAT,
        "version": 1,
        "name": stored.name,
        "image_size": stored.image_size,
        "text_encoder": stored.text_encoder,
        "vae": stored.vae,
        "model": stored.model,
        "sampling": stored.sampling,
        "objective": stored.objective,
        "extensions": stored.extensions,
        "caption_cleaning": stored.caption_cleaning,
        "text_max_tokens": stored.text_max_tokens,
        "encoders": stored.encoders,
        "details": stored.details,
    }


def _read_release(directory: Path, *, weights: bool) -> Stored:
    config = _json(directory / "config.json")
    if config.get("format") != FORMAT:
        raise _unknown(directory, "not a Pinxit model")
    stored = from_described(config, {}, where=str(directory / "config.json"))
    if not weights:
        return stored
    try:
        tensors = open_tensors(directory, ("model.safetensors",))
    except UsageError as error:
        if problem := pointer_problem(directory / "model.safetensors"):
            raise UsageError(f"checkpoint: {problem}") from error
        raise _unknown(directory, f"damaged ({error})") from error
    params = {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
    return replace(stored, params=unflatten(params))


def _read_checkpoint(folder: Path, *, ema: str | None, weights: bool) -> Stored:
    """Reads the parameters of a checkpoint that `ema` chooses. Raises `DamagedCheckpoint` if a file
    that is needed is damaged."""
    manifest = CheckpointManifest(folder)
    _verify(manifest, COUNTERS)
    run = _json(folder / RUN)
    config = run["config"]
    best = read_choice(folder) or run.get("best_ema")  # where older versions stored it
    chosen = choose_ema(ema, manifest.averages(), best)
    part = PARAMS if chosen == "raw" else f"{AVERAGE}{chosen}"
    if weights:
        _verify(manifest, part)
    step = manifest.arrays(COUNTERS)["step"]
    model = {name: v for name, v in config["model"].items() if v is not None}
    use_vae = model.pop("use_stable_vae", True)
    return Stored(
        params=_as_float32(manifest.arrays(part)) if weights else {},
        model=model,
        text_encoder=config["text_encoder"],
        vae=config["vae"] if use_vae else "none",
        image_size=config["image_size"],
        name=config["name"],
        sampling={n: v for n, v in config.get("sampling", {}).items() if n not in OF_GRIDS},
        objective=config.get("objective", {}),
        extensions=run.get("extensions", {}),
        caption_cleaning=config.get("caption_cleaning", "none"),
        text_max_tokens=config.get("text_max_tokens"),
        encoders=run.get("encoders", {}),
        details={"step": int(step), "ema": chosen},
    )


def _verify(manifest: CheckpointManifest, part: str) -> None:
    """Raises unless the files of a part, and those of no part, match the manifest."""
    if (problem := manifest.damage({part})) is not None:
        raise DamagedCheckpoint(problem)


def check_encoders(stored: Mapping[str, str], loaded: Mapping[str, str], *, where: str) -> None:
    """Raises if an encoder's weights are not those that the model was trained with.

    `stored` and `loaded` are fingerprints by encoder, and `where` names the model in the message.
    Older models lack some of them, which are then not compared.
    """
    for name, expected in stored.items():
        if name == SCALING and loaded.get(name, expected) != expected:
            problem = f"not the scaling of latents that {where} was trained with"
            valid = f"{expected} (scaling_factor and shift_factor in the autoencoder's config.json)"
            raise UsageError("vae", loaded[name], problem=problem, valid=valid)
        if name in loaded and loaded[name] != expected:
            raise UsageError(
                name,
                loaded[name],
                problem=f"not the weights that {where} was trained with",
                valid=f"weights with the fingerprint {expected}",
            )


def choose_ema(requested: str | None, averages: list[str], best: str | None = None) -> str:
    """Returns the name of the parameters to sample with.

    They are the requested ones, else the run's best, else the middle one of the averages, or "raw"
    if there are no averages.
    """
    if requested is not None:
        names = [requested, f"ema_{requested}"]
        for name in names:
            if name in averages or name == "raw":
                return name
        raise UsageError("ema", requested, valid=["raw", *averages])
    if best in averages or best == "raw":
        return str(best)
    # the names sort by the averages' length
    return sorted(averages)[len(averages) // 2] if averages else "raw"


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        if problem := pointer_problem(path):
            raise UsageError(f"checkpoint: {problem}") from error
        raise UsageError(
            "checkpoint", str(path), problem=f"not readable ({error})", valid=_kinds()
        ) from error
    if not isinstance(value, dict):
        raise UsageError("checkpoint", str(path), problem="not a JSON object", valid=_kinds())
    return value


def _as_float32(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the nested dict of arrays whose names are paths."""
    flat = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    return unflatten(flat, separator="/")


def mismatches(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Describes in one line the arrays that are missing, unexpected or of another shape.

    Both arguments are arrays by name, nested or not. The line lists `SHOWN` differences and counts
    the others. It is empty if there are none.
    """
    stored, expected = flatten(stored), flatten(expected)
    problems = [f"{name} is missing" for name in expected if name not in stored]
    problems += [f"{name} is unexpected" for name in stored if name not in expected]
    problems += [
        f"{name} is {np.shape(stored[name])}, not {tuple(expected[name].shape)}"
        for name in expected
        if name in stored and np.shape(stored[name]) != tuple(expected[name].shape)
    ]
    return few(problems, limit=SHOWN, separator="; ")
