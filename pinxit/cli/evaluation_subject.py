"""The subject of an evaluation: a model, the rows and prompts to measure it on, and its run.

`pinxit evaluate`, its sweeps and `pinxit compare` find all of that here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console

from pinxit.arrays import Objective
from pinxit.cli.sampling_options import SamplingOptions, check_guidance, sampling_options
from pinxit.config import UsageError, from_kind, kinds_of, positive
from pinxit.data.sources.catalogue import SOURCES
from pinxit.devices.hardware import hardware_of
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import EVALUATORS
from pinxit.evaluate.judge import load_judge
from pinxit.evaluate.observations import Observations
from pinxit.extensions import explained
from pinxit.model_loading import load_checkpoint
from pinxit.pipeline import TextToImage
from pinxit.progress import showing
from pinxit.train.datasets import DATASETS
from pinxit.train.input.evaluation_rows import EvaluationRows, rows_of_dataset, rows_of_run
from pinxit.train.run_folder import RunFolder, has_run, saved_config
from pinxit.train.settings import TrainConfig

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
    """Number of held-out prompts of scenes to draw and judge; none means as many as the run (256
    without one), and none at all for other datasets. 0 skips this measurement."""
    images: int | None = None
    """Number of held-out rows for the validation loss; none means as many as the run (512 without
    one). 0 skips this measurement."""
    evaluators: tuple[str, ...] = ()
    """Names of the evaluators to run, such as validation_loss; all if none is named."""
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
    prompts: int
    """Number of held-out prompts to draw."""

    @cached_property
    def objective(self) -> Objective:
        """The loss that the model was trained with."""
        return _objective(self.model)

    def context(self, **overrides: Any) -> EvaluationContext:
        """Returns the context of evaluators, with other values for the fields in `overrides`."""
        console = Console(stderr=True)
        values: dict[str, Any] = {
            "model": self.model,
            "rows": self.rows.examples,
            "objective": self.objective,
            "batch_size": self.options.batch_size or self.config.evaluation.batch_size,
            "prompts": self.prompts,
            "judge": load_judge() if self.prompts else None,
            "sampling": sampling_options(self.options),
        } | overrides
        if "observations" not in values:
            values["observations"] = Observations(
                showing=lambda text, unit: showing(console, text, unit=unit)
            )
        return EvaluationContext(**values)


def subject_of(options: SubjectOptions) -> Subject:
    """Loads the model that the options name, and finds its rows and prompts.

    Raises `UsageError` for options that do not fit the model, its run or the dataset.
    """
    positive("prompts", options.prompts, minimum=0)
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
    prompts = _prompts(options, config, rows)
    return Subject(options, model, run, own, config, rows, prompts)


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


def _prompts(options: SubjectOptions, config: TrainConfig, rows: EvaluationRows) -> int:
    """Returns the number of prompts to draw and judge, which is 0 unless the rows are scenes."""
    if rows.dataset == SCENES:
        return config.evaluation.prompts if options.prompts is None else options.prompts
    if options.prompts:
        problem = f"not possible on {rows.dataset}: only pictures of scenes can be judged"
        raise UsageError("prompts", options.prompts, problem=problem, valid="0, or scenes")
    if tuple(options.evaluators) == ("prompt_accuracy",):
        problem = f"not possible on {rows.dataset}: only pictures of scenes can be judged"
        valid = [name for name in EVALUATORS if name != "prompt_accuracy"]
        raise UsageError("evaluators", "prompt_accuracy", problem=problem, valid=valid)
    return 0


def _dtype(model: TextToImage, config: TrainConfig) -> Any:
    """Returns the dtype in which the run measures its model."""
    mixed = config.use_amp and config.model.dtype is None
    return hardware_of(jax.devices()[0]).amp_dtype if mixed else model.config.dtype


def _encoder_dtype(options: SubjectOptions, own: TrainConfig | None) -> str:
    """Returns the dtype of the encoders: what was asked for, or the run's on this device."""
    if options.encoder_dtype is not None or own is None:
        return options.encoder_dtype or "float32"
    return hardware_of(jax.devices()[0]).encoder_dtype(own.encoder_dtype)


def _objective(model: TextToImage) -> Objective:
    """Returns the model's training objective."""
    stored = model.stored
    with explained(stored.extensions if stored else {}):
        return from_kind(kinds_of(TrainConfig)["objective"], stored.objective if stored else {})


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
