"""Inception's features, for FID and KID by clean-fid's protocol, from a file of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float

from pinxit.config import UsageError
from pinxit.encoders.fingerprint import fingerprint
from pinxit.encoders.safetensors_files import PICKLES, StoredTensor, open_safetensors
from pinxit.encoders.weights import Tree, from_tensors
from pinxit.evaluate.extractors.base import Picture
from pinxit.evaluate.extractors.batches import BatchedNetwork
from pinxit.evaluate.extractors.clean_resize import DESCRIPTION, clean_resize
from pinxit.evaluate.extractors.inception_network import (
    WIDTH,
    folded,
    inception_features,
    inception_shapes,
)

BATCH = 16
"""Number of pictures that a device computes together."""
CONVERSION = "python scripts/convert_inception.py"
VALID = (
    "a safetensors or npz file with the tensors of pytorch-fid's Inception, as "
    f"`{CONVERSION}` writes it"
)
NOT_OF_FEATURES = ("fc.", "AuxLogits.")
"""The beginnings of the names of tensors that features do not depend on."""


class InceptionFeatures:
    """Inception v3's 2048 features of each picture, with clean-fid's resizing."""

    name = "inception"
    width = WIDTH

    def __init__(self, params: Tree) -> None:
        """Extracts with parameters from `load_inception`."""
        self._fingerprint = fingerprint(params)
        self._network = BatchedNetwork(inception_features, folded(params), batch=BATCH)

    def about(self) -> Mapping[str, Any]:
        """Returns the weights' fingerprint and the resizing."""
        return {"name": self.name, "weights": self._fingerprint, "resize": DESCRIPTION}

    def __call__(
        self, pictures: Sequence[Picture], prompts: Sequence[str]
    ) -> Float[np.ndarray, "n d"]:
        """Returns the features of each picture."""
        return self._network(clean_resize(picture) for picture in pictures)


def load_inception(path: str | Path) -> Tree:
    """Returns Inception's parameters in float32, from a safetensors or npz file of any float type.

    Raises `UsageError` for files of another kind and for tensors that are missing, unexpected, of a
    wrong shape or not finite. Files that are pickled are never opened.
    """
    return from_tensors(
        _tensors(Path(path)),
        inception_shapes(),
        source=f"inception: {path}",
        description="the Inception v3 of FID",
        ignore=ignored,
    )


def ignored(name: str) -> bool:
    """Returns whether features do not depend on the tensor of this name."""
    return name.startswith(NOT_OF_FEATURES) or name.endswith(".num_batches_tracked")


def _tensors(path: Path) -> Mapping[str, StoredTensor | np.ndarray]:
    if path.is_dir() or not path.exists():
        problem = "a directory" if path.is_dir() else "not a file"
        raise UsageError("inception", str(path), problem=problem, valid=VALID)
    with path.open("rb") as file:
        start = file.read(4)
    archive = start.startswith(b"PK")
    if archive and path.suffix == ".npz":
        return _npz(path)
    if archive or start.startswith(b"\x80") or path.suffix in PICKLES:
        problem = (
            "a pickle or TorchScript, which is not opened here; convert it once, where torch is "
            f"installed: `{CONVERSION} {path} inception.safetensors`"
        )
        raise UsageError("inception", str(path), problem=problem, valid=VALID)
    try:
        return open_safetensors(path)
    except UsageError as error:
        raise UsageError(f"inception: {error}; valid: {VALID}") from error


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, BadZipFile) as error:
        problem = f"not a whole npz file of numbers ({error})"
        raise UsageError("inception", str(path), problem=problem, valid=VALID) from error
