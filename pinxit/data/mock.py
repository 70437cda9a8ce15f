"""Generates coloured gradients with captions, deterministic by row, as a dataset for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pinxit.arrays import Example

COLOURS = {
    "red": (220, 50, 40),
    "green": (60, 170, 70),
    "blue": (50, 80, 210),
    "yellow": (235, 210, 60),
}
WHERE = ("left", "right", "top", "bottom")


@dataclass(frozen=True)
class MockImages:
    """A dataset of `length` images, each of a colour that fades out from one side."""

    length: int
    """The number of rows."""
    image_size: int = 64
    """The side of the square images, in pixels."""
    seed: int = 0
    """The seed that determines the images."""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> Example:
        if not 0 <= row < self.length:
            raise IndexError(f"row {row} of {self.length}")
        rng = np.random.default_rng((self.seed, row))
        colour = list(COLOURS)[rng.integers(len(COLOURS))]
        side = WHERE[rng.integers(len(WHERE))]
        ramp = np.linspace(1.0, 0.0, self.image_size)
        if side in ("right", "bottom"):
            ramp = ramp[::-1]
        fade = ramp[None, :, None] if side in ("left", "right") else ramp[:, None, None]
        pixels = fade * np.asarray(COLOURS[colour], float)
        pixels = pixels + rng.normal(0, 4, (self.image_size, self.image_size, 3))
        return Example(
            image=np.clip(pixels, 0, 255).astype(np.uint8),
            caption=f"{colour} light from the {side}",
            attributes={"colour": colour, "side": side},
        )


def mock_examples(size: int, image_size: int, *, seed: int, split: str) -> MockImages:
    """Returns coloured gradients with captions, for tests."""
    return MockImages(size, image_size, seed=seed + (split == "heldout"))
