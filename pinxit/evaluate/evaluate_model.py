"""Measures a model from Python, with the figures of `pinxit evaluate`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pinxit.arrays import Example, Objective
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.equipment import check_paths, equipment
from pinxit.evaluate.evaluators import evaluators as evaluators_of
from pinxit.evaluate.evaluators import measure_all
from pinxit.evaluate.feature_cache import feature_cache
from pinxit.evaluate.observations import Observations, Showing, silent
from pinxit.evaluate.picture_sets import Examples
from pinxit.evaluate.protocol import protocol
from pinxit.evaluate.record import record_of
from pinxit.evaluate.selection import Request, select
from pinxit.evaluate.stored_objective import objective_of
from pinxit.pipeline import TextToImage


def evaluate_model(
    model: TextToImage,
    *,
    prompts: int | None = None,
    evaluators: Sequence[str] = (),
    rows: Examples | Sequence[Example] = (),
    scenes: bool | None = None,
    batch_size: int = 32,
    objective: Objective | None = None,
    sampling: Mapping[str, Any] | None = None,
    folder: Path | str | None = None,
    showing: Showing = silent,
    **options: Any,
) -> dict[str, Any]:
    """Returns the record that `pinxit evaluate` writes, except its rows and its command.

    ``["values"]`` has the figures by name, and ``["protocol"]`` what they depend on. `rows` are
    held-out examples for the validation loss and the effect of captions. `prompts` is the number of
    held-out prompts to draw (256 of scenes if None). These are prompts of scenes if `scenes` is
    true, which it is by default if there are no rows; otherwise the captions of the first rows.
    `objective` is the loss to compute, by default the one that the model was trained with.
    `sampling` has settings of `model.generate`. Features are stored in `folder`, if one is given,
    so that an interrupted call goes on; it is removed at the end. `showing` shows the progress.

    `options` are those of `pinxit evaluate` with the same names: inception, clip,
    reference_images, reference_statistics, composition_prompts, variety_prompts, detector,
    geneval_prompts, answer, dpg_questions. Raises `UsageError` for options and evaluators that do
    not fit the model or its rows.
    """
    started = time.perf_counter()
    scenes = not len(rows) if scenes is None else scenes
    request = Request(evaluators=tuple(evaluators), prompts=prompts, **options)
    check_paths(request)
    dataset = "scenes" if scenes else "these rows"
    selection = select(request, dataset=dataset, scenes=scenes, rows=len(rows), prompts=256)
    partial = None if folder is None else Path(folder)
    fields: dict[str, Any] = {
        "model": model,
        "rows": rows,
        "objective": objective or objective_of(model),
        "batch_size": batch_size,
        "sampling": dict(sampling or {}),
        "observations": Observations(partial, cache=feature_cache(), showing=showing),
    }
    context = EvaluationContext(**fields, **equipment(selection))
    values = measure_all(evaluators_of(selection.names).values(), context)
    about = protocol(context, selection.names, average=None, seconds=time.perf_counter() - started)
    context.observations.finished()
    return record_of(model, values, about)
