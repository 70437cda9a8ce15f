"""Reads the tensors of a `PRXTransformer2DModel` as our parameters: checked first, then one by one.

Numbers of any floating type become float32. The headers of the files show whether they fit the
config, so nothing is read of files that do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pinxit.config import UsageError, few
from pinxit.encoders.safetensors_files import DTYPES, StoredTensor
from pinxit.encoders.weights import flatten
from pinxit.models.diffusers_prx import from_prx, prx_shapes
from pinxit.models.transformer import TransformerConfig


def check_tensors(
    tensors: Mapping[str, StoredTensor], config: TransformerConfig, where: Path
) -> None:
    """Raises one error for all tensors that do not fit the config, before any is read."""
    expected = prx_shapes(config)
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "": [
            f"{name} has shape {tensors[name].shape}, expected {shape}"
            for name, shape in expected.items()
            if name in tensors and tensors[name].shape != shape
        ]
        + [
            f"{name} is of type {tensor.dtype}, known: {', '.join(DTYPES.values())}"
            for name, tensor in tensors.items()
            if name in expected and tensor.dtype not in DTYPES.values()
        ],
    }
    if any(problems.values()):
        listed = [f"{w} {few(names)}".strip() for w, names in problems.items() if names]
        count = sum(map(len, problems.values()))
        raise UsageError(f"{where}: {count} tensors do not fit the config: {'; '.join(listed)}")


def read_params(
    tensors: Mapping[str, StoredTensor],
    config: TransformerConfig,
    where: Path,
    factors: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Reads the tensors, after `check_tensors`, as float32 parameters.

    `factors` are the parameters of a shared modulation, if they are known (see `from_prx`). Raises
    `UsageError` if some numbers are not finite.
    """
    params = from_prx(tensors, config, factors=factors)
    bad = [name for name, leaf in flatten(params).items() if not np.isfinite(leaf).all()]
    if bad:
        raise UsageError(f"{where}: the weights are damaged: not finite in {few(bad)}")
    return params
