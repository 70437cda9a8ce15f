"""Settings of a run that its prepared dataset already knows: image size, encoders, stored text.

The manifest of a prepared dataset names the encoders that made it. A run needs the same ones, so
they are taken from there wherever they were not given.
"""

from __future__ import annotations

import math
from typing import Any

from pinxit.data.prepared.dataset import DatasetManifest
from pinxit.data.prepared.encoder_identity import ENCODERS
from pinxit.encoders.text_encoder_catalogue import TEXT_ENCODERS

BUNDLED = "tiny"
"""The name of the encoders that come with Pinxit."""


def known_settings(manifest: DatasetManifest) -> dict[str, Any]:
    """Returns the settings that follow from a prepared dataset, by dotted name.

    The text encoder is that of the stored text. Without stored text, a dataset that was made by the
    bundled autoencoder goes with the bundled text encoder, and any other leaves the choice open.
    """
    encoders = manifest.identity.get(ENCODERS, {})
    known: dict[str, Any] = {}
    if (size := manifest.identity.get("image", {}).get("size")) is not None:
        known["image_size"] = size
    known["model.use_stable_vae"] = manifest.latents is not None
    vae = encoders.get("vae", {}).get("name") if manifest.latents is not None else None
    if vae:
        known["vae"] = vae
    text = encoders.get("text") if manifest.text else None
    if text:
        known["text_encoder"] = text["name"]
        if not callable(TEXT_ENCODERS.get(text["name"])):  # its length may not be a setting
            known["text_max_tokens"] = text["max_tokens"]
        known["caption_cleaning"] = text["cleaning"]
        if "+" not in str(TEXT_ENCODERS.get(text["name"], text["name"])):
            known["cache_text"] = True
    elif vae == BUNDLED:
        known["text_encoder"] = BUNDLED
    return known


def token_side(manifest: DatasetManifest, preferred: int) -> int:
    """Returns the side of a token, at most `preferred`, that divides all images of a prepared
    dataset: in latent cells, or in pixels if it has no latents."""
    shapes = (manifest.latents or manifest.images or {}).get("shapes", ())
    sides = {int(side) for unit in shapes for shape in unit for side in shape.split("x")[:2]}
    return math.gcd(preferred, *sides) if sides else preferred
