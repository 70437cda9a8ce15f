"""The CLIP score: how well pictures fit their prompts, by the cosine of CLIP's embeddings.

The value is that of torchmetrics, ``max(0, mean(100 cos))`` over all pictures. That of the paper
(Hessel et al., arXiv:2104.08718), ``mean(2.5 max(0, cos))``, is given beside it, for the prompts as
they are, without the paper's prefix "A photo depicts". Either value depends on the network, so the
network's name is part of every name. Two more columns give the range: *real* is the score of real
pictures of the same prompts (the ceiling), and *shuffled* that of the same real pictures with the
next prompt each (the floor).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float

from pinxit.drawing import cut_prompts
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.extractors.clip_pairs import ClipPairs
from pinxit.evaluate.feature_store import BLOCK, FeatureStore
from pinxit.evaluate.networks import bundled_clip
from pinxit.evaluate.picture_sets import PictureSet

PAPER_SCALE = 2.5
"""The factor w of the paper's score."""


def clip_score(context: EvaluationContext) -> Iterator[tuple[str, float]]:
    """Yields the score, its standard error and the paper's score for three sets of pairs.

    The names are ``clip_score/{drawn,real,shuffled}/NETWORK``, ``.../standard_error_NETWORK`` and
    ``.../paper_NETWORK``. If prompts are cut at the length of the text tower, a warning names them
    and ``clip_score/drawn/cut_prompts_NETWORK`` is their number.

    Yields nothing without prompts, and nothing on other data than scenes without a CLIP.
    """
    clip = clip_of(context)
    if clip is None or not len(context.prompted):
        return
    drawn, real = (context.observations.features(s, clip) for s in (context.drawn, context.real))
    yield from scores("drawn", cosines(clip, drawn), network=clip.network)
    yield from scores("real", cosines(clip, real), network=clip.network)
    if len(context.prompted) > 1:
        yield from scores("shuffled", cosines(clip, real, shift=1), network=clip.network)
    if message := cut_prompts(clip.text, context.real.prompts):
        warnings.warn(f"clip_score with {clip.network}: {message}", stacklevel=2)
        count = float(clip.cut(context.real.prompts).sum())
        yield f"clip_score/drawn/cut_prompts_{clip.network}", count


def clip_score_needs(context: EvaluationContext) -> Iterator[tuple[PictureSet, Extractor]]:
    """Yields the features that `clip_score` reads."""
    clip = clip_of(context)
    if clip is not None and len(context.prompted):
        yield from ((pictures, clip) for pictures in (context.drawn, context.real))


def clip_score_in_words(values: Mapping[str, float]) -> str:
    """Returns a line with the score, its standard error and its range."""
    prefix = "clip_score/drawn/"
    network = next(iter(values)).removeprefix(prefix)
    text = f"CLIP score ({network}) {values[prefix + network]:.2f}"
    error = values.get(f"{prefix}standard_error_{network}")
    text += "" if error is None else f" ± {error:.2f}"
    columns = {"real": "real pictures", "shuffled": "shuffled prompts"}
    others = [
        f"{words} {values[name]:.2f}"
        for column, words in columns.items()
        if (name := f"clip_score/{column}/{network}") in values
    ]
    return f"{text} ({', '.join(others)})"


def cosines(clip: ClipPairs, rows: FeatureStore, *, shift: int = 0) -> Float[np.ndarray, " n"]:
    """Returns the cosine of each picture and the prompt that is `shift` rows further on.

    The last pictures are compared with the first prompts.
    """
    count, parts = len(rows), []
    for start in range(0, count, BLOCK):
        numbers = np.arange(start, min(start + BLOCK, count))
        texts = rows.take((numbers + shift) % count) if shift else None
        parts.append(clip.cosines(rows.take(numbers), texts))
    return np.concatenate(parts)


def scores(
    column: str, cosines: Float[np.ndarray, " n"], *, network: str
) -> Iterator[tuple[str, float]]:
    """Yields the score of torchmetrics, its standard error (of two or more) and the paper's."""
    yield f"clip_score/{column}/{network}", max(0.0, float(100 * cosines.mean()))
    if len(cosines) > 1:
        error = 100 * cosines.std(ddof=1) / math.sqrt(len(cosines))
        yield f"clip_score/{column}/standard_error_{network}", float(error)
    paper = PAPER_SCALE * np.maximum(cosines, 0).mean()
    yield f"clip_score/{column}/paper_{network}", float(paper)


def clip_of(context: EvaluationContext) -> ClipPairs | None:
    """Returns the context's CLIP, or for scenes the bundle's."""
    if context.clip is None and context.judge is not None:
        return bundled_clip()[1]
    return context.clip
