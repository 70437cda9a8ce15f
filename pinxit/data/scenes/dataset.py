"""The embedded dataset: unlimited, deterministic landscapes with captions and labels."""

from __future__ import annotations

from dataclasses import dataclass

from pinxit.arrays import Example
from pinxit.config import UsageError
from pinxit.data.scenes.attributes import SPLITS, Scene, sample_scene
from pinxit.data.scenes.captions import caption
from pinxit.data.scenes.drawing import render


@dataclass(frozen=True)
class Scenes:
    """A dataset with random access: ``scenes[i]`` is a pure function of ``(seed, split, i)``."""

    length: int = 1_000_000
    seed: int = 0
    split: str = "train"
    """One of train, heldout and any."""
    image_size: int = 64
    full_captions: bool = False
    """Whether captions state every fact (for evaluation) instead of sometimes leaving one out."""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"unknown split {self.split!r}; known: {', '.join(SPLITS)}")
        if self.length < 1:
            raise UsageError(f"length must be at least 1, got {self.length}")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:
        scene = self.scene(index)
        return Example(
            image=render(scene, seed=self.seed, index=index, size=self.image_size),
            caption=self.caption(index),
            attributes=scene.labels(),
        )

    def scene(self, index: int) -> Scene:
        """Returns the facts of the scene at `index`."""
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        return sample_scene(self.seed, index, split=self.split)

    def caption(self, index: int) -> str:
        """Returns the caption at `index` without drawing the picture."""
        return caption(self.scene(index), seed=self.seed, index=index, full=self.full_captions)


def scene_examples(size: int, image_size: int, *, seed: int, split: str) -> Scenes:
    """Returns procedurally drawn landscapes; ``heldout`` has combinations that ``train`` lacks."""
    full = split == "heldout"
    return Scenes(size, seed=seed, split=split, image_size=image_size, full_captions=full)
