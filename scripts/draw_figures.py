"""Draws README's pictures with the shipped checkpoint.

python scripts/draw_figures.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pinxit import load_checkpoint
from pinxit.data.scenes.dataset import Scenes

PROMPTS = (
    "A beautiful sunset over mountains",
    "a small red house on the left under a full moon",
    "a large purple castle on the right, the desert at noon, under the sun, clear sky",
    "a large red tree in the middle near green hills by day, with clouds",
    "a small yellow tent on the left, a forest at night, under a crescent moon",
    "a large green balloon on the left by the sea at dawn, in the fog",
    "a white house in the middle near the mountains by day, in the snow",
    "a small blue lighthouse on the right by the sea at sunset, in the rain",
)
"""The last six show colours and objects that training never showed together."""


def main() -> None:
    images = Path(__file__).parent.parent / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    model = load_checkpoint()
    drawn = model.generate(PROMPTS, seed=0, output_type="np")
    sheet(drawn, columns=4).save(images / "shipped.png", optimize=True)
    scenes = Scenes(seed=0, split="train")
    sheet([scenes[i].image for i in range(24)], columns=8).save(
        images / "scenes.png", optimize=True
    )


def sheet(pictures: list[np.ndarray] | np.ndarray, *, columns: int, scale: int = 3) -> Image.Image:
    """Pictures in rows, each pixel `scale` wide, with thin white lines between."""
    framed = [
        np.pad(
            picture.repeat(scale, 0).repeat(scale, 1), ((2, 2), (2, 2), (0, 0)), constant_values=255
        )
        for picture in pictures
    ]
    rows = [np.concatenate(framed[i : i + columns], 1) for i in range(0, len(framed), columns)]
    return Image.fromarray(np.concatenate(rows))


if __name__ == "__main__":
    main()
