"""Draws the sample grid of an exported model: fixed prompts with fixed seeds on one sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image

from pinxit.contact_sheet import contact_sheet
from pinxit.pipeline import TextToImage

LARGEST_CELL = 256
"""The longest side of a picture on the sheet, in pixels; smaller pictures are shown at 128."""
SMALLEST_CELL = 128


def sample_grid(
    model: TextToImage,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    negative_prompt: str = "",
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Image.Image:
    """Returns the sheet: a row for each prompt, with one picture per seed."""
    images = model.generate(
        [prompt for prompt in prompts for _ in seeds],
        seed=list(seeds) * len(prompts),
        negative_prompt=negative_prompt,
        progress=progress,
    )
    rows = [images[i : i + len(seeds)] for i in range(0, len(images), len(seeds))]
    cell = min(max(SMALLEST_CELL, model.image_size), LARGEST_CELL)
    label = "seeds " + ", ".join(map(str, seeds))
    return contact_sheet(prompts, {label: rows}, title=model.name, cell=cell)
