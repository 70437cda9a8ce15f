"""The pictures that drawn ones are compared with, and the real ones that the noise is measured on.

For scenes both are rendered. Other datasets have only their held-out rows: all of them are the
reference, and for the noise they are halved. Their pictures may have several shapes, so they are
cropped and resized to the size of the model's pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pinxit.arrays import Example
from pinxit.data.images.decode import crop_box
from pinxit.data.scenes.dataset import Scenes
from pinxit.evaluate.picture_sets import Examples, RealPictures

REFERENCE_SEED = 30_000
"""The seed of the reference's scenes; training scenes and held-out prompts have other seeds."""
FEWEST_SCENES = 2000
"""Number of reference scenes, if no more prompts are drawn."""
CROP = "largest centred square, to the nearest pixel; bicubic with antialiasing (Pillow), to uint8"
"""The crop and the resizing of rows, in words."""


@dataclass(frozen=True)
class CentreCropped:
    """Examples whose images are cropped to a centred square and resized to one size."""

    examples: Examples | Sequence[Example]
    size: int
    """The side of the images, in pixels."""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        example = self.examples[index]
        height, width = example.image.shape[:2]
        if (height, width) == (self.size, self.size):
            return example
        box = crop_box((width, height), (1, 1), place="center")
        picture = Image.fromarray(example.image)
        resized = picture.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        return Example(np.asarray(resized), example.caption, example.attributes)


@dataclass(frozen=True, eq=False)
class CroppedPictures(RealPictures):
    """Real pictures of `CentreCropped` examples."""

    def about(self) -> Mapping[str, Any]:
        """Returns the SHA-256 of all pixels, and the crop."""
        size = self.examples.size if isinstance(self.examples, CentreCropped) else None
        return {**super().about(), "crop": CROP, "size": size}


def scenes_reference(count: int, image_size: int) -> RealPictures:
    """Returns renders of `count` held-out scenes, which no prompt of an evaluation describes."""
    scenes = Scenes(
        count, seed=REFERENCE_SEED, split="heldout", image_size=image_size, full_captions=True
    )
    return RealPictures(scenes, title="reading reference pictures")


def rows_reference(rows: Examples | Sequence[Example], image_size: int) -> RealPictures:
    """Returns rows, cropped and resized to the size of the model's pictures."""
    return CroppedPictures(CentreCropped(rows, image_size), title="reading reference pictures")
