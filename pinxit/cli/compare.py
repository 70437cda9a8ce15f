"""`pinxit compare`: draws and measures several models with the same prompts and seeds."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pinxit import stored_model
from pinxit.cli.arguments import parse
from pinxit.cli.evaluation_subject import Subject, SubjectOptions, run_of, subject_of
from pinxit.cli.habits import COMPARE_HABITS
from pinxit.cli.sampling_options import sampling_options
from pinxit.config import UsageError, few, plain
from pinxit.evaluate.comparison.models import (
    ComparedModel,
    SheetRequest,
    compared_model,
    comparison_json,
)
from pinxit.evaluate.comparison.sheet import comparison_sheet
from pinxit.evaluate.comparison.table import comparison_page
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import Evaluator, evaluators
from pinxit.evaluate.picture_sets import identity
from pinxit.files import remove_folder, whole, write_json
from pinxit.output_paths import check_local, check_writable
from pinxit.sampling import ALIASES, check_seed
from pinxit.train.run_folder import saved_config

DESCRIPTION = """Compares models: runs, checkpoints, releases and PRX directories.

pinxit compare runs/small runs/large

Every model draws the same prompts from the same seeds, side by side in compare.png. compare.md \
and compare.json have what the evaluators measure on the same rows, the settings that differ, and \
differences with a 95 % interval. none is the model shipped with Pinxit."""
SHOWN = 4
"""The number of held-out prompts on the sheet, unless others are named."""
OWN = ("name", "output_dir")
"""Settings of a run that say nothing about its model."""
SHIPPED = "the shipped model"
"""The label of the model that none means."""
OF_A_MODEL = ("model", "objective", "batch_size", "observations", "check", "encoded")
"""Fields of an `EvaluationContext` that each model of a comparison has for itself."""
MOST_PICTURES = 64
"""The largest number of pictures that each model draws for the sheet."""


@dataclass(frozen=True)
class CompareOptions(SubjectOptions):
    """Options of `pinxit compare`."""

    models: tuple[str, ...] = ()
    """The models to compare, with or without --models: runs, checkpoints, releases, PRX directories
    or repository ids on the Hub; none is the model shipped with Pinxit. Differences are from the
    first one."""
    sheet_prompts: tuple[str, ...] = ()
    """Prompts of the pictures on the sheet; none means the first four held-out prompts."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the pictures on the sheet. Each prompt is drawn from each of them."""
    out: str = "comparison"
    """The folder for compare.json, compare.md and compare.png."""


def compare_command(argv: Sequence[str]) -> int:
    """Measures the models, writes the comparison, and prints the paths of its files."""
    options = parse(
        CompareOptions,
        argv,
        aliases=ALIASES,
        prog="pinxit compare",
        description=DESCRIPTION,
        positional="models",
        habits=COMPARE_HABITS,
    )
    chosen = evaluators(options.evaluators)
    check_local("out", options.out)
    _check(options)
    folder = Path(options.out)
    check_writable("out", options.out, folder)
    command = ["pinxit", "compare", *argv]
    try:
        models, common = _measured_models(options, chosen, folder)
    except KeyboardInterrupt:
        rest = f"the same command goes on where it was: {shlex.join(command)}"
        print(f"pinxit: no comparison was written; {rest}", file=sys.stderr)
        raise
    record = comparison_json(models, command=command, protocol=common.protocol)
    page, sheet = comparison_page(record), comparison_sheet(models, common.request)
    write_json(folder / "compare.json", record, sort_keys=False, indent=2, allow_nan=True)
    with whole(folder / "compare.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    with whole(folder / "compare.png") as temporary:
        temporary.write_bytes(sheet)
    remove_folder(folder / "drawn")
    print(*(folder / f"compare.{kind}" for kind in ("json", "md", "png")), sep="\n")
    return 0


def _check(options: CompareOptions) -> None:
    """Raises `UsageError` for wrong options and missing models, before one is loaded."""
    if options.checkpoint is not None:
        valid = "the models without an option: pinxit compare RUN RUN"
        raise UsageError("checkpoint", options.checkpoint, problem="one model", valid=valid)
    if len(options.models) < 2:
        problem = "a single model" if options.models else "missing"
        raise UsageError("models", options.models, problem=problem, valid="two or more models")
    if repeated := [each for each in options.models if options.models.count(each) > 1]:
        raise UsageError("models", repeated[0], problem="given more than once")
    for seed in options.seeds:
        check_seed("seeds", seed)
    pictures = len(options.seeds) * (len(options.sheet_prompts) or SHOWN)
    if not options.seeds or pictures > MOST_PICTURES:
        problem = f"a sheet of {pictures} pictures of each model"
        raise UsageError("seeds", options.seeds, problem=problem, valid=f"1 to {MOST_PICTURES}")
    stored = {
        each: stored_model.read_model(_path(each), ema=options.ema, weights=False)
        for each in options.models
    }
    sizes = {each: model.image_size for each, model in stored.items()}
    if len(set(sizes.values())) > 1:
        texts = [f"{each} {size} pixels" for each, size in sizes.items()]
        raise UsageError(
            f"models: they draw pictures of different sizes ({', '.join(texts)}), which no value "
            "compares; valid: models of one size"
        )
    if options.dataset_name is None and options.dataset_path is None:
        _check_datasets({each: _dataset(each, model.details) for each, model in stored.items()})


def _check_datasets(datasets: dict[str, str | None]) -> None:
    """Raises unless all models were trained on one dataset, whose held-out rows compare them."""
    if len(set(datasets.values())) == 1 and None not in datasets.values():
        return
    texts = [f"{model} on {name or 'an unknown dataset'}" for model, name in datasets.items()]
    raise UsageError(
        f"dataset_path: the models were not trained on one dataset ({few(texts)}), so they have no "
        "held-out rows in common. Name rows to compare them on, with --dataset_path FOLDER "
        "(prepared), or --dataset_name NAME"
    )


def _dataset(model: str, details: dict[str, Any]) -> str | None:
    """Returns the dataset that a model was trained on, or None if its files do not tell."""
    run = run_of(_path(model))
    if run is None:
        return details.get("dataset") or ("scenes" if details.get("accuracy") else None)
    config = saved_config(run)
    path = config.dataset_path
    return f"{config.dataset_name} ({path})" if path else config.dataset_name


def _path(model: str) -> str | None:
    return None if model.lower() == "none" else model


@dataclass(frozen=True)
class _Common:
    """The first model's rows, prompts and real pictures, on which all models are measured."""

    fields: dict[str, Any]
    """The fields of the first model's context that do not belong to that model."""
    real: dict[str, Any]
    request: SheetRequest
    protocol: dict[str, Any]


def _measured_models(
    options: CompareOptions, chosen: dict[str, Evaluator], folder: Path
) -> tuple[list[ComparedModel], _Common]:
    """Measures one model after another on the rows and prompts of the first one."""
    models: list[ComparedModel] = []
    common: _Common | None = None
    for number, label in enumerate(options.models, start=1):
        print(f"pinxit: model {number} of {len(options.models)}: {label}", file=sys.stderr)
        model, common = _measured_model(options, chosen, folder, label, common)
        models.append(model)
    assert common is not None
    return models, common


def _measured_model(
    options: CompareOptions,
    chosen: dict[str, Evaluator],
    folder: Path,
    label: str,
    common: _Common | None,
) -> tuple[ComparedModel, _Common]:
    """Loads and measures one model, which is released at the end."""
    images = options.images if common is None else 1  # those of the first model count
    subject = subject_of(_subject_options(options, label, images))
    drawn = folder / "drawn" / identity({"model": label})
    context = subject.context(
        observations=subject.observations(drawn, reference=folder / "reference")
    )
    if common is None:
        print(f"measured on: {subject.rows}")
        request = _request(options, context)
        protocol = _protocol(subject, context, chosen, request)
        names = [field.name for field in fields(context) if field.name not in OF_A_MODEL]
        shared = {name: getattr(context, name) for name in names}
        common = _Common(shared, context.real_pictures(), request, protocol)
    else:
        context = replace(context, **common.fields).sharing(common.real)
    results = subject.run.finished() if subject.run is not None else None
    own = None if subject.own is None else plain(subject.own)
    settings = {name: each for name, each in (own or {}).items() if name not in OWN}
    model = compared_model(
        label if _path(label) else SHIPPED,
        context,
        chosen,
        common.request,
        settings=settings or None,
        train_seconds=(results or {}).get("train_seconds"),
    )
    return model, replace(common, real=context.real_pictures())


def _subject_options(options: CompareOptions, label: str, images: int | None) -> SubjectOptions:
    """Returns the options that evaluate one model."""
    values = {field.name: getattr(options, field.name) for field in fields(SubjectOptions)}
    return SubjectOptions(**values | {"checkpoint": _path(label), "images": images})


def _request(options: CompareOptions, context: EvaluationContext) -> SheetRequest:
    """Returns the pictures of the sheet: of the named prompts, or of the first held-out ones."""
    prompts = options.sheet_prompts or context.real.prompts[:SHOWN]
    if not prompts:
        prompts = tuple(context.rows[i].caption for i in range(min(SHOWN, len(context.rows))))
    if not prompts:
        valid = "texts, or --images or --prompts above 0"
        raise UsageError("sheet_prompts", None, problem="missing", valid=valid)
    return SheetRequest(tuple(prompts), options.seeds, sampling_options(options))


def _protocol(
    subject: Subject,
    context: EvaluationContext,
    chosen: dict[str, Evaluator],
    request: SheetRequest,
) -> dict[str, Any]:
    """Returns the data and the settings that all models share, with a summary in words."""
    count = len(context.real.prompts)
    words = {"rows": str(subject.rows)}
    if count:
        words["prompts"] = f"{count:,} held-out prompts, seed i for picture i"
    if request.sampling:
        words["settings"] = ", ".join(f"{name} {each}" for name, each in request.sampling.items())
    else:
        words["settings"] = "each model's own sampling settings"
    return {
        "in_words": words,
        **subject.data(context, chosen),
        "sampling": plain(request.sampling),
        "sheet": {"prompts": list(request.prompts), "seeds": list(request.seeds)},
    }
