"""The settings of a run's sample grids and of its evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinxit.config import UsageError, choice, full_names, positive
from pinxit.sampling import check_seed
from pinxit.train.model_settings import require_counts

if TYPE_CHECKING:  # evaluators import networks, which settings and their help do without
    from pinxit.evaluate.selection import Request, Selection

SCENES = "scenes"
"""The dataset whose pictures the judge reads."""
OF_USERS = ("geneval", "dpg")
"""Evaluators that call a user's function, which only `pinxit evaluate` does."""
CHOICES = (
    *("evaluators", "mid_run", "inception", "clip", "reference_images", "reference_statistics"),
    *("composition_prompts", "variety_prompts"),
)
"""Fields of `EvalConfig` that may not fit a dataset or each other, if they are given."""


@dataclass(frozen=True)
class SampleGridConfig:
    """The prompts and seeds of the sample grids, which stay the same during a run."""

    prompts: tuple[str, ...] = (
        "A beautiful sunset over mountains",
        "a small red house on the left under a full moon",
        "a large yellow tree on a foggy beach at dawn",
        "a purple castle in the middle of a desert at noon",
    )
    """Prompts of the grid. Each prompt has a row of images."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the grid. Each prompt has one image per seed."""
    negative_prompt: str = ""
    """Text that guidance steers the images away from."""
    size: tuple[int, ...] = ()
    """Side of the images, or their width and height, in pixels. Without a number it is
    image_size."""

    def __post_init__(self) -> None:
        """Refuses empty lists, and seeds and sizes that are wrong for any model."""
        for name in ("prompts", "seeds"):
            if not getattr(self, name):
                raise UsageError(f"samples.{name}", (), problem="empty", valid="one or more")
        for seed in self.seeds:
            check_seed("samples.seeds", seed)
        if len(self.size) > 2 or any(side < 1 for side in self.size):
            problem, valid = "not a size", "one side, or width and height, in pixels"
            raise UsageError("samples.size", self.size, problem=problem, valid=valid)

    @property
    def width_and_height(self) -> tuple[int, int] | None:
        """The size of the images, or None for image_size."""
        return (self.size[0], self.size[-1]) if self.size else None


@dataclass(frozen=True)
class EvalConfig:
    """The held-out evaluation at the end of a run, and every eval_interval steps."""

    prompts: int = 256
    """Number of held-out prompts whose pictures are measured at the end: prompts of scenes. For
    other data, they are the captions of held-out rows, and drawn only if a network (inception,
    clip) or an evaluator of pictures is named. 0 skips this."""
    batch_size: int = 32
    """Number of images or rows to process at once."""
    images: int = 512
    """Number of held-out rows for the validation loss. 0 skips it."""
    evaluators: tuple[str, ...] = ()
    """Names of the evaluators at the end. If none is named, all run except those that draw pictures
    of their own. The validation loss always runs, since it chooses the average."""
    mid_run: tuple[str, ...] = ()
    """Names of the evaluators every eval_interval steps. If none is named, they are validation_loss
    and caption_effect."""
    mid_run_prompts: int = 64
    """Number of held-out prompts that are drawn for evaluators of pictures every eval_interval
    steps."""
    inception: str | None = None
    """File with Inception's weights, for FID and KID (scripts/convert_inception.py)."""
    clip: str | None = None
    """Directory or repository of a whole CLIP, for CMMD and the CLIP score."""
    reference_images: int | None = None
    """Number of real pictures that distances compare with. none means 2000 renders of scenes, or
    all held-out rows of other data."""
    reference_statistics: str | None = None
    """A .npz file with mean and covariance of Inception's features of a reference set, for FID."""
    composition_prompts: int | None = None
    """Number of prompts of each task of composition, if that evaluator is named. none means 50."""
    variety_prompts: int | None = None
    """Number of prompts of variety, if that evaluator is named. none means 16."""

    def __post_init__(self) -> None:
        """Refuses negative counts and unknown evaluators."""
        natural = ("prompts", "images", "mid_run_prompts", "composition_prompts", "variety_prompts")
        require_counts("evaluation.", self, positive=("batch_size",), natural=natural)
        positive("evaluation.reference_images", self.reference_images, minimum=2)
        for field_name in ("evaluators", "mid_run"):
            for name in getattr(self, field_name):
                choice(f"evaluation.{field_name}", name, _known())
        if 0 < self.images < 10:
            raise UsageError(
                "evaluation.images", self.images, problem="too few", valid="0, or 10 or more"
            )

    def at_end(self, dataset: str, rows: int) -> Selection:
        """Returns the evaluators at the end of a run that has `rows` held-out rows."""
        from pinxit.evaluate.selection import Request

        names = self.evaluators
        if names and rows and "validation_loss" not in names:
            names = (*names, "validation_loss")
        return _selected(Request.reading(self, names), dataset, rows, self.prompts)

    def in_mid_run(self, dataset: str, rows: int) -> Selection:
        """Returns the evaluators every eval_interval steps of a run with `rows` held-out rows."""
        from pinxit.evaluate.evaluators import EVALUATORS
        from pinxit.evaluate.selection import Request

        names = self.mid_run or [name for name, one in EVALUATORS.items() if one.mid_run]
        request = Request.reading(self, names)
        return _selected(request, dataset, rows, self.mid_run_prompts, named=bool(self.mid_run))

    def check(self, dataset: str) -> None:
        """Raises `UsageError` for evaluators that a run on this dataset cannot measure."""
        if not any(getattr(self, name) for name in CHOICES):
            return
        with full_names("evaluation"):
            self.at_end(dataset, self.images)
        with full_names("evaluation", evaluators="evaluation.mid_run"):
            self.in_mid_run(dataset, self.images)


def _known() -> list[str]:
    """Returns the names of the evaluators that a run can measure."""
    from pinxit.evaluate.evaluators import EVALUATORS

    return [name for name in EVALUATORS if name not in OF_USERS]


def _selected(
    request: Request, dataset: str, rows: int, prompts: int, *, named: bool = True
) -> Selection:
    from pinxit.evaluate.selection import select

    return select(
        request, dataset=dataset, scenes=dataset == SCENES, rows=rows, prompts=prompts, named=named
    )
