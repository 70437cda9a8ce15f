"""The threads that draw: each moves the pictures of its batches on, step by step.

On a CPU, each of several threads draws one picture at a time. On an accelerator, one thread serves
a few batches in turn, one for each form of pictures, and a picture joins a batch as soon as a row
is empty.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
from PIL import Image

from pinxit.serve.engine.events import Preview
from pinxit.serve.engine.prepared_job import PreparedJob
from pinxit.stepwise import StepBatch


@runtime_checkable
class Desk(Protocol):
    """Hands out pictures to draw, and takes them back."""

    def next_picture(
        self, fits: Callable[[PreparedJob], bool], *, wait: bool
    ) -> tuple[PreparedJob, int] | None:
        """Returns a picture whose job fits. Waits for one, or returns None at once or at the
        end."""
        ...

    def finished(
        self, prepared: PreparedJob, number: int, image: Image.Image, seconds: float
    ) -> None:
        """Takes a finished picture."""
        ...

    def abandoned(self, prepared: PreparedJob, error: BaseException | None) -> None:
        """Takes notice that a picture is not finished, because its job was cancelled or for an
        error."""
        ...


@dataclass
class _Drawn:
    """A picture that a batch is drawing."""

    prepared: PreparedJob
    number: int
    previews: frozenset[int]
    started_at: float
    steps: int = 0


class _Batch:
    """A batch, and the picture in each of its rows."""

    def __init__(self, prepared: PreparedJob) -> None:
        self.key = prepared.key
        self.steps = StepBatch(prepared.form, prepared.model.params)
        self.rows: dict[int, _Drawn] = {}

    def remove(self, row: int) -> None:
        """Empties a row."""
        self.steps.remove(row)
        del self.rows[row]


class Lane(threading.Thread):
    """A thread that draws pictures until the engine is closed."""

    def __init__(self, desk: Desk, *, most_batches: int, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._desk = desk
        self._most = most_batches
        self._batches: list[_Batch] = []

    def run(self) -> None:
        """Draws until there are no more pictures."""
        while True:
            picture = self._next()
            while picture is not None:
                self._begin(*picture)
                picture = self._next()
            if not self._batches:
                return
            batch = self._batches.pop(0)
            self._advance(batch)
            if batch.rows:
                self._batches.append(batch)

    def _next(self) -> tuple[PreparedJob, int] | None:
        return self._desk.next_picture(self._fits, wait=not self._batches)

    def _fits(self, prepared: PreparedJob) -> bool:
        """Returns whether a picture can join now."""
        batch = self._batch_of(prepared)
        return len(self._batches) < self._most if batch is None else batch.steps.free > 0

    def _batch_of(self, prepared: PreparedJob) -> _Batch | None:
        return next((each for each in self._batches if each.key == prepared.key), None)

    def _begin(self, prepared: PreparedJob, number: int) -> None:
        """Puts a picture into a batch."""
        drawn = _Drawn(prepared, number, prepared.preview_steps(), time.monotonic())
        self._guard([drawn], lambda: self._start(drawn))

    def _start(self, drawn: _Drawn) -> None:
        prepared = drawn.prepared
        prepared.job.report_step(drawn.number, 0, prepared.order.steps)
        if not prepared.by_steps:
            latents = prepared.draw_whole(drawn.number)
            steps = prepared.order.steps
            prepared.job.report_step(drawn.number, steps, steps)
            self._finish(drawn, latents)
            return
        picture = prepared.start(drawn.number)
        batch = self._batch_of(prepared)
        if batch is None:
            batch = _Batch(prepared)
        batch.rows[batch.steps.add(picture)] = drawn
        if batch not in self._batches:
            self._batches.append(batch)

    def _advance(self, batch: _Batch) -> None:
        """Makes one evaluation of all pictures of a batch, without those that were cancelled."""
        for row, drawn in list(batch.rows.items()):
            if drawn.prepared.job.cancelling:
                batch.remove(row)
                self._desk.abandoned(drawn.prepared, None)
        if not batch.rows:
            return
        predicted: list[Any] = []
        if not self._guard(
            [*batch.rows.values()],
            lambda: predicted.append(jax.block_until_ready(batch.steps.advance())),
        ):
            batch.rows.clear()
        for row, drawn in list(batch.rows.items()):
            if not self._guard(
                [drawn], lambda row=row, drawn=drawn: self._report(batch, row, drawn, predicted[0])
            ):
                batch.remove(row)
            elif batch.steps.is_finished(row):
                latents = batch.steps.latents(row)
                batch.remove(row)
                self._guard([drawn], lambda drawn=drawn, x=latents: self._finish(drawn, x))

    def _report(self, batch: _Batch, row: int, drawn: _Drawn, predicted: Any) -> None:
        """Reports the steps of a picture, and a preview if one is due."""
        picture, job = batch.steps.pictures[row], drawn.prepared.job
        done = picture.steps_after(batch.steps.evaluations(row))
        if done == drawn.steps:
            return
        drawn.steps = done
        if done in drawn.previews:
            image = drawn.prepared.image(predicted[row : row + 1], final=False)
            job.report_preview(Preview(drawn.number, done, picture.steps, image))
        job.report_step(drawn.number, done, picture.steps)

    def _finish(self, drawn: _Drawn, latents: Any) -> None:
        image = drawn.prepared.image(latents, final=True)
        seconds = time.monotonic() - drawn.started_at
        self._desk.finished(drawn.prepared, drawn.number, image, seconds)

    def _guard(self, pictures: list[_Drawn], act: Callable[[], object]) -> bool:
        """Runs a part of drawing, and returns whether it succeeded.

        An error in it ends the jobs of its pictures and nothing else.
        """
        try:
            act()
        except (Exception, SystemExit) as error:
            for drawn in pictures:
                self._desk.abandoned(drawn.prepared, error)
            return False
        return True
