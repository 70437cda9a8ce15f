"""Everything beside the model that figures depend on, so that a reader can repeat them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from pinxit.config import to_json
from pinxit.drawing import one_by_one
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.distances.evaluator import distances_protocol
from pinxit.version import __version__

SEED_RULE = (
    "picture i of the held-out prompts is drawn from seed i; the noise of row i of the validation "
    "loss follows from key 0 folded with i"
)
"""The seeds of an evaluation in words."""
PACKAGES = {"jax": "jax", "numpy": "numpy", "pillow": "Pillow"}
"""The packages whose versions figures may depend on."""


def protocol(
    context: EvaluationContext, names: Sequence[str], *, average: str | None, seconds: float
) -> dict[str, Any]:
    """Returns the settings, counts, hashes and versions of an evaluation, as JSON.

    `names` are the evaluators that ran, `average` is the name of the parameters, and `seconds` the
    time that the evaluation took. ``sets`` lists each set of pictures with its count, its prompts'
    hash, and the networks that it was seen by.
    """
    model = context.model
    record: dict[str, Any] = {
        "evaluators": list(names),
        "average": average,
        "rows": len(context.rows),
        "prompts": len(context.prompted),
        "image_size": model.image_size,
        "network": to_json(model.config),
        "sampling": to_json(model.sampling.override(**context.sampling)),
        "seeds": SEED_RULE,
        "dtype": str(model.config.dtype),
        "encoder_dtype": _dtype_of(model.autoencoder.params),
        "batch_size": _batches(context.batch_size),
        "device": jax.devices()[0].device_kind,
        "devices": len(model.devices),
        "sets": [_brief(one) for one in context.observations.used()],
        "versions": {"pinxit": __version__}
        | {name: version(package) for name, package in PACKAGES.items()},
        "seconds": round(seconds, 1),
    }
    if "distances" in names:
        record["distances"] = distances_protocol(context)
    return record


def _batches(batch_size: int) -> dict[str, Any]:
    """Returns the batch size, and whether pictures may depend on it."""
    return {
        "size": batch_size,
        "pictures": "drawn one by one" if one_by_one() else f"drawn in batches of {batch_size}",
    }


def _dtype_of(params: Any) -> str | None:
    """Returns the dtype of an encoder's weights, or None if it has none."""
    leaves = jax.tree.leaves(params)
    return str(np.dtype(leaves[0].dtype)) if leaves else None


def _brief(used: dict[str, Any]) -> dict[str, Any]:
    """Returns a set without what the protocol says once for all sets."""
    pictures = dict(used["pictures"])
    if isinstance(drawn := pictures.get("drawn"), dict):
        once = ("network", "batch_size", "device", "version")
        pictures["drawn"] = {name: value for name, value in drawn.items() if name not in once}
    return used | {"pictures": pictures}
