"""CLIP's image embeddings as features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from pinxit.arrays import to_pixels
from pinxit.encoders.clip import (
    ClipConfig,
    image_forward,
    load_clip,
    normalise,
    vision_tower,
)
from pinxit.encoders.fingerprint import fingerprint
from pinxit.encoders.weights import bundled
from pinxit.evaluate.extractors.base import Picture
from pinxit.evaluate.extractors.batches import BatchedNetwork
from pinxit.evaluate.extractors.clip_resize import (
    centre_then_resize,
    lanczos,
    resize_then_centre,
)

Resize = Callable[[np.ndarray, int], np.ndarray]
"""A function from a picture of bytes and a side to a square picture of bytes with that side."""

RESIZES: dict[str, Resize] = {
    "Lanczos": lanczos,
    "CMMD: centre square, PIL bicubic": centre_then_resize,
    "CLIPProcessor: PIL bicubic, centre square": resize_then_centre,
}
"""The ways to resize a picture for the vision tower, by their description in results."""
SCENES, CMMD, PROCESSOR = RESIZES

LETTERS = {(768, 12): "b", (1024, 24): "l", (1280, 32): "h", (1408, 40): "g", (1664, 48): "bigg"}
"""The letter of ViT-B, L, H, g and bigG, by the width and the number of layers."""


BUNDLED = "tiny"
"""The folder of the CLIP that comes with Pinxit."""
SCENES_CLIP = "scenes_clip"
"""The name of the bundled CLIP, which knows scenes and nothing else."""


class ClipImages:
    """CLIP's projected image embeddings, not normalised."""

    def __init__(self, params: Any, config: ClipConfig, *, name: str, resize: str = SCENES) -> None:
        """Extracts with a CLIP that has a vision tower and a projection.

        `name` names it, and `resize` is a key of `RESIZES`.
        """
        self.params, self.config, self.name, self._resize = params, config, name, resize
        self.size = vision_tower(config).image_size
        """The side of the vision tower's input, in pixels."""
        if config.projection_dim is None:
            raise ValueError(f"{name} has no projection")
        self._network = BatchedNetwork(
            lambda params, images: image_embeddings(params, config, images), params
        )

    @property
    def width(self) -> int:
        """The width of the projection."""
        return self.config.projection_dim or 0

    def about(self) -> Mapping[str, Any]:
        """Returns the weights' fingerprint and the resizing."""
        resized = f"{self._resize} to {self.size}"
        return {"name": self.name, "weights": fingerprint(self.params), "resize": resized}

    def __call__(
        self, pictures: Sequence[Picture], prompts: Sequence[str]
    ) -> Float[np.ndarray, "n d"]:
        """Returns the projected embedding of each picture."""
        return self._network(RESIZES[self._resize](picture, self.size) for picture in pictures)


def image_embeddings(
    params: Any, config: ClipConfig, images: UInt8[Array, "b s s 3"]
) -> Float[Array, "b p"]:
    """Returns the projected embeddings of pictures of the tower's size, computed in float32."""
    with jax.default_matmul_precision("highest"):
        pixels = normalise(jnp.asarray(to_pixels(images)), size=vision_tower(config).image_size)
        output = image_forward(params, config, pixels)
    assert output.projected is not None
    return output.projected


def bundled_clip_images() -> ClipImages:
    """Returns the bundled CLIP, which was trained on scenes alone."""
    params, config = load_clip(bundled(BUNDLED), subfolder="text_encoder", only="vision")
    return ClipImages(params, config, name=SCENES_CLIP, resize=SCENES)


def clip_name(config: ClipConfig) -> str:
    """Returns a name from the vision tower's shape: ``clip_l_336`` for ViT-L/14 at 336 pixels.

    ViT-B has its patch in the name, ``clip_b32_224``, and a tower of another shape its width, its
    number of layers and its patch: ``clip_512x8_16_224``.
    """
    tower = vision_tower(config)
    shape = tower.hidden_size, tower.num_hidden_layers
    letter = LETTERS.get(shape, "")
    if not letter:
        letter = f"{shape[0]}x{shape[1]}_{tower.patch_size}"
    elif tower.patch_size != 14:
        letter += str(tower.patch_size)
    return f"clip_{letter}_{tower.image_size}"
