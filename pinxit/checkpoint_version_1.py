"""Reads the arrays of checkpoints of version 1, which Orbax stored. Nothing writes them any more.

Orbax is needed for this alone (the extra ``older-checkpoints``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pinxit.config import UsageError
from pinxit.encoders.weights import flatten

STATE = "state"
"""The folder of a checkpoint with its arrays."""


def read_version_1(folder: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a checkpoint by their path, such as ``params/final_out/kernel``.

    The paths inside the optimiser's state are joined by dots. Raises `UsageError` without Orbax.
    """
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        problem = f"of an older format ({error})"
        valid = "the same command after: pip install 'pinxit[older-checkpoints]'"
        raise UsageError("checkpoint", str(folder), problem=problem, valid=valid) from error
    with ocp.PyTreeCheckpointer() as reader:
        tree: dict[str, Any] = reader.restore((folder / STATE).absolute())
    arrays = {name: leaf for name, leaf in flatten(tree, separator="/").items() if leaf is not None}
    return {name: np.asarray(leaf) for name, leaf in arrays.items()}
