"""What the judge of scenes reads in a picture: its answers, and the features behind them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pinxit.encoders.fingerprint import fingerprint
from pinxit.evaluate.extractors.base import Picture
from pinxit.evaluate.extractors.batches import BatchedNetwork
from pinxit.evaluate.judge import Judge, apply_heads, apply_trunk, resize


class JudgeAnswers:
    """The judge's answer for every head, as the number of the value; see `answers`."""

    name = "judge_answers"

    def __init__(self, judge: Judge) -> None:
        self.judge, config = judge, judge.config

        def apply(params: Any, images: Array) -> Array:
            logits = apply_heads(params, config, apply_trunk(params, config, images))
            return jnp.stack([row.argmax(-1) for row in logits.values()], -1).astype(jnp.float32)

        self._network = BatchedNetwork(apply, judge.params)

    @property
    def width(self) -> int:
        """The number of heads."""
        return len(self.judge.config.attributes)

    def about(self) -> Mapping[str, Any]:
        """Returns the judge's fingerprint."""
        return _about(self.name, self.judge)

    def __call__(
        self, pictures: Sequence[Picture], prompts: Sequence[str]
    ) -> Float[np.ndarray, "n d"]:
        """Returns the number of the most probable value of each head."""
        return self._network(_inputs(self.judge, pictures))

    def answers(self, rows: Float[np.ndarray, "n d"]) -> list[dict[str, str]]:
        """Returns rows of features as values by head."""
        heads = self.judge.config.attributes.items()
        return [
            {name: values[int(number)] for (name, values), number in zip(heads, row, strict=True)}
            for row in rows
        ]


@functools.lru_cache(maxsize=1)
def judge_answers(judge: Judge) -> JudgeAnswers:
    """Returns the extractor of a judge's answers, the same one for all, which is compiled once."""
    return JudgeAnswers(judge)


class JudgeFeatures:
    """The judge's last hidden layer, a small stand-in for Inception's features on scenes."""

    name = "scenes_judge"

    def __init__(self, judge: Judge) -> None:
        self.judge, config = judge, judge.config
        self._network = BatchedNetwork(
            lambda params, images: apply_trunk(params, config, images), judge.params
        )

    @property
    def width(self) -> int:
        """The width of the hidden layer."""
        return self.judge.config.hidden

    def about(self) -> Mapping[str, Any]:
        """Returns the judge's fingerprint."""
        return _about(self.name, self.judge)

    def __call__(
        self, pictures: Sequence[Picture], prompts: Sequence[str]
    ) -> Float[np.ndarray, "n d"]:
        """Returns the hidden layer for each picture."""
        return self._network(_inputs(self.judge, pictures))


def _about(name: str, judge: Judge) -> dict[str, Any]:
    resized = f"Lanczos to {judge.config.image_size}"
    return {"name": name, "weights": fingerprint(judge.params), "resize": resized}


def _inputs(judge: Judge, pictures: Sequence[Picture]) -> list[np.ndarray]:
    return [resize(picture[None], judge.config.image_size)[0] for picture in pictures]
