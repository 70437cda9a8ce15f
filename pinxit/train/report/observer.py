"""Looking at a run: sample grids, the validation loss, the effect of captions, prompt accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
from PIL import Image

from pinxit.arrays import Example
from pinxit.evaluate.caption_effect import FEWEST, conditioning_effect
from pinxit.evaluate.prompt_accuracy import prompt_accuracy
from pinxit.evaluate.validation_loss import validation_loss
from pinxit.files import whole
from pinxit.pipeline import TextToImage
from pinxit.train.build import Parts, build_pipeline
from pinxit.train.display import Display
from pinxit.train.report.contact_sheet import contact_sheet
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState

PROBED = 128
"""Rows on which the effect of captions is measured."""
RAW = "raw"
"""The name of the parameters themselves, among their averages."""


@dataclass
class Observer:
    """Draws and measures with the parameters of a run."""

    config: TrainConfig
    parts: Parts
    folder: RunFolder
    display: Display
    held_out: Callable[[], Sequence[Example]]
    """Gives the rows for the validation loss."""
    check: Callable[[], None] = lambda: None
    """Called between pictures; raises to stop."""

    @cached_property
    def _pipeline(self) -> TextToImage:
        return build_pipeline(self.config, self.parts, None)

    @cached_property
    def heldout(self) -> Sequence[Example]:
        """Held-out rows, drawn once."""
        return self.held_out()

    def candidates(self, state: TrainState) -> dict[str, Any]:
        """The parameters and their averages, by name."""
        return {RAW: state.params, **state.ema}

    def model(self, params: Any) -> TextToImage:
        """The pipeline with these parameters, on one device."""
        local = jax.tree.map(lambda leaf: jax.device_put(leaf, jax.local_devices()[0]), params)
        return self._pipeline.with_params(local)

    def pictures(self, params: Any) -> list[list[Image.Image]]:
        """A row for each prompt, a picture for each seed."""
        prompts, seeds = self.config.sampling.prompts, self.config.sampling.seeds
        drawn = self.model(params).generate(
            [prompt for prompt in prompts for _ in seeds],
            seed=list(seeds) * len(prompts),
            batch_size=len(prompts) * len(seeds),
        )
        return [drawn[i : i + len(seeds)] for i in range(0, len(drawn), len(seeds))]

    def sheet(self, state: TrainState, path: Path, names: Sequence[str]) -> None:
        """Draws the fixed prompts with each of the named parameters, and writes the sheet."""
        columns = {}
        for name in names:
            self.check()
            columns[name] = self.pictures(self.candidates(state)[name])
        chosen = self.config.sampling
        title = (
            f"{self.config.name}, step {int(state.step)}: {chosen.solver}, {chosen.steps} steps, "
            f"guidance {chosen.guidance_scale:g}"
        )
        sheet = contact_sheet(chosen.prompts, columns, title=title)
        with whole(path) as temporary:
            sheet.save(temporary, "PNG")

    def sample(self, step: int, state: TrainState) -> None:
        """The sample grid of a step: the parameters, and the middle one of their averages."""
        names = [RAW, *sorted(state.ema)[len(state.ema) // 2 :][:1]]
        path = self.folder.samples / f"step_{step:08d}.png"
        self.sheet(state, path, names)
        self.display.say(f"samples: {path}")

    def validate(self, state: TrainState) -> dict[str, float]:
        """Held-out loss of the parameters and of each average."""
        if not self.config.evaluation.images or not self.heldout:
            return {}
        losses = {}
        for name, params in self.candidates(state).items():
            self.check()
            batch_size = self.config.evaluation.batch_size
            values = dict(validation_loss(self.model(params), self.heldout, batch_size=batch_size))
            losses[name] = values["validation/loss"]
        said = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        self.display.say(f"validation loss: {said}")
        return losses

    def probe(self, state: TrainState) -> dict[str, float]:
        """What the captions do to the held-out loss, and what the data are like."""
        rows, batch_size = self.config.evaluation.images, self.config.evaluation.batch_size
        if not rows or len(self.heldout) < FEWEST:
            return {}
        self.check()
        effect = conditioning_effect(
            self.model(state.params), self.heldout, batch_size=batch_size, rows=min(rows, PROBED)
        )
        values = dict(effect)
        gain, error = values["conditioning/gain"], values["conditioning/gain_error"]
        self.display.say(f"captions lower the loss by {gain:.2%} (give or take {error:.2%})")
        return values

    def accuracy(self, params: Any) -> dict[str, float]:
        """Held-out prompt accuracy by attribute (scenes only)."""
        count = self.config.evaluation.prompts
        if self.parts.judge is None or not count:
            return {}
        self.display.say(f"drawing {count} held-out prompts")
        return dict(
            prompt_accuracy(
                self.model(params),
                prompts=count,
                batch_size=self.config.evaluation.batch_size,
                judge=self.parts.judge,
                progress=lambda done, total: self.check(),
            )
        )
