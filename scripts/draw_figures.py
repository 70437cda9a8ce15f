"""Draws the pictures of README and of docs/grids.md with the shipped checkpoint.

python scripts/draw_figures.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pinxit import load_checkpoint
from pinxit.comparison_grid.axes import Axis
from pinxit.comparison_grid.cells import prepared_grid
from pinxit.comparison_grid.grid import Grid
from pinxit.comparison_grid.sheet import GridSheet, grid_bytes
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

GRID = Grid(
    tuple(
        Axis.parse(axis)
        for axis in ("guidance_scale=1,2,4,8", "steps=4,8,16", "solver=euler,dpmpp_2m")
    ),
    {"prompt": "a small red house on the left under a full moon", "seed": 7},
)
"""The grid of docs/grids.md."""


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
    draw_grid(images / "grid.png")


def draw_grid(path: Path) -> None:
    """Writes the comparison grid."""
    prepared = prepared_grid(GRID)
    layout = GridSheet(prepared)
    cells = dict(prepared.pictures())
    path.write_bytes(grid_bytes(prepared, layout.draw([cells[i] for i in range(len(GRID))])))


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
