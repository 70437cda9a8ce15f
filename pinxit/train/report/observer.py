"""Observation of a run: sample grids and the values of the evaluators."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
from PIL import Image

from pinxit.arrays import Example
from pinxit.contact_sheet import contact_sheet, save_sheet
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.encoded_rows import EncodedRows
from pinxit.evaluate.equipment import equipment
from pinxit.evaluate.evaluators import EVALUATORS, Evaluator, expect, measure
from pinxit.evaluate.feature_cache import feature_cache
from pinxit.evaluate.observations import Observations
from pinxit.evaluate.protocol import protocol
from pinxit.evaluate.selection import Selection
from pinxit.pipeline import TextToImage
from pinxit.train.attended_work import end_if_asked
from pinxit.train.build import Parts, build_pipeline
from pinxit.train.display import Display
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState

LARGEST_CELL = 256
"""Longest side of a picture in a sample grid, in pixels; larger pictures are scaled down."""
RAW = "raw"
"""The name of the parameters themselves, next to the names of their averages."""


@dataclass
class Observer:
    """Samples images and evaluates with the parameters of a run."""

    config: TrainConfig
    parts: Parts
    folder: RunFolder
    display: Display
    held_out: Callable[[], Sequence[Example]]
    """Returns the rows for the validation loss."""
    check: Callable[[], None] = end_if_asked
    """A function that is called between batches and raises to stop."""
    failed: Callable[[str, Exception], object] | None = None
    """A function that counts an evaluator's failure, so that the others still run. With None, the
    failure is raised."""
    protocol: dict[str, Any] = field(default_factory=dict)
    """The protocol of the final evaluation, once it has been made."""
    _equipped: dict[Any, dict[str, Any]] = field(default_factory=dict)
    _seconds: float = 0.0

    @cached_property
    def encoded(self) -> EncodedRows:
        """The held-out rows, which are encoded once for all averages and evaluations."""
        return EncodedRows()

    @cached_property
    def _pipeline(self) -> TextToImage:
        pipeline = build_pipeline(self.config, self.parts, None)
        pipeline.devices = jax.local_devices()
        return pipeline

    @cached_property
    def heldout(self) -> Sequence[Example]:
        """The held-out rows, which are created once."""
        return self.held_out()

    def candidates(self, state: TrainState) -> dict[str, Any]:
        """Returns the parameters and their averages, by name."""
        return {RAW: state.params, **state.ema}

    def model(self, params: Any) -> TextToImage:
        """Returns the pipeline with these parameters on one device. It copies them to the others
        when it computes several batches."""
        local = jax.tree.map(lambda leaf: jax.device_put(leaf, jax.local_devices()[0]), params)
        return self._pipeline.with_params(local)

    def pictures(self, params: Any) -> list[list[Image.Image]]:
        """Returns a row of images for each prompt, with one image per seed."""
        samples = self.config.samples
        prompts, seeds = samples.prompts, samples.seeds
        images = self.model(params).generate(
            [prompt for prompt in prompts for _ in seeds],
            seed=list(seeds) * len(prompts),
            negative_prompt=samples.negative_prompt,
            size=samples.width_and_height,
            batch_size=len(prompts) * len(seeds),
        )
        return [images[i : i + len(seeds)] for i in range(0, len(images), len(seeds))]

    def sheet(self, state: TrainState, path: Path, names: Sequence[str]) -> None:
        """Samples the fixed prompts with each of the named parameters, and writes the contact
        sheet."""
        columns = {}
        for name in names:
            self.check()
            columns[name] = self.pictures(self.candidates(state)[name])
        sampling = self.config.sampling
        title = (
            f"{self.config.name}, step {int(state.step)}: {sampling.solver}, {sampling.steps} "
            f"steps, guidance {sampling.guidance_scale:g}"
        )
        sides = [max(picture.size) for rows in columns.values() for row in rows for picture in row]
        cell = min(LARGEST_CELL, max(sides, default=0))
        prompts = self.config.samples.prompts
        save_sheet(contact_sheet(prompts, columns, title=title, cell=max(128, cell)), path)

    def grid(self, step: int) -> Path:
        """Returns the path of a step's sample grid."""
        return self.folder.samples / f"step_{step:08d}.png"

    def sample(self, step: int, state: TrainState) -> Path:
        """Writes the sample grid of a step: the parameters, and the middle one of their averages.
        Returns its path."""
        names = [RAW, *sorted(state.ema)[len(state.ema) // 2 :][:1]]
        path = self.grid(step)
        self.sheet(state, path, names)
        self.display.say(f"samples: {path}")
        return path

    @cached_property
    def at_end(self) -> Selection:
        """The evaluators at the end of the run."""
        return self.config.evaluation.at_end(self.config.dataset_name, len(self._rows))

    @cached_property
    def in_mid_run(self) -> Selection:
        """The evaluators every eval_interval steps."""
        return self.config.evaluation.in_mid_run(self.config.dataset_name, len(self._rows))

    @property
    def _rows(self) -> Sequence[Example]:
        return self.heldout if self.config.evaluation.images else ()

    @cached_property
    def observations(self) -> Observations:
        """The features of the final evaluation, which is repeated if a signal ends it."""
        return self._observations(self.folder.root / "evaluation.partial")

    def _observations(self, folder: Path | None = None) -> Observations:
        showing = self.display.showing
        return Observations(folder, cache=feature_cache(), showing=showing, check=self.check)

    def _equipment(self, selection: Selection) -> dict[str, Any]:
        """Returns the networks and counts of a selection, which are loaded once."""
        key = selection.names, selection.prompts
        if key not in self._equipped:
            self._equipped[key] = equipment(selection)
        return self._equipped[key]

    def context(
        self, params: Any, selection: Selection, observations: Observations | None = None
    ) -> EvaluationContext:
        """Returns the evaluators' context with these parameters."""
        fields: dict[str, Any] = {
            "model": self.model(params),
            "rows": self._rows,
            "objective": self.config.objective,
            "batch_size": self.config.evaluation.batch_size,
            "check": self.check,
            "observations": observations or self._observations(),
            "encoded": self.encoded,
        }
        return EvaluationContext(**fields, **self._equipment(selection))

    def measure(
        self,
        state: TrainState,
        selection: Selection,
        names: Sequence[str] | None = None,
        *,
        chosen: str | None = None,
        observations: Observations | None = None,
    ) -> dict[str, float]:
        """Returns the values of a selection's evaluators, or of those among `names`, and displays
        each when it is ready.

        Evaluators of the best parameters use those that `chosen` names. Without `chosen` they use
        the ones with the lowest of the losses just measured. All evaluators of the same parameters
        share the pictures that are drawn with them.
        """
        started = time.perf_counter()
        names = selection.names if names is None else names
        values: dict[str, float] = {}

        def add(name: str, act: Callable[[], dict[str, float]]) -> None:
            self.check()
            if new := self._unless_failed(name, act):
                self.display.say(EVALUATORS[name].words(new))
                values.update(new)

        of_label: dict[str, list[str]] = {}
        for name in [one for one in names if EVALUATORS[one].parameters == "each"]:
            add(name, partial(self._of_each, EVALUATORS[name], state, selection))
        best = chosen or best_of(losses_in(values), state)
        for name in [one for one in names if EVALUATORS[one].parameters != "each"]:
            label = RAW if EVALUATORS[name].parameters == "raw" else best
            of_label.setdefault(label, []).append(name)
        for label, group in of_label.items():
            context = self.context(self.candidates(state)[label], selection, observations)
            for name in group:
                self._unless_failed(name, partial(expect, [EVALUATORS[name]], context))
            for name in group:
                add(name, partial(measure, EVALUATORS[name], context))
        self._seconds += time.perf_counter() - started
        return values

    def _unless_failed(
        self, name: str, act: Callable[[], dict[str, float] | None]
    ) -> dict[str, float]:
        """Returns the values of an evaluator, or none if it failed and `failed` counts that."""
        try:
            return act() or {}
        except Exception as error:  # whatever it is, the others run
            if self.failed is None:
                raise
            self.failed(f"the evaluator {name}", error)
            return {}

    def _of_each(
        self, evaluator: Evaluator, state: TrainState, selection: Selection
    ) -> dict[str, float]:
        """Returns the first value for each set of parameters: ``group/name`` becomes
        ``group_name/average``."""
        values: dict[str, float] = {}
        for label, params in self.candidates(state).items():
            self.check()
            measured = measure(evaluator, self.context(params, selection))
            for name, value in list(measured.items())[:1]:
                values[f"{name.replace('/', '_')}/{label}"] = value
        return values

    def final(self, state: TrainState, chosen: str | None = None) -> dict[str, float]:
        """Returns the values of the evaluators at the end: those of the best parameters, which
        `chosen` names, or, without it, all others."""
        best = chosen is not None
        names = [n for n in self.at_end.names if (EVALUATORS[n].parameters == "best") == best]
        stored = self.observations
        return self.measure(state, self.at_end, names, chosen=chosen, observations=stored)

    def conclude(self, state: TrainState, chosen: str) -> None:
        """Notes the protocol of the final evaluation, and removes its stored features."""
        context = self.context(self.candidates(state)[chosen], self.at_end, self.observations)
        names, seconds = self.at_end.names, self._seconds
        self.protocol = protocol(context, names, average=chosen, seconds=seconds)
        self.observations.finished()


def losses_in(values: Mapping[str, float]) -> dict[str, float]:
    """Returns the validation loss of each average, by the average's name."""
    prefix = "validation_loss/"
    return {n.removeprefix(prefix): v for n, v in values.items() if n.startswith(prefix)}


def best_of(losses: Mapping[str, float], state: TrainState) -> str:
    """Returns the name of the parameters with the lowest validation loss, or of the middle average
    if there are no losses."""
    if losses:
        return min(losses, key=lambda name: losses[name])
    names = sorted(state.ema)
    return names[len(names) // 2] if names else RAW
