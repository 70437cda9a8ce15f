"""Reads the pipeline directories of diffusers' PRX models as our own models.

::

    DIR/  model_index.json                    PRXPipeline (latents) or PRXPixelPipeline
          transformer/                        PRXTransformer2DModel, in one file or several
          scheduler/scheduler_config.json     FlowMatchEulerDiscreteScheduler
          text_encoder/  tokenizer/  vae/     read by the encoders' own loaders
          pinxit/                             in folders that `pinxit export` wrote

Everything is checked before the transformer's tensors are read: the classes, the settings that
change the result, the encoders' widths, and the names, shapes and types of all tensors. The stock
pipeline's arithmetic is kept: its times, its cleaning of prompts, its velocity from a predicted
picture. Pickled weights are never opened.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pinxit.config import UsageError, few, to_json
from pinxit.encoders.abstract_autoencoder import abstract_autoencoder
from pinxit.encoders.config_fields import naming
from pinxit.encoders.safetensors_files import StoredTensor, open_tensors
from pinxit.encoders.text_encoder_catalogue import (
    KINDS,
    abstract_text_encoder,
    described_text_encoder,
)
from pinxit.encoders.weights import flatten, read_config, unflatten
from pinxit.model_record import Stored, from_described
from pinxit.models.diffusers_prx import (
    CLASS,
    FIELDS,
    config_of_prx,
    merges_to,
    prx_config,
)
from pinxit.models.transformer import TransformerConfig, abstract, from_stored
from pinxit.prx_tensors import check_tensors, read_params

INDEX = "model_index.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
OWN = "pinxit"
"""The folder with our own files."""
OWN_FORMAT = "pinxit-export"
"""The format in ``pinxit/config.json``, which distinguishes it from a release's."""
MODULATION = "modulation.safetensors"
FACTORS = ("modulation.", "blocks.modulation.")
"""The beginnings of the names of the parameters in `MODULATION`, shared and of each block."""
HERE = "."
"""The name of an encoder that is in the directory itself."""
SCHEDULER = "FlowMatchEulerDiscreteScheduler"
TIMESTEPS = 1000
"""The number of timesteps that `pinxit.flow.time.diffusers_sigmas` has."""
UNUSUAL = (
    *("use_dynamic_shifting", "invert_sigmas", "shift_terminal", "use_karras_sigmas"),
    *("use_exponential_sigmas", "use_beta_sigmas", "stochastic_sampling"),
)
"""Settings of the scheduler that change its times in ways that we do not have."""
STEPS, GUIDANCE = 28, 4.0
"""The defaults of the stock pipelines' calls."""
LONGEST = 512
"""The largest number of tokens in a row of a text encoder whose length is a setting."""


@dataclass(frozen=True)
class PipelineKind:
    """A class of pipelines that can be read."""

    name: str
    has_vae: bool
    image_size: int
    """Its default for the side of the images, in pixels."""
    cleaning: str
    """Its cleaning of prompts, by our name."""


PIPELINES = {
    kind.name: kind
    for kind in (
        PipelineKind("PRXPipeline", True, 512, "stock"),
        PipelineKind("PRXPixelPipeline", False, 1024, "light"),
    )
}


def read_prx(directory: Path, *, source: str, weights: bool = True) -> Stored:
    """Reads a pipeline directory. `source` is what its encoders are loaded from: the directory, or
    a repository on the Hub. Without `weights`, the record has no parameters.

    Raises `UsageError` for a directory that is incomplete, damaged or of another kind.
    """
    stored, config = read_prx_settings(directory, source=source)
    own = _own_record(directory, config, source)
    if own is None and not weights:
        return stored
    folder = directory / "transformer"
    tensors = open_tensors(folder, (WEIGHTS,))
    check_tensors(tensors, config, folder)
    factors = None
    if own is not None:
        stored, config, factors = _with_factors(directory, own, config, tensors)
    if not weights:
        return stored
    return replace(stored, params=read_params(tensors, config, folder, factors))


def read_prx_settings(directory: Path, *, source: str) -> tuple[Stored, TransformerConfig]:
    """Reads what diffusers' own files say about a model: its record, without parameters, and the
    config of its network. Raises the errors of `read_prx` for all files except the weights."""
    index = read_config(directory / INDEX)
    kind = _pipeline(index, directory)
    config = _config(directory, kind)
    shift = _shift(directory)
    stored = Stored(
        params={},
        model=to_json(config),
        text_encoder=source,
        vae=source if kind.has_vae else "none",
        image_size=_image_size(index, kind, directory),
        name=Path(source.partition("@")[0]).resolve().name,
        sampling={
            "steps": STEPS,
            "guidance_scale": GUIDANCE,
            "solver": "euler",
            "shift": shift,
            "spacing": "diffusers",
        },
        caption_cleaning=kind.cleaning,
        text_max_tokens=_checked_encoders(directory, index, config, kind),
        details={"pipeline": kind.name},
    )
    return stored, config


def _pipeline(index: Mapping[str, Any], directory: Path) -> PipelineKind:
    """Returns the kind of a pipeline; raises unless all its parts are of classes that we read."""
    name = index.get("_class_name")
    if name not in PIPELINES:
        raise UsageError(
            f"{directory / INDEX} describes a {name!r}; readable: {', '.join(PIPELINES)} of "
            "diffusers, whose networks are a PRXTransformer2DModel"
        )
    kind = PIPELINES[name]
    expected = {"transformer": CLASS, "scheduler": SCHEDULER, "text_encoder": None}
    expected |= {"vae": None} if kind.has_vae else {}
    for part, cls in expected.items():
        cls_here = _class_of(index, part)
        settings = f"{part}_config.json" if part == "scheduler" else "config.json"
        if cls_here is None or not (directory / part / settings).is_file():
            problem = f"has no {part}/{settings}" if cls_here else f"has no {part} in {INDEX}"
            why = ", without which latents cannot be decoded" if part == "vae" else ""
            raise UsageError(f"{directory} is incomplete: it {problem}{why}")
        if cls is not None and cls_here != cls:
            raise UsageError(f"{directory / INDEX}: {part} is a {cls_here!r}; readable: {cls}")
    if not kind.has_vae and (scale := index.get("noise_scale", 2.0)) != 1.0:
        raise UsageError(
            f"{directory / INDEX}: noise_scale is {scale!r}, and the path of such a model is x_t = "
            "(1 - t) data + t noise_scale noise. Only 1.0 can be read, the path that Pinxit trains "
            "and samples"
        )
    return kind


def _class_of(index: Mapping[str, Any], part: str) -> str | None:
    """Returns the class of a pipeline's part, or None if it has no such part."""
    entry = index.get(part)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def _config(directory: Path, kind: PipelineKind) -> TransformerConfig:
    """Returns the network's config."""
    value = read_config(directory / "transformer" / "config.json")
    with naming(directory, subfolder="transformer"):
        if value.get("quantization_config") is not None:
            raise UsageError("quantization_config is set; only weights in floating point are read")
        config = config_of_prx(value, prediction="velocity" if kind.has_vae else "latents")
        if not kind.has_vae and config.in_channels != 3:
            raise UsageError(f"in_channels is {config.in_channels}; a pixel model has 3")
    known = {*FIELDS, "axes_dim"}
    unknown = [name for name in value if name not in known and not name.startswith("_")]
    if unknown:
        warnings.warn(
            f"{directory / 'transformer' / 'config.json'}: {few(unknown)} ignored, since "
            f"{CLASS} of diffusers ignores unknown settings, too",
            stacklevel=2,
        )
    return config


def _shift(directory: Path) -> float:
    """Returns the shift of the scheduler's times. Raises if they are not those of `Sampling`."""
    path = directory / "scheduler" / "scheduler_config.json"
    value = read_config(path)
    if (cls := value.get("_class_name", SCHEDULER)) != SCHEDULER:
        raise UsageError(f"{path} describes a {cls!r}; readable: {SCHEDULER}")
    for name in UNUSUAL:
        if value.get(name):
            raise UsageError(
                f"{path}: {name} is {value[name]!r}, which changes the times of the solver in a "
                "way that Pinxit does not have; only models sampled without it can be read"
            )
    steps, shift = value.get("num_train_timesteps", TIMESTEPS), value.get("shift", 1.0)
    if steps != TIMESTEPS:
        raise UsageError(f"{path}: num_train_timesteps is {steps!r}; it must be {TIMESTEPS}")
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not 0 < shift < np.inf:
        raise UsageError(f"{path}: shift is {shift!r}; it must be a number above 0")
    return float(shift)


def _checked_encoders(
    directory: Path, index: Mapping[str, Any], config: TransformerConfig, kind: PipelineKind
) -> int | None:
    """Checks that both encoders can be read and fit the network; reads no weights.

    Returns the number of tokens in a row of text, or None if the text encoder fixes it.
    """
    name = described_text_encoder(directory)[0][0]
    adjustable = next(known.takes_max_tokens for known in KINDS if known.name == name)
    length = _row_length(directory, index, kind)
    tokens = min(length, LONGEST) if adjustable else None
    text = abstract_text_encoder(directory, max_tokens=tokens)
    if not adjustable and not kind.has_vae and length < text.max_tokens:
        raise UsageError(
            f"{directory / INDEX}: prompt_max_tokens is {length}, but rows of this text encoder "
            f"always have {text.max_tokens} tokens"
        )
    widths = [("text_encoder", text.width, "context_in_dim", config.context_dim)]
    if kind.has_vae:
        channels = abstract_autoencoder(str(directory)).stats.channels
        widths += [("vae", channels, "in_channels", config.in_channels)]
    for part, width, field, expected in widths:
        if width != expected:
            raise UsageError(
                f"{directory}: the {part} has {width} channels, but {field} of the transformer is "
                f"{expected}, so the parts are not of one model"
            )
    return tokens


def _row_length(directory: Path, index: Mapping[str, Any], kind: PipelineKind) -> int:
    """Returns the number of tokens to which the stock pipeline pads a prompt.

    Without a limit, which tokenizers write as a number like 1e30, the stock pipeline does not pad.
    """
    field, path, value = "prompt_max_tokens", directory / INDEX, index.get("prompt_max_tokens", 256)
    if kind.has_vae:
        field, path = "model_max_length", directory / "tokenizer" / "tokenizer_config.json"
        value = read_config(path).get(field, LONGEST) if path.is_file() else LONGEST
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        raise UsageError(f"{path}: {field} is {value!r}; it must be a whole number above 0")
    return int(min(value, 10**9))


def _image_size(index: Mapping[str, Any], kind: PipelineKind, directory: Path) -> int:
    value = index.get("default_sample_size")
    value = kind.image_size if value is None else value
    if type(value) is not int or value < 1:
        raise UsageError(
            f"{directory / INDEX}: default_sample_size is {value!r}; it must be a size"
        )
    return value


def _own_record(directory: Path, config: TransformerConfig, source: str) -> Stored | None:
    """Returns the record in ``pinxit/config.json``, without parameters.

    Returns None if there is none, or if it describes another network than transformer/config.json.
    """
    path = directory / OWN / "config.json"
    if not path.is_file():
        return None
    described = read_config(path)
    if described.get("format") != OWN_FORMAT:
        raise UsageError(f"{path}: format is {described.get('format')!r}; known: {OWN_FORMAT}")
    stored = from_described(described, {}, where=str(path))
    with naming(path.parent):
        own = _network(stored, config)
    if prx_config(own) != prx_config(config) or own.prediction != config.prediction:
        warnings.warn(
            f"{path} describes another network than transformer/config.json, so it is left out, "
            "and the model is read as one of diffusers",
            stacklevel=2,
        )
        return None
    return replace(
        stored,
        model=to_json(own),
        text_encoder=source if stored.text_encoder == HERE else stored.text_encoder,
        vae=source if stored.vae == HERE else stored.vae,
    )


def _network(stored: Stored, config: TransformerConfig) -> TransformerConfig:
    """Returns the network's config in a record, with the channels of another config."""
    return from_stored(stored.model, in_channels=config.in_channels, context_dim=config.context_dim)


def _with_factors(
    directory: Path, stored: Stored, config: TransformerConfig, tensors: Mapping[str, StoredTensor]
) -> tuple[Stored, TransformerConfig, dict[str, Any] | None]:
    """Returns a record of ours, the network's config, and the parameters of a shared modulation.

    If those do not make the modulation in `tensors`, each block gets a whole map. Then the weights
    are others than the record's: what was measured does not hold for them.
    """
    own = _network(stored, config)
    if own.modulation == "per_block":
        return stored, own, None
    factors, problem = _stored_factors(directory / OWN / MODULATION, own)
    if factors is not None and merges_to(factors, tensors, own):
        return stored, own, factors
    warnings.warn(
        f"{directory}: the modulation is read as a whole map in each block, since "
        f"{problem or f'{OWN}/{MODULATION} does not make that of the weights'} (they are not in "
        "float32, or were changed)",
        stacklevel=2,
    )
    whole = replace(own, modulation="per_block")
    return replace(stored, model=to_json(whole), details={}, encoders={}), whole, None


def _stored_factors(path: Path, config: TransformerConfig) -> tuple[dict[str, Any] | None, str]:
    """Reads the parameters of a shared modulation, or returns why there are none."""
    if not path.is_file():
        return None, f"there is no {OWN}/{MODULATION}"
    tensors = open_tensors(path.parent, (MODULATION,))
    shapes = {
        name: tuple(leaf.shape)
        for name, leaf in flatten(abstract(config)[1]).items()
        if name.startswith(FACTORS)
    }
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        return None, f"{OWN}/{MODULATION} is of another network"
    return unflatten({n: np.asarray(tensor, np.float32) for n, tensor in tensors.items()}), ""
