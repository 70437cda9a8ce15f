"""Writes the network of a model as one safetensors file with the tensor names of diffusers.

The file holds everything about the model except its encoders: the key ``pinxit`` of the metadata
is the JSON of a release's config.json, which names the encoders.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pinxit.config import UsageError
from pinxit.export.model_spec import model_spec
from pinxit.export.tensor_files import converted, size_of, write_file
from pinxit.exported_file import KEY
from pinxit.files import whole
from pinxit.model_loading import network_config
from pinxit.models.diffusers_prx import to_prx
from pinxit.models.transformer import TransformerConfig, from_stored
from pinxit.stored_model import Stored, release_config

SUFFIX = ".safetensors"


def check_file(out: Path) -> None:
    """Raises unless `out` can be the name of a new file."""
    if out.suffix != SUFFIX:
        problem = "not the name of a safetensors file"
        raise UsageError("out", str(out), problem=problem, valid=f"a name that ends in {SUFFIX}")
    if out.exists():
        raise UsageError("out", str(out), problem="already there", valid="the name of a new file")


def network_of(stored: Stored, *, where: str) -> TransformerConfig:
    """Returns the network's config, whose numbers of channels and features are those of the
    parameters. Raises `UsageError` if the parameters do not fit it; `where` names the model."""
    width, outputs = (
        stored.params.get(layer, {}).get("kernel", np.zeros((1, 1))).shape[axis]
        for layer, axis in (("text_in", 0), ("final_out", 1))
    )
    patch = from_stored(stored.model, in_channels=1, context_dim=1).patch_size
    channels = max(1, outputs // patch**2)
    return network_config(stored, channels=channels, width=width, where=where)


def write_single_file(
    out: Path,
    stored: Stored,
    config: TransformerConfig,
    *,
    dtype: str = "float32",
    licence: str | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Path:
    """Writes the file, whole or not at all. Raises `UsageError` if it exists, and `DiskFull`."""
    check_file(out)
    tensors = converted(to_prx(stored.params, config), dtype)
    total, written = sum(map(size_of, tensors.values())), 0

    def wrote(size: int) -> None:
        nonlocal written
        written += size
        progress(written, total)

    metadata = model_spec(
        stored,
        architecture=f"prx{'-pixel' if stored.vae == 'none' else ''}",
        implementation="diffusers",
        licence=licence,
        prediction="sample" if config.prediction == "latents" else "velocity",
    )
    metadata[KEY] = json.dumps(release_config(stored))
    with whole(out, replace=False) as temporary:
        write_file(temporary, tensors, metadata, wrote=wrote)
    return out
