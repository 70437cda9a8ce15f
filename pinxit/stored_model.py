"""Trained models on disk: what is read, whole and checked, and what is written.

Two kinds of directory hold a model. A *release* is ``model.safetensors`` and ``config.json``: the
parameters, the network's shape, the names of the text encoder and of the autoencoder, and how to
draw. A *run* holds checkpoints ``checkpoints/step_*``, each with its arrays (Orbax), the run's
config in ``run.json``, and ``manifest.json`` with the SHA-256 of every file; nothing is taken from
a checkpoint whose files are not what its manifest says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pinxit.config import UsageError
from pinxit.encoders.weights import flatten, unflatten
from pinxit.files import whole_set

FORMAT = "pinxit-release"
SHOWN = 5
"""How many differences a refusal names."""
MANIFEST = "manifest.json"
"""The file of a checkpoint that lists its files with their hashes."""
OF_GRIDS = ("prompts", "seeds")
"""Older versions kept the sample grids' prompts and seeds among the sampling settings."""
SHIPPED = Path(__file__).parent / "assets" / "scenes"
"""The checkpoint that comes with the package."""


@dataclass(frozen=True)
class Stored:
    """A model as it was on disk."""

    params: dict[str, Any]
    """Nested dict of float32 arrays."""
    model: dict[str, Any]
    """Fields of the transformer's config; `preset` may name the rest."""
    text_encoder: str
    """Name or directory of the text encoder."""
    vae: str
    """Name or directory of the autoencoder; "none" for a pixel model."""
    image_size: int
    """Side of the images, in pixels."""
    name: str
    """What to call the model."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """How to draw, where that was stored."""
    objective: dict[str, Any] = field(default_factory=dict)
    """The loss that the model was trained with, as in a run's config; empty where not stored."""
    extensions: dict[str, str] = field(default_factory=dict)
    """Files that the run was given by --extensions, with their SHA-256."""
    caption_cleaning: str = "none"
    """How captions were cleaned in training, and so prompts are now."""
    text_max_tokens: int | None = None
    """Tokens of a prompt that are read; None: as the text encoder says."""
    encoders: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the weights of ``text_encoder`` and ``vae``; empty where not stored."""
    details: dict[str, Any] = field(default_factory=dict)
    """Where it comes from: step, EMA, measured figures."""


def read_model(path: str | Path | None, *, ema: str | None = None) -> Stored:
    """The model in a release, a checkpoint, or a run (its newest valid checkpoint)."""
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
    found = sorted(directory.glob("checkpoints/step_*")) or sorted(directory.glob("step_*"))
    problems = []
    for folder in reversed(found):
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
    raise UsageError(
        "checkpoint", str(directory), problem="not a model of Pinxit's", valid=_kinds()
    )


def _kinds() -> str:
    return "a run (runs/<name>), one of its checkpoints, or a release directory"


def write_release(directory: str | Path, stored: Stored, *, dtype: str = "float32") -> Path:
    """Writes a release, whole or not at all; `dtype` is that of the file ("float16" halves it)."""
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
        raise UsageError(
            "checkpoint", str(directory), problem="not a model of Pinxit's", valid=_kinds()
        )
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
    chosen = choose_ema(ema, list(averages), run.get("best_ema"))
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


def check_encoders(stored: Mapping[str, str], found: Mapping[str, str], *, where: str) -> None:
    """Raises if an encoder's weights are not those that the model was trained with."""
    for name, wanted in stored.items():
        if name in found and found[name] != wanted:
            raise UsageError(
                name,
                found[name],
                problem=f"not the weights that {where} was trained with",
                valid=f"those with the fingerprint {wanted}",
            )


def choose_ema(wanted: str | None, averages: list[str], best: str | None = None) -> str:
    """The parameters to draw with: those asked for, the run's best, or the middle average."""
    if wanted is not None:
        named = [wanted, f"ema_{wanted}"]
        for name in named:
            if name in averages or name == "raw":
                return name
        raise UsageError("ema", wanted, valid=["raw", *averages])
    if best in averages or best == "raw":
        return str(best)
    # names sort by length
    return sorted(averages)[len(averages) // 2] if averages else "raw"


def damage(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint, by its manifest; None where nothing is."""
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
    return f"{extra[0]} is not in its manifest" if extra else None


def files_of_checkpoint(folder: Path) -> Iterator[Path]:
    """All files of a checkpoint, in a fixed order, the manifest excepted."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            yield path


def sha256_of(path: Path) -> str:
    """A file's hash."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(folder: Path) -> None:
    """Raises unless every file of a checkpoint is what its manifest says."""
    if (found := damage(folder)) is not None:
        problem = f"damaged ({found})"
        raise UsageError("checkpoint", str(folder), problem=problem, valid=_kinds())


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(
            "checkpoint", str(path), problem=f"not readable ({error})", valid=_kinds()
        ) from error
    if not isinstance(value, dict):
        raise UsageError("checkpoint", str(path), problem="not an object", valid=_kinds())
    return value


def _map(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree as nested dicts of NumPy float32."""
    flat = {name: np.asarray(leaf, np.float32) for name, leaf in flatten(tree).items()}
    return unflatten(flat)


def mismatches(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What is missing, extra or of another shape, in a line; empty if nothing is.

    Both are arrays by name, nested or not. `SHOWN` are told of, the others counted.
    """
    found, wanted = flatten(found), flatten(wanted)
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is unexpected" for name in found if name not in wanted]
    problems += [
        f"{name} is {np.shape(found[name])}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and np.shape(found[name]) != tuple(wanted[name].shape)
    ]
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "; ".join(problems[:SHOWN] + more)
