"""Measures the cells of a sweep, one after another, and stores each as soon as it is finished.

The cells of one average follow one another, so that each model is loaded once. All cells share the
features of real pictures. Those of drawn pictures are in a folder of the cell while it is measured,
so that an interrupted sweep goes on within the cell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinxit.config import UsageError, to_json
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.evaluators import Evaluator, expect, measure
from pinxit.evaluate.observations import Observations
from pinxit.evaluate.picture_sets import identity
from pinxit.evaluate.sweep.cells import SweepCell
from pinxit.evaluate.sweep.dependence import dependence_key, pictures_of, split_by_drawing
from pinxit.evaluate.sweep.storing import MeasuredCell, SweepFile, as_json, average_in_words
from pinxit.evaluate.sweep.time_left import cost, seconds_left
from pinxit.files import remove_folder
from pinxit.progress import counted, duration
from pinxit.sampling import Sampling

ContextOf = Callable[[str | None], EvaluationContext]
"""A function that loads an average (None for the default) and returns its context."""
DRAWN, REFERENCE = "drawn", "reference"
"""The folders of features, beside the file of the sweep."""


@dataclass
class SweepRunner:
    """Measures the cells of a sweep that are not stored yet."""

    file: SweepFile
    chosen: Mapping[str, Evaluator]
    """The evaluators of drawn pictures, and others."""
    context_of: ContextOf
    once: bool = False
    """Whether to measure evaluators that draw nothing too, once for each average."""
    say: Callable[[str], object] = lambda line: None
    """A function that is called with lines about the progress."""
    _timed: list[tuple[float, float]] = field(default_factory=list)
    _announced: bool = False
    _real: dict[str, Any] = field(default_factory=dict)

    def run(self) -> SweepFile:
        """Measures the missing cells, and returns the file with all cells.

        Raises `UsageError` if no evaluator draws pictures, or for settings that the model refuses.
        """
        cells = self.file.sweep.cells()
        averages = list(dict.fromkeys(cell.ema for cell in cells))
        for ema in averages:
            self._measure_average(ema, [cell for cell in cells if cell.ema == ema])
        remove_folder(self.folder / DRAWN)
        return self.file

    @property
    def folder(self) -> Path:
        """The folder of the sweep."""
        return self.file.path.parent

    def _measure_average(self, ema: str | None, cells: Sequence[SweepCell]) -> None:
        """Loads one average and measures its cells. The model is released at the end."""
        base = self.context_of(ema).sharing(self._real)
        drawing, others = split_by_drawing(self.chosen, base)
        if not drawing:
            problem = "without evaluators of drawn pictures, so that every cell would be the same"
            valid = "prompts above 0, and evaluators that read pictures"
            raise UsageError("sweep", self.file.sweep.written, problem=problem, valid=valid)
        contexts = {cell.words: self._context(base, cell) for cell in cells}
        keys = {
            words: {name: dependence_key(name, each, context) for name, each in drawing.items()}
            for words, context in contexts.items()
        }
        self._real = base.real_pictures()
        missing = [cell for cell in cells if self._missing(keys[cell.words])]
        self._announce(ema, base, cells, missing, pictures_of(drawing, base))
        if others and self.once:
            self._measure_once(ema, base, others)
        unfinished = {cell.words for cell in missing}
        costs = {cell.words: cost(self._sampling(contexts[cell.words])) for cell in cells}
        for number, cell in enumerate(cells):
            left = [costs[each.words] for each in cells[number:] if each.words in unfinished]
            note = self._time_left(left) if cell.words in unfinished else ""
            label = f"cell {self._number(cell)} of {len(self.file.sweep)}: {cell.words}{note}"
            context = contexts.pop(cell.words)
            self._measure_cell(cell, context, drawing, keys[cell.words], label)

    def _context(self, base: EvaluationContext, cell: SweepCell) -> EvaluationContext:
        """Returns the context of a cell, whose features have a folder of their own."""
        folder = self.folder / DRAWN / identity(as_json(cell))
        observations = Observations(
            folder,
            cache=base.observations.cache or self.folder / REFERENCE,
            showing=base.observations.showing,
            check=base.observations.check,
        )
        context = base.varied(
            sampling={**base.sampling, **cell.sampling}, observations=observations
        )
        self._sampling(context)
        return context

    def _sampling(self, context: EvaluationContext) -> Sampling:
        return context.model.sampling.override(**context.sampling)

    def _missing(self, keys: Mapping[str, str]) -> list[str]:
        """Returns the evaluators whose values are not stored."""
        return [name for name, key in keys.items() if self.file.stored_values(name, key) is None]

    def _announce(
        self,
        ema: str | None,
        base: EvaluationContext,
        cells: Sequence[SweepCell],
        missing: Sequence[SweepCell],
        pictures: int,
    ) -> None:
        """Says how many pictures the sweep means, and which cells are stored already."""
        if not self._announced:
            self._announced = True
            total = len(self.file.sweep)
            each, everything = counted(pictures, "picture"), counted(total * pictures, "picture")
            self.say(f"{counted(total, 'cell')} of {each}: {everything}")
        where = self.file.path
        changed = [cell for cell in missing if self.file.earlier_cell(as_json(cell))]
        if stored := len(cells) - len(missing):
            of = f" of {average_in_words(ema)}" if ema is not None else ""
            self.say(f"{stored:,} of {counted(len(cells), 'cell')}{of}: stored in {where}")
        if changed:
            self.say(
                f"{counted(len(changed), 'cell')} in {where} had another model, other prompts, "
                "evaluators or settings: measured again"
            )

    def _time_left(self, costs: Sequence[float]) -> str:
        # The first cell also compiles and reads the real pictures.
        seconds = seconds_left(self._timed[1:] or self._timed, costs)
        return "" if seconds is None else f" (about {duration(seconds)} left)"

    def _number(self, cell: SweepCell) -> int:
        return self.file.sweep.cells().index(cell) + 1

    def _measure_once(
        self, ema: str | None, base: EvaluationContext, others: Mapping[str, Evaluator]
    ) -> None:
        """Measures, once for an average, the evaluators that draw nothing."""
        keys = {name: dependence_key(name, each, base) for name, each in others.items()}
        measured = MeasuredCell(
            settings={} if ema is None else {"ema": ema}, model=_model(base, ema), keys=keys
        )
        for name, evaluator in others.items():
            values = self.file.stored_values(name, keys[name])
            measured.values[name] = measure(evaluator, base) if values is None else values
        self.file.add_average(ema, measured)

    def _measure_cell(
        self,
        cell: SweepCell,
        context: EvaluationContext,
        drawing: Mapping[str, Evaluator],
        keys: Mapping[str, str],
        label: str,
    ) -> None:
        """Measures the evaluators of a cell that are not stored, and stores the cell."""
        missing = self._missing(keys)
        before = self.file.earlier_cell(as_json(cell))
        measured = MeasuredCell(
            settings=as_json(cell),
            sampling=to_json(self._sampling(context)),
            model=_model(context, cell.ema),
            pictures=pictures_of(drawing, context),
            seconds=before.seconds if before and not missing else None,
            keys=dict(keys),
        )
        new: dict[str, dict[str, float]] = {}
        if missing:
            new = self._measured_now(
                context, {name: drawing[name] for name in missing}, label, measured
            )
        for name, key in keys.items():
            stored = self.file.stored_values(name, key)
            measured.values[name] = new[name] if stored is None else stored
        self.file.add(cell, measured)
        context.observations.finished()

    def _measured_now(
        self,
        context: EvaluationContext,
        evaluators: Mapping[str, Evaluator],
        label: str,
        measured: MeasuredCell,
    ) -> dict[str, dict[str, float]]:
        """Returns the values of evaluators, and notes the time that they took."""
        observations, started = context.observations, time.monotonic()
        resumed = observations.folder.is_dir()
        show = observations.showing
        observations.showing = lambda text, unit: show(f"{label}: {text}", unit)
        values: dict[str, dict[str, float]] = {}
        expect(evaluators.values(), context)
        for name, evaluator in evaluators.items():
            values[name] = measure(evaluator, context)
        seconds = time.monotonic() - started
        if not resumed:
            measured.seconds = round(seconds, 2)
            self._timed.append((cost(self._sampling(context)), seconds))
        return values


def _model(context: EvaluationContext, ema: str | None) -> dict[str, Any]:
    return {"name": context.model.name, "hash": context.model.model_hash, "ema": ema}
