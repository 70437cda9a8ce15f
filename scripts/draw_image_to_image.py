"""Draws the picture of docs/image_to_image.md with the shipped checkpoint.

python scripts/draw_image_to_image.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pinxit import TextToImage, load_checkpoint
from pinxit.drawn_text import draw_text

SIDE, GAP, TEXT = 144, 4, 15
SOURCE = "a small red house on the left, a forest at night, under a full moon"
TENT = "a small blue tent on the left, a forest at night, under a full moon"
DAY = "a small red house on the left, in the day, with a yellow sun"
TREE = "a large green tree on the left, a forest at night, under a full moon"
Row = list[tuple[str, Image.Image]]
"""Pictures with their labels."""


def main() -> None:
    model = load_checkpoint()
    picture = sheet(rows_of(model))
    path = Path(__file__).parent.parent / "docs" / "images" / "image_to_image.png"
    picture.save(path, optimize=True)
    print(path)


def rows_of(model: TextToImage) -> list[Row]:
    """Strengths, a repainted sky and a repainted corner, each after the source or the mask."""
    source = model.generate(SOURCE, seed=3)
    strengths: Row = [("source", source)]
    for strength in (0.1, 0.3, 0.5, 0.7, 1.0):
        drawn = model.generate(TENT, seed=1, image=source, strength=strength)
        strengths.append((f"strength {strength:g}", drawn))
    sky, corner = (np.zeros((64, 64), np.uint8) for _ in range(2))
    sky[:32], corner[28:60, :32] = 255, 255
    rows = [strengths]
    for mask, prompt, label in ((sky, DAY, "day"), (corner, TREE, "tree")):
        drawn = model.generate(prompt, n=4, image=source, mask=mask)
        inpainted = [(f"{label}, seed {seed}", picture) for seed, picture in enumerate(drawn)]
        rows.append([("source", source), ("mask", Image.fromarray(mask)), *inpainted])
    return rows


def sheet(rows: list[Row]) -> Image.Image:
    """One picture of all rows, with each label above its picture."""
    width, height = SIDE + GAP, SIDE + GAP + TEXT + 5
    picture = Image.new("RGB", (width * len(rows[0]), height * len(rows)), "white")
    pen = ImageDraw.Draw(picture)
    for row, pictures in enumerate(rows):
        for column, (label, one) in enumerate(pictures):
            left, upper = column * width, row * height
            draw_text(pen, (left + 2, upper + 1), label, size=TEXT, fill="black")
            large = one.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
            picture.paste(large, (left, upper + TEXT + 5))
    return picture


if __name__ == "__main__":
    main()
