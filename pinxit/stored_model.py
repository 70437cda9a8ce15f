"""Reads and writes trained models on disk.

Two kinds of directory hold a model. A *release* consists of ``model.safetensors`` and
``config.json``: the parameters, the network's configuration, the names of the text encoder and of
the autoencoder, and the sampling settings. A *run* holds checkpoints ``checkpoints/step_*``
(`pinxit.checkpoint_files`). Of a checkpoint only the parameters to draw with are verified and read,
not the optimiser's state or the other averages. A file that does not match its checkpoint's
manifest is never used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
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
from pinxit.encoders.weights import flatten, unflatten
from pinxit.files import whole_set
from pinxit.lfs_pointer import pointer_problem

FORMAT = "pinxit-release"
SHOWN = 5
"""The number of differences that an error message lists."""
OF_GRIDS = ("prompts", "seeds")
"""Settings of the sample grids that older versions stored among the sampling settings."""
SHIPPED = Path(__file__).parent / "assets" / "scenes"
"""The release that ships with the package."""


@dataclass(frozen=True)
class Stored:
    """A model as stored on disk."""

    params: dict[str, Any]
    """Nested dict of float32 arrays."""
    model: dict[str, Any]
    """Fields of the transformer's config. Fields that are absent come from `preset`, if present."""
    text_encoder: str
    """Name or directory of the text encoder."""
    vae: str
    """Name or directory of the autoencoder, or "none" for a pixel model."""
    image_size: int
    """Side of the images, in pixels."""
    name: str
    """The model's display name."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Sampling settings; empty if not stored."""
    objective: dict[str, Any] = field(default_factory=dict)
    """The training objective, as in a run's config; empty if not stored."""
    extensions: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the files that the run loaded with --extensions, by name."""
    caption_cleaning: str = "none"
    """The cleaning of captions in training, which prompts need as well."""
    text_max_tokens: int | None = None
    """Maximum number of prompt tokens; None means the text encoder's own limit."""
    encoders: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the weights of ``text_encoder`` and ``vae``; empty if not stored."""
    details: dict[str, Any] = field(default_factory=dict)
    """The model's origin: step, EMA, measured figures."""


def read_model(path: str | Path | None, *, ema: str | None = None) -> Stored:
    """Reads a release, a checkpoint, or the newest valid checkpoint of a run.

    Without `path`, reads the model that ships with the package. `ema` is one of the stored averages
    or "raw" (see `choose_ema`). Raises `UsageError` if there is no valid model.
    """
    directory = SHIPPED if path is None else Path(path)
    if not directory.is_dir():
        problem = "not a directory" if directory.exists() else "missing"
        raise UsageError("checkpoint", str(directory), problem=problem, valid=_kinds())
    if (directory / "model.safetensors").is_file():
        if ema is not None:
            raise UsageError("ema", ema, problem="not in a release", valid=["runs and checkpoints"])
        return _read_release(directory)
    folders = [directory] if (directory / MANIFEST).is_file() else []
    problems = []
    for folder in folders or checkpoints_in(directory / "checkpoints") or checkpoints_in(directory):
        try:
            return _read_checkpoint(folder, ema=ema)
        except DamagedCheckpoint as error:
            problems.append(f"{folder.name}: {error}")
    if problems:
        raise UsageError(
            "checkpoint", str(directory), problem=f"damaged ({'; '.join(problems)})", valid=_kinds()
        )
    raise UsageError("checkpoint", str(directory), problem="not a Pinxit model", valid=_kinds())


def _kinds() -> str:
    return "a run (runs/<name>), one of its checkpoints, or a release directory"


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


def _read_release(directory: Path) -> Stored:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config = _json(directory / "config.json")
    if config.get("format") != FORMAT:
        raise UsageError("checkpoint", str(directory), problem="not a Pinxit model", valid=_kinds())
    try:
        tensors = load_file(str(directory / "model.safetensors"))
    except SafetensorError as error:
        if problem := pointer_problem(directory / "model.safetensors"):
            raise UsageError(f"checkpoint: {problem}") from error
        raise UsageError(
            "checkpoint", str(directory), problem=f"damaged ({error})", valid=_kinds()
        ) from error
    params = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
    names = ("model", "text_encoder", "vae", "image_size", "name", "sampling", "details")
    if missing := [name for name in names if name not in config]:
        raise UsageError(
            "checkpoint",
            str(directory),
            problem=f"incomplete (config.json lacks {', '.join(missing)})",
            valid=_kinds(),
        )
    optional = ("objective", "extensions", "caption_cleaning", "text_max_tokens", "encoders")
    names += tuple(name for name in optional if name in config)
    return Stored(unflatten(params), **{name: config[name] for name in names})


def _read_checkpoint(folder: Path, *, ema: str | None) -> Stored:
    """Reads the parameters of a checkpoint that `ema` chooses. Raises `DamagedCheckpoint` if a file
    that is needed is damaged."""
    manifest = CheckpointManifest(folder)
    _verify(manifest, COUNTERS)
    run = _json(folder / RUN)
    config = run["config"]
    best = read_choice(folder) or run.get("best_ema")  # where older versions stored it
    chosen = choose_ema(ema, manifest.averages(), best)
    part = PARAMS if chosen == "raw" else f"{AVERAGE}{chosen}"
    _verify(manifest, part)
    step = manifest.arrays(COUNTERS)["step"]
    model = {name: v for name, v in config["model"].items() if v is not None}
    use_vae = model.pop("use_stable_vae", True)
    return Stored(
        params=_as_float32(manifest.arrays(part)),
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
