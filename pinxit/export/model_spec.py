"""The metadata of exported safetensors files, after the Model Metadata Standard of Stability AI.

The standard (github.com/Stability-AI/ModelSpec) defines keys with the prefix ``modelspec.`` that
interfaces and other tools read. The hash covers the tensors' bytes and not the header. There is no
date, because two exports of a model must be equal byte for byte.
"""

from __future__ import annotations

from pinxit.export.tensor_files import HASH
from pinxit.stored_model import Stored

VERSION = "1.0.0"


def model_spec(
    stored: Stored, *, architecture: str, implementation: str, licence: str | None, prediction: str
) -> dict[str, str]:
    """Returns the metadata of a network's file. The writer of the file fills in the hash."""
    side = stored.image_size
    spec = {
        "modelspec.sai_model_spec": VERSION,
        "modelspec.architecture": architecture,
        "modelspec.implementation": implementation,
        "modelspec.title": stored.name,
        "modelspec.description": description(stored),
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.prediction_type": prediction,
        HASH: "",
    }
    if licence is not None:
        spec["modelspec.license"] = licence
    return {"format": "pt", **spec}


def description(stored: Stored) -> str:
    """Returns one sentence about the model."""
    side = stored.image_size
    space = "pixels" if stored.vae == "none" else "latents"
    return (
        f"A text-to-image transformer for pictures of {side}x{side} pixels, trained with flow "
        f"matching on {space} by Pinxit."
    )
