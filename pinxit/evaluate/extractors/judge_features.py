"""What the judge of scenes reads in a picture: its answers, and the features behind them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pinxit.encoders.fingerprint import fingerprint
from pinxit.evaluate.extractors.base import Picture
from pinxit.evaluate.extractors.batches import BatchedNetwork
from pinxit.evaluate.judge import Judge, apply_heads, apply_trunk, resize


class _JudgeReader:
    """Runs a part of the judge on pictures, resized as in its training."""

    name: str

    def __init__(self, judge: Judge, apply: Callable[[Any, Array], Array]) -> None:
        """Reads with ``apply(params, images)``."""
        self.judge = judge
        self._network = BatchedNetwork(apply, judge.params)

    def about(self) -> Mapping[str, Any]:
        """Returns the judge's fingerprint and the resizing."""
        resized = f"Lanczos to {self.judge.config.image_size}"
        return {"name": self.name, "weights": fingerprint(self.judge.params), "resize": resized}

    def __call__(
        self, pictures: Sequence[Picture], prompts: Sequence[str]
    ) -> Float[np.ndarray, "n d"]:
        """Returns a row for each picture."""
        size = self.judge.config.image_size
        return self._network([resize(picture[None], size)[0] for picture in pictures])


class JudgeAnswers(_JudgeReader):
    """The judge's answer for every head, as the number of the value; see `answers`."""

    name = "judge_answers"

    def __init__(self, judge: Judge) -> None:
        config = judge.config

        def apply(params: Any, images: Array) -> Array:
            logits = apply_heads(params, config, apply_trunk(params, config, images))
            return jnp.stack([row.argmax(-1) for row in logits.values()], -1).astype(jnp.float32)

        super().__init__(judge, apply)

    @property
    def width(self) -> int:
        """The number of heads."""
        return len(self.judge.config.attributes)

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


class JudgeFeatures(_JudgeReader):
    """The judge's last hidden layer, a small stand-in for Inception's features on scenes."""

    name = "scenes_judge"

    def __init__(self, judge: Judge) -> None:
        config = judge.config
        super().__init__(judge, lambda params, images: apply_trunk(params, config, images))

    @property
    def width(self) -> int:
        """The width of the hidden layer."""
        return self.judge.config.hidden
