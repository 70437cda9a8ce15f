"""Reads one file of ``pinxit export --format safetensors``: a network and its description.

The tensors have the names of diffusers' `PRXTransformer2DModel`, and the key ``pinxit`` of the
metadata is the JSON of a release's config.json, which names the encoders.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pinxit.config import UsageError, to_json
from pinxit.encoders.safetensors_files import open_tensors, refused_file
from pinxit.model_record import Stored, from_described
from pinxit.models.transformer import from_stored
from pinxit.prx_tensors import check_tensors, read_params

KEY = "pinxit"
"""The key of the description in the file's metadata."""


def read_exported_file(path: Path, *, weights: bool = True) -> Stored:
    """Reads the file. Without `weights`, the record has no parameters.

    The file has a whole modulation map for each block, so the network has, too. Raises `UsageError`
    for other files.
    """
    if path.suffix != ".safetensors":
        raise UsageError(refused_file(path))
    tensors = open_tensors(path.parent, (path.name,))
    metadata = next(iter(tensors.values())).file.metadata if tensors else None
    if metadata is None or KEY not in metadata:
        raise UsageError(
            f"{refused_file(path)} (pinxit export --format safetensors writes files that can be "
            "read alone)"
        )
    where = f"the metadata of {path}"
    try:
        described = json.loads(metadata[KEY])
    except ValueError as error:
        raise UsageError(f"{where} is damaged: {KEY} is not JSON ({error})") from error
    stored = from_described(described, {}, where=where)
    own = from_stored(stored.model, in_channels=1, context_dim=1)
    width, outputs = (
        tensors[name].shape[axis] if name in tensors else 1
        for name, axis in (("txt_in.weight", -1), ("final_layer.linear.weight", 0))
    )
    channels = max(1, outputs // own.patch_size**2)
    config = replace(own, modulation="per_block", in_channels=channels, context_dim=width)
    check_tensors(tensors, config, path)
    stored = replace(stored, model=to_json(config))
    return replace(stored, params=read_params(tensors, config, path)) if weights else stored
