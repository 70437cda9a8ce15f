"""Observation of a run: sample grids and the values of the evaluators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
from PIL import Image

from pinxit.arrays import Example
from pinxit.contact_sheet import contact_sheet
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.encoded_rows import EncodedRows
from pinxit.evaluate.evaluators import EVALUATORS, Evaluator, evaluators, measure
from pinxit.evaluate.observations import Observations
from pinxit.files import whole
from pinxit.pipeline import TextToImage
from pinxit.train.attended_work import end_if_asked
from pinxit.train.build import Parts, build_pipeline
from pinxit.train.display import Display
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState

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
        sheet = contact_sheet(self.config.samples.prompts, columns, title=title)
        with whole(path) as temporary:
            sheet.save(temporary, "PNG")

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

    def context(self, params: Any) -> EvaluationContext:
        """Returns the evaluators' context with these parameters."""
        settings = self.config.evaluation
        return EvaluationContext(
            model=self.model(params),
            rows=self.heldout if settings.images else (),
            objective=self.config.objective,
            batch_size=settings.batch_size,
            prompts=settings.prompts,
            judge=self.parts.judge,
            check=self.check,
            observations=Observations(check=self.check),
            encoded=self.encoded,
        )

    def measure(
        self, state: TrainState, names: Sequence[str], *, chosen: str | None = None
    ) -> dict[str, float]:
        """Returns the values of the named evaluators, and displays each when it is ready.

        Evaluators of the best parameters use those that `chosen` names. Without `chosen` they use
        the ones with the lowest of the losses just measured.
        """
        values: dict[str, float] = {}
        for evaluator in evaluators(names).values() if names else ():
            if evaluator.parameters == "each":
                new = self._of_each(evaluator, state)
            else:
                best = RAW if evaluator.parameters == "raw" else chosen
                best = best or best_of(losses_in(values), state)
                self.check()
                new = measure(evaluator, self.context(self.candidates(state)[best]))
            if new:
                self.display.say(evaluator.words(new))
            values |= new
        return values

    def _of_each(self, evaluator: Evaluator, state: TrainState) -> dict[str, float]:
        """Returns the first value for each set of parameters: ``group/name`` becomes
        ``group_name/average``."""
        values: dict[str, float] = {}
        for label, params in self.candidates(state).items():
            self.check()
            for name, value in list(measure(evaluator, self.context(params)).items())[:1]:
                values[f"{name.replace('/', '_')}/{label}"] = value
        return values


def names_of(*, mid_run: bool | None = None, best: bool | None = None) -> list[str]:
    """Returns the names of evaluators, filtered by `mid_run` (measured during the run) and `best`
    (measured with the best parameters). None does not filter."""
    return [
        name
        for name, evaluator in EVALUATORS.items()
        if (mid_run is None or evaluator.mid_run == mid_run)
        and (best is None or (evaluator.parameters == "best") == best)
    ]


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
