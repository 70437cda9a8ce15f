"""Prompt accuracy: measures whether pictures show the attributes that held-out prompts name.

The model draws each prompt once, the judge reads the attributes from the picture, and each
attribute in the prompt counts as right or wrong. Two more figures give the range of the result. The
*ceiling* is the accuracy on real renders of the same scenes, and *chance* is that on real renders
of other prompts. ``mean`` is the mean over the attributes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pinxit.data.scenes.attributes import ATTRIBUTES, score
from pinxit.data.scenes.dataset import Scenes
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.judge import Judge
from pinxit.fixed_batches import padded

SEED = 20_000
"""Seed of the held-out scenes; training scenes have other seeds and other combinations."""


def prompt_accuracy(context: EvaluationContext, *, seed: int = SEED) -> Iterator[tuple[str, float]]:
    """Yields ``prompts/{accuracy,ceiling,chance}/{mean,attribute}`` and its value.

    Yields nothing without a judge or prompts.
    """
    judge, prompts = context.judge, context.prompts
    if judge is None or not prompts:
        return
    model, batch_size = context.model, context.batch_size
    size = model.image_size
    scenes = Scenes(length=prompts, seed=seed, split="heldout", image_size=size, full_captions=True)
    images = model.generate(
        [scenes.caption(i) for i in range(prompts)],
        seed=0,
        output_type="np",
        batch_size=min(batch_size, prompts),
        progress=context.progress,
        **context.sampling,
    )
    answers = read_answers(judge, images, batch_size=batch_size)
    real = read_answers(
        judge, np.stack([scenes[i].image for i in range(prompts)]), batch_size=batch_size
    )
    yield from named("prompts/accuracy", accuracy(scenes, answers))
    yield from named("prompts/ceiling", accuracy(scenes, real))
    yield from named("prompts/chance", accuracy(scenes, real[1:] + real[:1]))


def accuracy_in_words(values: Mapping[str, float]) -> str:
    """Returns a line with the mean accuracy and its ceiling."""
    accuracy, ceiling = (values[f"prompts/{kind}/mean"] for kind in ("accuracy", "ceiling"))
    return f"held-out prompt accuracy {accuracy:.3f} (ceiling {ceiling:.3f})"


def read_answers(judge: Judge, images: np.ndarray, *, batch_size: int) -> list[dict[str, str]]:
    """Returns the judge's answers, computed batch by batch; the last batch is padded."""
    answers: list[dict[str, str]] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        answers += judge(padded(batch, batch_size))[: len(batch)]
    return answers


def accuracy(scenes: Scenes, answers: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Returns the fraction of right answers by attribute; answer i belongs to scene i."""
    right: dict[str, list[bool]] = defaultdict(list)
    for i, answer in enumerate(answers):
        for attribute, correct in score(scenes.scene(i), answer):
            right[attribute].append(correct)
    return {name: float(np.mean(right[name])) for name in ATTRIBUTES if right[name]}


def named(prefix: str, values: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yields the mean, then each value, with the prefix before the name."""
    yield f"{prefix}/mean", float(np.mean(list(values.values())))
    for name, value in values.items():
        yield f"{prefix}/{name}", value
