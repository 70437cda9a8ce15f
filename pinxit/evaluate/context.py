"""Defines the argument of every evaluator: the model, held-out rows, and the amounts to compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pinxit.arrays import Example, Objective
from pinxit.config import UsageError, positive
from pinxit.data.scenes.dataset import Scenes
from pinxit.evaluate.details.renders import CANDIDATES, SeedSets, other_renders_of
from pinxit.evaluate.encoded_rows import EncodedRows
from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.extractors.clip_pairs import ClipPairs
from pinxit.evaluate.judge import Judge
from pinxit.evaluate.observations import Observations, Report
from pinxit.evaluate.picture_sets import DrawnPictures, Examples, RealPictures
from pinxit.evaluate.reference_pictures import FEWEST_SCENES, rows_reference, scenes_reference
from pinxit.flow.objective import FlowMatching
from pinxit.pipeline import TextToImage

SEED = 20_000
"""Seed of the held-out scenes; training scenes have other seeds and other combinations."""
MOST_VARIETY_PROMPTS = 128
"""Largest number of prompts for variety, so that enough of the candidates show each detail."""


@dataclass(frozen=True)
class EvaluationContext:
    """The model, data and settings of an evaluation."""

    model: TextToImage
    rows: Examples | Sequence[Example] = ()
    """Held-out rows; if empty, nothing is measured on rows."""
    objective: Objective = field(default_factory=FlowMatching)
    """The loss that the model was trained with."""
    batch_size: int = 32
    """Number of pictures or rows that are computed together."""
    prompts: int = 0
    """Number of held-out prompts to draw; 0 for none."""
    judge: Judge | None = None
    """The judge that reads the attributes of scenes, or None for a model trained on other data."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Sampling settings that differ from the model's own, for `TextToImage.generate`."""
    networks: Sequence[Extractor] = ()
    """Networks whose features the distances between sets of pictures are computed from."""
    clip: ClipPairs | None = None
    """The extractor of a picture's and its prompt's CLIP embeddings, or None."""
    reference_statistics: Path | None = None
    """A file with the mean and covariance of Inception features of a reference set, or None."""
    reference_images: int | None = None
    """Number of reference pictures for distances; None means 2000 renders of scenes, or as many as
    prompts if that is more, and all rows of other data."""
    composition_prompts: int = 0
    """Number of prompts for each task of composition; 0 for none."""
    variety_prompts: int = 0
    """Number of prompts that are drawn from several seeds each to measure variety; 0 for none."""
    detect: Callable[..., Any] | None = None
    """A user's object detector for GenEval, or None."""
    geneval_prompts: int | None = None
    """Number of GenEval's prompts to draw, the same for each task; None for all 553."""
    answer: Callable[..., Any] | None = None
    """A user's answers to questions about pictures for DPG-Bench, or None."""
    dpg_questions: Path | None = None
    """DPG-Bench's file of questions (dpg_bench.csv), or None."""
    observations: Observations = field(default_factory=Observations)
    """Makes sets of pictures, shows its progress, and stores their features."""
    check: Callable[[], Any] = lambda: None
    """A callback between batches of rows; it may raise an exception to stop."""
    encoded: EncodedRows | None = None
    """Storage for the encoded rows, if several models of the same encoders are measured on them."""

    def __post_init__(self) -> None:
        positive("batch_size", self.batch_size)
        positive("prompts", self.prompts, minimum=0)
        positive("reference_images", self.reference_images, minimum=2)
        positive("variety_prompts", self.variety_prompts, minimum=0)
        if self.variety_prompts > MOST_VARIETY_PROMPTS:
            raise UsageError(
                "variety_prompts",
                self.variety_prompts,
                problem="too many",
                valid=f"0 to {MOST_VARIETY_PROMPTS}",
            )

    def showing(self, text: str, unit: str) -> AbstractContextManager[Report]:
        """Shows the progress of one activity, given its name and the name of its unit."""
        return self.observations.showing(text, unit)

    def real_pictures(self) -> dict[str, Any]:
        """Returns the prompts and the sets of real pictures that were asked for, for `sharing`."""
        return {
            name: each
            for name, each in vars(self).items()
            if name == "prompted" or isinstance(each, RealPictures)
        }

    def sharing(self, pictures: Mapping[str, Any]) -> EvaluationContext:
        """Returns this context with the real pictures of another one of the same prompts and rows,
        so that they are read and hashed once."""
        other = replace(self)
        vars(other).update(pictures)
        return other

    def varied(self, **changes: Any) -> EvaluationContext:
        """Returns a context with other values for some fields, which shares the real pictures.

        The changes must not concern the prompts or the rows.
        """
        return replace(self, **changes).sharing(self.real_pictures())

    def drawing(self, prompts: Iterable[str], seeds: Iterable[int], *, title: str) -> DrawnPictures:
        """Returns the pictures of prompts, each with its seed, drawn as this evaluation draws."""
        return DrawnPictures(
            self.model,
            tuple(prompts),
            tuple(seeds),
            sampling=self.sampling,
            batch_size=self.batch_size,
            title=title,
        )

    @cached_property
    def prompted(self) -> Examples | Sequence[Example]:
        """The examples whose captions are the held-out prompts: scenes if there is a judge,
        otherwise the first rows. Their images are real pictures of the prompts."""
        if self.judge is None:
            return [self.rows[i] for i in range(min(self.prompts, len(self.rows)))]
        return self._scenes(self.prompts) if self.prompts else ()

    @cached_property
    def real(self) -> RealPictures:
        """The real pictures of the held-out prompts."""
        return RealPictures(self.prompted, title="reading real pictures of the held-out prompts")

    @cached_property
    def reference(self) -> RealPictures:
        """The real pictures that distances compare drawn ones with: renders of other held-out
        scenes if there is a judge, otherwise the rows, cropped to the model's size."""
        count, size = self.reference_images, self.model.image_size
        if self.judge is not None:
            return scenes_reference(count or max(FEWEST_SCENES, self.prompts), size)
        count = len(self.rows) if count is None else count
        if count > len(self.rows):
            problem, valid = "more than the held-out rows", f"2 to {len(self.rows)}"
            raise UsageError("reference_images", count, problem=problem, valid=valid)
        whole = count == len(self.rows)
        return rows_reference(self.rows if whole else [self.rows[i] for i in range(count)], size)

    @cached_property
    def drawn(self) -> DrawnPictures:
        """A picture of each held-out prompt, drawn from the seeds 0, 1, 2, ..."""
        count = len(self.prompted)
        return self.drawing(self.real.prompts, range(count), title="drawing held-out prompts")

    @cached_property
    def other_renders(self) -> RealPictures | None:
        """The renders of the held-out scenes with another drawing seed, or None without scenes."""
        return other_renders_of(self.prompted) if isinstance(self.prompted, Scenes) else None

    @cached_property
    def seed_sets(self) -> SeedSets | None:
        """The drawn and rendered pictures of `variety_prompts` scenes, several of each, or None."""
        if self.judge is None or not self.variety_prompts:
            return None
        return SeedSets(self.drawn, self._scenes(CANDIDATES), self.variety_prompts)

    def _scenes(self, count: int) -> Scenes:
        """Returns the first held-out scenes with full captions."""
        return Scenes(
            length=count,
            seed=SEED,
            split="heldout",
            image_size=self.model.image_size,
            full_captions=True,
        )
