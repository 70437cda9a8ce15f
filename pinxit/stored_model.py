"""Reads and writes trained models on disk.

Two kinds of directory hold a model. A *release* consists of ``model.safetensors`` and
``config.json``: the parameters, the network's configuration, the names of the text encoder and of
the autoencoder, and the sampling settings. A *run* holds checkpoints ``checkpoints/step_*``, each
with its arrays (Orbax), the run's config in ``run.json``, and ``manifest.json`` with the SHA-256 of
every file. A checkpoint whose files do not match its manifest is never read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pinxit.config import UsageError
from pinxit.encoders.fingerprint import SCALING
from pinxit.encoders.weights import flatten, unflatten
from pinxit.files import whole_set, write_json

FORMAT = "pinxit-release"
SHOWN = 5
"""The number of differences that an error message lists."""
MANIFEST = "manifest.json"
"""The file of a checkpoint that lists its files with their hashes."""
CHOICE = "chosen.json"
"""The file of a checkpoint that names its best parameters. It is written after the manifest."""
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
    if (directory / "manifest.json").is_file() and (directory / "state").is_dir():
        return _read_checkpoint(directory, ema=ema)
    problems = []
    for folder in checkpoints_in(directory / "checkpoints") or checkpoints_in(directory):
        try:
            _verify(folder)
        except UsageError as error:
            problems.append(str(error))
            continue
        return _read_checkpoint(folder, ema=ema)
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
    config = {
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
    with whole_set(directory, "model.safetensors", "config.json") as (weights, about):
        save_file(tensors, weights, metadata={"format": "np"})
        about.write_text(json.dumps(config, indent=2) + "\n")
    return directory


def _read_release(directory: Path) -> Stored:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config = _json(directory / "config.json")
    if config.get("format") != FORMAT:
        raise UsageError("checkpoint", str(directory), problem="not a Pinxit model", valid=_kinds())
    try:
        tensors = load_file(str(directory / "model.safetensors"))
    except SafetensorError as error:
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
    import orbax.checkpoint as ocp

    _verify(folder)
    run = _json(folder / "run.json")
    config = run["config"]
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.restore((folder / "state").absolute())
    averages = tree.get("ema") or {}
    best = read_choice(folder) or run.get("best_ema")  # where older versions stored it
    chosen = choose_ema(ema, list(averages), best)
    params = tree["params"] if chosen == "raw" else averages[chosen]
    model = {name: v for name, v in config["model"].items() if v is not None}
    use_vae = model.pop("use_stable_vae", True)
    return Stored(
        params=_map(params),
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
        details={"step": int(np.asarray(tree["counters"]["step"])), "ema": chosen},
    )


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


def damage(folder: Path) -> str | None:
    """Compares a checkpoint's files with its manifest; returns the first problem, or None."""
    try:
        listed: dict[str, str] = json.loads((folder / MANIFEST).read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    present = {str(path.relative_to(folder)) for path in files_of_checkpoint(folder)}
    for name in sorted(listed):
        if name not in present:
            return f"{name} is missing"
        if sha256_of(folder / name) != listed[name]:
            return f"{name} is damaged (its SHA-256 differs)"
    extra = sorted(present - set(listed))
    if extra:
        return f"{extra[0]} is not in its manifest"
    if (folder / CHOICE).exists() and read_choice(folder) is None:
        return f"{CHOICE} is damaged"
    return None


def write_choice(folder: Path, best: str) -> None:
    """Records which parameters of a checkpoint are the best ones, atomically."""
    write_json(folder / CHOICE, {"best": best, "sha256": _digest_of(best)})


def read_choice(folder: Path) -> str | None:
    """Returns the name of a checkpoint's best parameters, or None if none or a damaged one is
    recorded."""
    try:
        value = json.loads((folder / CHOICE).read_text())
        best, digest = str(value["best"]), value["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return best if digest == _digest_of(best) else None


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def step_of_checkpoint(folder: Path) -> int | None:
    """Returns the step in the name of a checkpoint's folder (``step_00000500``).

    Any other name, such as that of a copy, gives None: such a folder is never read by itself.
    """
    match = re.fullmatch(r"step_(\d{8,})", folder.name)
    return int(match[1]) if match else None


def checkpoints_in(folder: Path) -> list[Path]:
    """Returns the checkpoints in a folder by their names, newest first. Nothing is verified."""
    steps = {path: step_of_checkpoint(path) for path in folder.glob("step_*") if path.is_dir()}
    return sorted(
        (path for path, step in steps.items() if step is not None),
        key=lambda path: steps[path] or 0,
        reverse=True,
    )


def files_of_checkpoint(folder: Path) -> Iterator[Path]:
    """Yields all files of a checkpoint that the manifest lists, in a fixed order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (MANIFEST, CHOICE):
            yield path


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(folder: Path) -> None:
    """Raises unless a checkpoint's files match its manifest."""
    if (problem := damage(folder)) is not None:
        problem = f"damaged ({problem})"
        raise UsageError("checkpoint", str(folder), problem=problem, valid=_kinds())


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(
            "checkpoint", str(path), problem=f"not readable ({error})", valid=_kinds()
        ) from error
    if not isinstance(value, dict):
        raise UsageError("checkpoint", str(path), problem="not a JSON object", valid=_kinds())
    return value


def _map(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a tree to nested dicts of NumPy float32 arrays."""
    flat = {name: np.asarray(leaf, np.float32) for name, leaf in flatten(tree).items()}
    return unflatten(flat)


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
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "; ".join(problems[:SHOWN] + more)
