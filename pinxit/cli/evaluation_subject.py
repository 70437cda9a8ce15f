"""The subject of an evaluation: a model, the rows and prompts to measure it on, and its run.

`pinxit evaluate`, its sweeps and `pinxit compare` find all of that here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console

from pinxit.arrays import Objective
from pinxit.cli.sampling_options import SamplingOptions, check_guidance, sampling_options
from pinxit.config import UsageError, positive
from pinxit.data.sources.catalogue import SOURCES
from pinxit.devices.hardware import hardware_of
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.equipment import check_paths, equipment
from pinxit.evaluate.feature_cache import feature_cache
from pinxit.evaluate.observations import Observations
from pinxit.evaluate.picture_sets import texts_hash
from pinxit.evaluate.selection import Request, Selection, select
from pinxit.evaluate.stored_objective import objective_of
from pinxit.model_loading import load_checkpoint
from pinxit.pipeline import TextToImage
from pinxit.progress import showing
from pinxit.train.datasets import DATASETS
from pinxit.train.input.evaluation_rows import EvaluationRows, rows_of_dataset, rows_of_run
from pinxit.train.run_folder import RunFolder, has_run, saved_config
from pinxit.train.settings import EvalConfig, TrainConfig

SCENES = "scenes"
"""The dataset whose pictures the judge reads."""


@dataclass(frozen=True)
class SubjectOptions(SamplingOptions):
    """Options that name a model and the rows and prompts to measure it on."""

    checkpoint: str | None = None
    """A run, one of its checkpoints, a release, a PRX directory of diffusers, an exported
    .safetensors file, or a repository id on the Hub (owner/name); none means the model shipped with
    Pinxit."""
    dataset_name: str | None = None
    """Dataset to measure on: scenes, mock, or a source together with dataset_path; none means the
    dataset of the run."""
    dataset_path: str | None = None
    """A folder that `pinxit prepare` wrote, or the path of the dataset that dataset_name names."""
    prompts: int | None = None
    """Number of held-out prompts to draw: prompts of scenes, or, on other datasets, the captions of
    the first held-out rows. none means as many as the run (256 without one), and, on other
    datasets, 0 unless a network or an evaluator of pictures is named. 0 skips this measurement."""
    images: int | None = None
    """Number of held-out rows for the validation loss; none means as many as the run (512 without
    one). 0 skips this measurement."""
    evaluators: tuple[str, ...] = ()
    """Names of the evaluators to run, such as validation_loss. If none is named, all run except
    those that draw pictures of their own (composition, variety, geneval, dpg)."""
    inception: str | None = None
    """File with Inception's weights, which scripts/convert_inception.py writes, for FID and KID;
    none means the run's, or else the networks that come with Pinxit, which know scenes alone."""
    clip: str | None = None
    """Directory or repository of a whole CLIP, for CMMD and the CLIP score; none means the run's,
    or else the one that comes with Pinxit, which knows scenes alone."""
    reference_images: int | None = None
    """Number of real pictures that distances compare with; none means 2000 renders of scenes, or
    all held-out rows of other data."""
    reference_statistics: str | None = None
    """A .npz file with mean and covariance of Inception's features of a reference set, for FID."""
    composition_prompts: int | None = None
    """Number of prompts of each task of composition (scenes); none means 50. Measures composition,
    which draws four pictures of each."""
    variety_prompts: int | None = None
    """Number of prompts that variety draws with several seeds (scenes); none means 16. Measures
    variety."""
    detector: str | None = None
    """FILE.py:NAME of your object detector. Measures GenEval with it."""
    geneval_prompts: int | None = None
    """Number of GenEval's prompts to draw, evenly over its tasks; none means all 553."""
    answer: str | None = None
    """FILE.py:NAME of your function that answers questions about pictures. Measures DPG-Bench with
    it, together with dpg_questions."""
    dpg_questions: str | None = None
    """DPG-Bench's file of questions, dpg_bench.csv."""
    batch_size: int | None = None
    """Number of pictures or rows that a device computes together; none means as many as the run (32
    without one)."""
    ema: str | None = None
    """The run's average to evaluate, or raw; none means the run's best."""
    encoder_dtype: Literal["float32", "bfloat16"] | None = None
    """Dtype of the text encoder and the autoencoder; none means the run's (float32 without one)."""


@dataclass(frozen=True)
class Subject:
    """A model with the rows and prompts to measure it on."""

    options: SubjectOptions
    model: TextToImage
    """The model, in the dtype in which its run measures it."""
    run: RunFolder | None
    """The run that the model belongs to, or None."""
    own: TrainConfig | None
    """The settings of that run, or None."""
    config: TrainConfig
    """The settings of the run, or the usual ones of a model of this size."""
    rows: EvaluationRows
    """The held-out rows."""
    selection: Selection
    """The evaluators that can run, and the number of held-out prompts to draw."""

    @property
    def prompts(self) -> int:
        """The number of held-out prompts to draw."""
        return self.selection.prompts

    @property
    def average(self) -> str | None:
        """The name of the average that is measured, if the model says it."""
        details = self.model.stored.details if self.model.stored else {}
        return self.options.ema or details.get("ema")

    @cached_property
    def equipment(self) -> dict[str, Any]:
        """The fields of the context that the chosen evaluators read: networks, counts, the
        judge."""
        return equipment(self.selection)

    @cached_property
    def objective(self) -> Objective:
        """The loss that the model was trained with."""
        return objective_of(self.model)

    def context(self, **overrides: Any) -> EvaluationContext:
        """Returns the context of evaluators, with other values for the fields in `overrides`."""
        values: dict[str, Any] = {
            "model": self.model,
            "rows": self.rows.examples,
            "objective": self.objective,
            "batch_size": self.options.batch_size or self.config.evaluation.batch_size,
            "sampling": sampling_options(self.options),
            **self.equipment,
        } | overrides
        if "observations" not in values:
            values["observations"] = self.observations()
        return EvaluationContext(**values)

    def data(self, context: EvaluationContext, evaluators: Iterable[str]) -> dict[str, Any]:
        """Returns the rows, prompts and evaluators that all cells of a sweep or all models of a
        comparison share, as JSON."""
        rows, prompts = self.rows, context.real.prompts
        return {
            "dataset": rows.dataset,
            "dataset_path": rows.path,
            "origin": rows.origin,
            "rows": len(rows.examples),
            "prompts": len(prompts),
            "prompts_hash": texts_hash(prompts),
            "seeds": "seed i for prompt i, from 0",
            "evaluators": list(evaluators),
        }

    def observations(
        self, folder: Path | None = None, *, reference: Path | None = None
    ) -> Observations:
        """Returns the features of this evaluation, which are stored in `folder` until its end, and
        shows their progress on stderr. Features of real pictures are kept in the cache, or in
        `reference` without one."""
        console = Console(stderr=True)
        return Observations(
            folder,
            cache=feature_cache() or reference,
            showing=lambda text, unit: showing(console, text, unit=unit),
        )


def subject_of(options: SubjectOptions) -> Subject:
    """Loads the model that the options name, and finds its rows and prompts.

    Raises `UsageError` for options that do not fit the model, its run or the dataset.
    """
    request = Request.of(options)
    check_paths(request)
    positive("images", options.images, minimum=0)
    positive("batch_size", options.batch_size)
    run = run_of(options.checkpoint)
    own = saved_config(run) if run is not None else None
    model = load_checkpoint(
        options.checkpoint, ema=options.ema, encoder_dtype=_encoder_dtype(options, own)
    )
    check_guidance(options, model.sampling.override(**sampling_options(options)))
    rows, config = _rows(model, options, run, own)
    model.config = replace(model.config, dtype=_dtype(model, config))
    selection = select(
        request.with_defaults(_usable(own.evaluation) if own is not None else None),
        dataset=rows.dataset,
        scenes=rows.dataset == SCENES,
        rows=len(rows.examples),
        prompts=config.evaluation.prompts,
    )
    return Subject(options, model, run, own, config, rows, selection)


def _usable(settings: EvalConfig) -> EvalConfig:
    """Returns a run's settings without the files that are not on this machine, and names these."""
    gone: dict[str, Any] = {}
    for name in ("inception", "clip", "reference_statistics"):
        path = getattr(settings, name)
        if path is None or Path(path).exists():
            continue
        if name != "clip" or Path(path).is_absolute():  # otherwise it may be on the Hub
            print(f"pinxit: the run's {name} {path} is not here: left out", file=sys.stderr)
            gone[name] = None
    return replace(settings, **gone)


def _rows(
    model: TextToImage, options: SubjectOptions, run: RunFolder | None, own: TrainConfig | None
) -> tuple[EvaluationRows, TrainConfig]:
    """Returns the rows to measure on, and the settings of the run (`own`), or the usual ones."""
    config = own or TrainConfig(image_size=model.image_size)
    count = config.evaluation.images if options.images is None else options.images
    say = partial(print, "pinxit:", file=sys.stderr)
    named = options.dataset_name is not None or options.dataset_path is not None
    if run is not None and own is not None and not named:
        return rows_of_run(own, run, count, say), config
    other = TrainConfig(
        dataset_name=_named(model, options, config),
        dataset_path=options.dataset_path,
        image_size=model.image_size,
        seed=config.seed,
    ).resolved()
    if other.dataset_name in SOURCES:
        other = replace(
            other,
            columns=config.columns,
            text_encoding=config.text_encoding,
            filters=config.filters,
            fetch=config.fetch,
        )
    return rows_of_dataset(other, count, say), config


def _named(model: TextToImage, options: SubjectOptions, config: TrainConfig) -> str:
    """Returns the name of the dataset to measure on, which a prepared dataset's path overrides."""
    if options.dataset_name is not None:
        return options.dataset_name
    if options.dataset_path is None:
        return _trained_on(model, options)
    return config.dataset_name if config.dataset_name in SOURCES else TrainConfig.dataset_name


def _trained_on(model: TextToImage, options: SubjectOptions) -> str:
    """Returns the generated dataset that a release without its run was trained on."""
    details = model.stored.details if model.stored else {}
    name = details.get("dataset") or ("scenes" if details.get("accuracy") else None)
    if name in DATASETS:
        return name
    about = f" {model.name} was trained on {name}." if name else ""
    raise UsageError(
        f"dataset_path: {options.checkpoint} is a model without its run, so its held-out rows are "
        f"not known.{about} Name rows to measure on, with --dataset_path FOLDER (prepared), or "
        "--dataset_name NAME, or evaluate the run's folder"
    )


def _dtype(model: TextToImage, config: TrainConfig) -> Any:
    """Returns the dtype in which the run measures its model."""
    mixed = config.use_amp and config.model.dtype is None
    return hardware_of(jax.devices()[0]).amp_dtype if mixed else model.config.dtype


def _encoder_dtype(options: SubjectOptions, own: TrainConfig | None) -> str:
    """Returns the dtype of the encoders: what was asked for, or the run's on this device."""
    if options.encoder_dtype is not None or own is None:
        return options.encoder_dtype or "float32"
    return hardware_of(jax.devices()[0]).encoder_dtype(own.encoder_dtype)


def run_of(checkpoint: str | None) -> RunFolder | None:
    """Returns the run that a checkpoint or release belongs to, or None if it is not in a run.

    `checkpoint` may also be the run itself.
    """
    if checkpoint is None:
        return None
    directory = Path(checkpoint)
    for folder in (directory, directory.parent, directory.parent.parent):
        run = RunFolder(folder)
        inside = folder == directory or directory in (run.model, run.checkpoints)
        if (inside or directory.parent == run.checkpoints) and has_run(run):
            return run
    return None
