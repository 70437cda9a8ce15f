"""Sets of pictures to measure: drawn by a model from prompts and seeds, or real ones.

A set says in `about` everything that its pictures depend on. Features of its pictures are stored
under the hash of that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import PIL

from pinxit.arrays import Example
from pinxit.config import to_json
from pinxit.data.code_fingerprint import code_fingerprint
from pinxit.data.scenes.dataset import Scenes
from pinxit.drawing import one_by_one
from pinxit.encoders.fingerprint import encoder_fingerprints
from pinxit.evaluate.extractors.base import Picture
from pinxit.pipeline import TextToImage
from pinxit.version import __version__


@runtime_checkable
class Examples(Protocol):
    """A sequence of examples, addressed by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@runtime_checkable
class PictureSet(Protocol):
    """Pictures with prompts, addressed by number."""

    def __len__(self) -> int: ...

    @property
    def title(self) -> str:
        """The activity that makes the pictures, for a line of progress."""
        ...

    @property
    def prompts(self) -> Sequence[str]:
        """The prompt of each picture."""
        ...

    @property
    def lasting(self) -> bool:
        """Whether features are worth keeping for later evaluations, as those of a reference are."""
        ...

    @property
    def together(self) -> int:
        """The number of pictures that are best made together."""
        ...

    def about(self) -> Mapping[str, Any]:
        """Returns everything that the pictures depend on, as JSON."""
        ...

    def pictures(self, numbers: range) -> Sequence[Picture]:
        """Returns the pictures with these numbers, as uint8."""
        ...


@dataclass(frozen=True, eq=False)
class DrawnPictures:
    """Pictures that a model draws, one for each prompt and its seed."""

    model: TextToImage
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    """The seed of each picture."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `TextToImage.generate` that differ from the model's own."""
    batch_size: int = 32
    """Number of pictures that each device computes together; on a CPU it has no effect."""
    title: str = "drawing pictures"
    lasting: bool = False

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.seeds):
            raise ValueError(f"{len(self.seeds)} seeds for {len(self.prompts)} prompts")

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def together(self) -> int:
        """The number of pictures of a round: a batch for each device, and at least 64."""
        return max(64, self.batch_size * max(1, len(self.model.devices)))

    @cached_property
    def _about(self) -> dict[str, Any]:
        model = self.model
        return {
            "drawn": {
                "model": model.model_hash,
                "network": to_json(model.config),
                "encoders": encoder_fingerprints(model.text_encoder, model.autoencoder),
                "size": model.image_size,
                "sampling": to_json(model.sampling.override(**self.sampling)),
                "batch_size": 1 if one_by_one() else self.batch_size,
                "device": jax.devices()[0].device_kind,
                "version": __version__,
            },
            "prompts": texts_hash(self.prompts),
            "seeds": texts_hash([str(seed) for seed in self.seeds]),
            "count": len(self),
        }

    def about(self) -> Mapping[str, Any]:
        """Returns the model, the settings, the prompts and the seeds, as JSON."""
        return self._about

    def pictures(self, numbers: range) -> Sequence[Picture]:
        """Draws the pictures with these numbers."""
        images = self.model.generate(
            [self.prompts[i] for i in numbers],
            seed=[self.seeds[i] for i in numbers],
            output_type="np",
            batch_size=self.batch_size,
            **self.sampling,
        )
        return list(images)


@dataclass(frozen=True, eq=False)
class RealPictures:
    """The pictures of examples, such as held-out rows or renders of scenes."""

    examples: Examples | Sequence[Example]
    title: str = "reading real pictures"
    lasting: bool = True
    together: int = 256

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """The caption of each picture."""
        if isinstance(self.examples, Scenes):  # whose captions need no picture
            return tuple(map(self.examples.caption, range(len(self))))
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[str, tuple[str, ...]]:
        """The SHA-256 of all pixels, and the captions, in one pass."""
        digest, captions = hashlib.sha256(), []
        for number in range(len(self)):
            example = self.examples[number]
            image = np.ascontiguousarray(example.image)
            digest.update(f"{image.shape} {image.dtype} ".encode() + image.tobytes())
            captions.append(example.caption)
        return digest.hexdigest(), tuple(captions)

    @cached_property
    def _about(self) -> dict[str, Any]:
        if isinstance(self.examples, Scenes):
            code = {"code": code_fingerprint(Scenes), "pillow": PIL.__version__}
            content: dict[str, Any] = {"scenes": {**asdict(self.examples), **code}}
        else:
            content = {"pixels": self._read[0]}
        return {**content, "prompts": texts_hash(self.prompts), "count": len(self)}

    def about(self) -> Mapping[str, Any]:
        """Returns the SHA-256 of all pixels, so that equal pictures have equal features. Scenes are
        described by their settings and the code that draws them, so that none is drawn for this."""
        return self._about

    def pictures(self, numbers: range) -> Sequence[Picture]:
        """Returns the images of the examples with these numbers."""
        return [self.examples[i].image for i in numbers]


def texts_hash(texts: Sequence[str]) -> str:
    """Returns the SHA-256 of a list of texts."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def identity(about: Mapping[str, Any]) -> str:
    """Returns a short hash of JSON, which names files of features."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
