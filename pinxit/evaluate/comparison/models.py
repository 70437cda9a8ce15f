"""The models of a comparison: what each one is, its values, and the pictures of the sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import numpy as np

from pinxit.config import flattened, plain
from pinxit.evaluate.comparison.paired import PictureScores, paired_differences, picture_scores
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import Evaluator, measure_all
from pinxit.evaluate.extractors.base import Picture
from pinxit.pipeline import TextToImage

UNKNOWN = "?"
"""Stands for a setting that a model's files do not tell."""


@dataclass(frozen=True)
class SheetRequest:
    """The pictures that every model draws for the sheet."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Sampling settings that differ from each model's own."""

    def draw(self, model: TextToImage) -> list[list[Picture]]:
        """Returns the pictures of a model, ``[seed][prompt]``."""
        return [
            list(
                model.generate(
                    list(self.prompts),
                    seed=[seed] * len(self.prompts),
                    output_type="np",
                    **self.sampling,
                )
            )
            for seed in self.seeds
        ]


@dataclass(frozen=True)
class ComparedModel:
    """One model of a comparison."""

    label: str
    """The name under which the user named it."""
    about: dict[str, Any]
    """The model's name, hash, step, size and sampling settings, as JSON."""
    settings: dict[str, Any]
    """The settings that the model was trained with, by dotted name."""
    values: dict[str, float]
    """The evaluators' values."""
    scores: Mapping[str, PictureScores]
    """The scores of its pictures."""
    pictures: list[list[Picture]]
    """The pictures of the sheet, ``[seed][prompt]``."""


def compared_model(
    label: str,
    context: EvaluationContext,
    chosen: Mapping[str, Evaluator],
    sheet: SheetRequest,
    *,
    settings: Mapping[str, Any] | None = None,
    train_seconds: float | None = None,
) -> ComparedModel:
    """Measures a model and draws its pictures of the sheet.

    `settings` are those of the model's run; None means those that are stored with the model.
    """
    model = context.model
    values = measure_all(chosen.values(), context)
    scores = picture_scores(context, chosen) if len(context.prompted) else {}
    details = model.stored.details if model.stored else {}
    known = _settings(model) if settings is None else dict(settings)
    # The network as it is: a run's settings may name a preset and leave the rest out.
    known["model"] = plain(model.config)
    step, batch = details.get("step"), known.get("batch_size")
    about = {
        "name": model.name,
        "model_hash": model.model_hash,
        "ema": details.get("ema"),
        "step": step,
        "images": details.get("images") or (step * batch if step and batch else None),
        "parameters": sum(int(np.size(leaf)) for leaf in jax.tree.leaves(model.params)),
        "train_seconds": train_seconds,
        "image_size": model.image_size,
        "sampling": plain(model.sampling.override(**context.sampling)),
    }
    return ComparedModel(label, about, flattened(known), values, scores, sheet.draw(model))


def _settings(model: TextToImage) -> dict[str, Any]:
    """Returns the settings that a model without its run was trained with, as far as it has them."""
    stored = model.stored
    names = ("text_encoder", "vae", "caption_cleaning", "text_max_tokens", "objective")
    settings = {name: getattr(stored, name, None) for name in names} | {
        "image_size": model.image_size,
        "dataset_name": stored.details.get("dataset") if stored else None,
    }
    return {name: value for name, value in settings.items() if value is not None}


def setting_differences(models: Sequence[ComparedModel]) -> dict[str, list[Any]]:
    """Returns the settings that differ between models, each with the models' values.

    A setting that a model's files do not tell counts as `UNKNOWN`, and differs only if the others
    differ as well.
    """
    names = dict.fromkeys(name for model in models for name in model.settings)
    different: dict[str, list[Any]] = {}
    for name in names:
        known = [model.settings[name] for model in models if name in model.settings]
        if any(value != known[0] for value in known):
            different[name] = [plain(model.settings.get(name, UNKNOWN)) for model in models]
    return different


def comparison_json(
    models: Sequence[ComparedModel], *, command: Sequence[str], protocol: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the content of ``compare.json``. Differences are those from the first model."""
    first = models[0]
    return {
        "format": "pinxit-comparison",
        "command": list(command),
        "protocol": dict(protocol),
        "models": [
            {"checkpoint": model.label, **model.about, "values": model.values} for model in models
        ],
        "setting_differences": setting_differences(models),
        "paired_differences": [
            {
                "checkpoint": model.label,
                "from": first.label,
                **asdict(difference),
                "clear": difference.clear,
            }
            for model in models[1:]
            for difference in paired_differences(model.scores, first.scores)
        ],
    }
