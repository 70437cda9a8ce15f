"""Checks of what a run produces: its results, the released model, the report and the samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from pinxit.config import UsageError, flattened, read_json
from pinxit.doctor.guard import error_text
from pinxit.doctor.network import bytes_of
from pinxit.doctor.report_line import Line, ok, problem, size, warning
from pinxit.doctor.run_facts import RunFacts, listing
from pinxit.stored_model import read_model
from pinxit.train.settings import TrainConfig

RELEASE = 2e9
"""Bytes of a release that are read without ``--full``."""


def rewrite(facts: RunFacts) -> str:
    """Returns advice on how to write the final files again."""
    if facts.valid is None:
        return "restore it from a copy: without a valid checkpoint it cannot be written again"
    results = facts.folder.results
    return f"remove {results}, then run the same command, which writes the final files again"


def check_results(facts: RunFacts) -> Iterator[Line]:
    """Checks that the results of a finished run can be read and are finite."""
    path = facts.folder.results
    if not path.exists():
        return
    try:
        values = read_json(path)
        step = values["step"]
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise UsageError(f"{path} has the step {step!r}, not a whole number")
    except (OSError, ValueError, KeyError) as error:
        facts.blocked = str(path)
        missing = isinstance(error, KeyError)
        message = f"{path} has no step" if missing else error_text(error)
        hidden = isinstance(error, PermissionError)
        yield problem("results", message, f"make {path} readable" if hidden else rewrite(facts))
        return
    facts.results = values
    bad = [
        name
        for name, value in flattened(values).items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    if bad:
        advice = "the model has diverged: see docs/trouble.md on losses that are not finite"
        yield problem("results", f"{path}: not finite: {listing(bad)}", advice)


def check_release(facts: RunFacts) -> Iterator[Line]:
    """Checks that the released model of a finished run is there, whole and finite."""
    folder, finished = facts.folder.model, facts.results is not None
    if not folder.exists():
        if finished:
            message = f"{folder} is missing, although the run is finished"
            yield problem("release", message, rewrite(facts))
        return
    weights = folder / "model.safetensors"
    absent = [path.name for path in (weights, folder / "config.json") if not path.is_file()]
    if absent:
        message = f"{folder} is incomplete: {' and '.join(absent)} missing"
        yield problem("release", message, rewrite(facts))
        return
    total = bytes_of(folder)
    try:
        if total > RELEASE and not facts.full:
            yield _release_header(facts, total)
            return
        params = read_model(folder).params
    except Exception as error:  # any fault of the files: the advice is the same
        message = error_text(error).partition("; valid:")[0].removeprefix("checkpoint: ")
        yield problem("release", message, rewrite(facts))
        return
    bad = _not_finite(params)
    if bad:
        advice = "the model has diverged: see docs/trouble.md on losses that are not finite"
        yield problem("release", f"{weights}: not finite: {listing(bad)}", advice)
    else:
        yield ok("release", f"{folder}: {size(total)}, readable and finite")


def _release_header(facts: RunFacts, total: float) -> Line:
    """Returns the line for a large release, of which only the header and length are checked."""
    from safetensors import safe_open

    folder = facts.folder.model
    with safe_open(str(folder / "model.safetensors"), "numpy") as file:
        count = len(file.keys())
    read_json(folder / "config.json")
    return ok("release", f"{folder}: {size(total)}, {count} tensors (not read: --full)")


def _not_finite(params: dict[str, Any]) -> list[str]:
    """Returns the names of parameters with a value that is not finite."""
    return [name for name, leaf in flattened(params).items() if not np.isfinite(leaf).all()]


def check_report(facts: RunFacts) -> Iterator[Line]:
    """Checks that a finished run has its report."""
    if facts.results is not None and not facts.folder.report.is_file():
        message = f"{facts.folder.report} is missing, although the run is finished"
        yield warning("report", message, rewrite(facts))


def check_samples(facts: RunFacts, config: TrainConfig) -> Iterator[Line]:
    """Checks that the sample grids exist and can be opened."""
    folder, every = facts.folder.samples, config.sample_interval
    steps = range(every, facts.last_step + 1, every) if every else ()
    expected = [f"step_{step:08d}.png" for step in steps]
    newest = expected[-1] if expected else ""
    if facts.results is not None:
        expected.append("final.png")
        newest = ""
    missing = [name for name in expected if not (folder / name).is_file()]
    broken = []
    for path in sorted(folder.glob("*.png")):
        try:
            with Image.open(path) as picture:
                picture.verify()
        except Exception:  # Pillow raises many types for damaged pictures
            broken.append(path.name)
    lost = [name for name in missing if name != newest]  # the newest may still be being drawn
    advice = "grids of earlier steps are not drawn again; training is not affected"
    if "final.png" in (*lost, *broken):
        advice += f". For final.png, {rewrite(facts)}"
    if broken:
        yield warning("samples", f"cannot be opened: {listing(broken)} (in {folder})", advice)
    if lost:
        yield warning("samples", f"missing: {listing(lost)} (in {folder})", advice)
    if expected and not broken and not lost:
        yield ok("samples", f"{len(expected) - len(missing)} grids in {folder}")
