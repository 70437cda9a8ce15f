"""CLIP's image embeddings as features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from pinxit.encoders.clip import ClipConfig, image_forward, load_clip, normalise, vision_tower
from pinxit.encoders.fingerprint import fingerprint
from pinxit.evaluate.extractors.base import Picture
from pinxit.evaluate.extractors.batches import BatchedNetwork
from pinxit.evaluate.judge import resize

BUNDLED = "tiny"
"""The source of the CLIP that comes with Pinxit, which knows scenes and nothing else."""


class ClipImages:
    """CLIP's projected image embeddings, not normalised."""

    def __init__(self, params: Any, config: ClipConfig, *, name: str) -> None:
        """Extracts with a CLIP that has a vision tower and a projection. `name` names it."""
        self.params, self.config, self.name = params, config, name
        self._size = vision_tower(config).image_size
        if config.projection_dim is None:
            raise ValueError(f"{name} has no projection")

        def apply(params: Any, images: Array) -> Array:
            output = image_forward(params, config, normalise(images, size=self._size))
            assert output.projected is not None
            return output.projected

        self._network = BatchedNetwork(apply, params)

    @property
    def width(self) -> int:
        """The width of the projection."""
        return self.config.projection_dim or 0

    def about(self) -> Mapping[str, Any]:
        """Returns the weights' fingerprint and the resizing."""
        resized = f"Lanczos to {self._size}"
        return {"name": self.name, "weights": fingerprint(self.params), "resize": resized}

    def __call__(
        self, pictures: Sequence[Picture], prompts: Sequence[str]
    ) -> Float[np.ndarray, "n d"]:
        """Returns the projected embedding of each picture."""
        return self._network(resize(picture[None], self._size)[0] for picture in pictures)


def bundled_clip_images() -> ClipImages:
    """Returns the bundled CLIP, which was trained on scenes alone."""
    params, config = load_clip(BUNDLED, subfolder="text_encoder")
    return ClipImages(params, config, name="scenes_clip")
