"""A model that paints each picture's prompt and seed into its first pixel, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from toy_pipeline import WIDTH, Doubler, Words

from pinxit.models.transformer import preset
from pinxit.pipeline import Sampling, TextToImage


class PaintingModel(TextToImage):
    """Paints the prompt's number in `texts`, as two bytes, and the seed."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._numbers = {text: number for number, text in enumerate(texts)}
        self.painted: list[tuple[str, int]] = []
        """The prompts and seeds of all pictures so far."""
        self.config = preset("debug", in_channels=3, context_dim=WIDTH)
        self.params = {"one": np.ones(1)}
        self.text_encoder, self.autoencoder = Words(), Doubler()
        self.image_size, self.sampling = 16, Sampling()

    def generate(self, prompts: Any, *, seed: Any = 0, **rest: Any) -> Any:
        images = np.zeros((len(prompts), 16, 16, 3), np.uint8)
        for image, prompt, number in zip(images, prompts, seed, strict=True):
            image[0, 0] = (*divmod(self._numbers[prompt], 256), number)
            self.painted.append((prompt, number))
        return images
