"""Draws pictures step by step: one program moves several pictures on, each at its own step.

`drawing.solve` runs all steps of a call in one program. Here a program runs one evaluation of the
velocity for a batch whose rows have their own time, guidance, texts, seed and source image. So
requests for other steps, prompts and guidance scales share it, a picture joins or leaves between
two evaluations, and each evaluation also predicts the finished latents ``x_t - t * velocity``.

The program is compiled for a `StepForm`. A row has the bytes that `solve` gives for a batch of the
same number of rows.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pinxit.arrays import Conditioning, pytree
from pinxit.drawing import KnownRegion, SourceLatents, noise_of, starting_latents, velocity_of
from pinxit.fixed_batches import padded
from pinxit.flow.guidance import Guidance, GuidanceForm
from pinxit.flow.solvers import SteppedSolver, get_solver
from pinxit.models.transformer import TransformerConfig


@dataclass(frozen=True)
class StepForm:
    """The properties of pictures that can share a batch."""

    config: TransformerConfig
    """The network's config."""
    shape: tuple[int, int, int]
    """The shape (h, w, c) of the latents."""
    solver: str
    """The name of a solver that has a step form."""
    guidance: GuidanceForm
    """The parts of the guidance that are in use."""
    masked: bool
    """Whether a mask keeps a region of a source image."""
    rows: int
    """The number of rows of the batch."""


@pytree
@dataclass(frozen=True)
class StepRows:
    """The arrays of the pictures of a batch, one row for each."""

    state: tuple[Array, ...]
    """The solver's state, the first of which are the latents."""
    numbers: Float[Array, "b 4"]
    """The numbers of each picture's guidance."""
    conditioning: Conditioning
    """The encoded prompts."""
    null: Conditioning
    """The encoded negative prompts."""
    region: KnownRegion | None
    """The regions that masks keep, or None in a form without masks."""


@dataclass(frozen=True)
class StepPicture:
    """A picture that is ready for its first evaluation."""

    rows: StepRows
    """Its arrays, with a single row."""
    columns: tuple[np.ndarray, ...]
    """The numbers of the solver for each evaluation (see `SteppedSolver.columns`)."""
    steps: int
    """The number of the solver's steps."""
    stages: int
    """The number of evaluations in a step."""

    @property
    def evaluations(self) -> int:
        """The number of evaluations in all."""
        return len(self.columns[0])

    def steps_after(self, evaluations: int) -> int:
        """Returns how many steps are complete after a number of evaluations."""
        return self.steps if evaluations == self.evaluations else evaluations // self.stages


def has_steps(solver: str) -> bool:
    """Returns whether a solver can draw step by step."""
    return isinstance(get_solver(solver), SteppedSolver)


def start_picture(
    form: StepForm,
    *,
    seed: int,
    times: Float[np.ndarray, " s"],
    guidance: Guidance,
    conditioning: Conditioning,
    null: Conditioning,
    source: SourceLatents | None,
) -> StepPicture:
    """Returns a picture before its first evaluation.

    `conditioning` and `null` have one row. `times` are those that the solver visits.
    """
    seeds = np.full(form.rows, seed, np.uint32)  # the program that draws a batch of noise
    noise = noise_of(seeds, shape=form.shape)
    start, region = starting_latents(times[:1], source, noise)
    rows = StepRows(
        state=_start(start[:1], solver=form.solver),
        numbers=jnp.asarray(guidance.numbers())[None],
        conditioning=jax.tree.map(jnp.asarray, conditioning),
        null=jax.tree.map(jnp.asarray, null),
        region=jax.tree.map(lambda leaf: leaf[:1], region),
    )
    solver = _stepped(form.solver)
    columns = tuple(np.asarray(column) for column in _columns(times, solver=form.solver))
    return StepPicture(rows, columns, len(times) - 1, solver.stages)


class StepBatch:
    """Pictures of one form that are drawn together; each row is at its own step."""

    def __init__(self, form: StepForm, params: Any) -> None:
        self.form = form
        self._params = params
        self._rows: StepRows | None = None
        self._pictures: dict[int, StepPicture] = {}
        self._done: dict[int, int] = {}

    @property
    def pictures(self) -> Mapping[int, StepPicture]:
        """The pictures by row."""
        return self._pictures

    @property
    def free(self) -> int:
        """The number of empty rows."""
        return self.form.rows - len(self._pictures)

    def add(self, picture: StepPicture) -> int:
        """Puts a picture into an empty row, and returns the number of the row."""
        row = next(i for i in range(self.form.rows) if i not in self._pictures)
        if self.form.rows == 1:
            self._rows = picture.rows
        elif self._rows is None:
            self._rows = _repeated(picture.rows, rows=self.form.rows)
        else:
            self._rows = _placed(self._rows, picture.rows, row)
        self._pictures[row], self._done[row] = picture, 0
        return row

    def remove(self, row: int) -> None:
        """Empties a row."""
        del self._pictures[row], self._done[row]

    def evaluations(self, row: int) -> int:
        """Returns the number of evaluations that a picture has had."""
        return self._done[row]

    def is_finished(self, row: int) -> bool:
        """Returns whether a picture has had all of its evaluations."""
        return self._done[row] == self._pictures[row].evaluations

    def advance(self) -> Float[Array, "b h w c"]:
        """Makes the next evaluation of every picture, and returns the predicted latents.

        No picture may be finished. Empty rows are at the time of a picture, so that guidance that
        is limited to an interval has no more cases than the pictures need.
        """
        assert self._rows is not None and self._pictures
        first = next(iter(self._pictures))
        places = [row if row in self._pictures else first for row in range(self.form.rows)]
        columns = zip(*(self._row(row) for row in places), strict=True)
        row = tuple(np.stack(column) for column in columns)
        state, predicted = _advance(
            self._params,
            self._rows,
            row,
            config=self.form.config,
            solver=self.form.solver,
            guidance=self.form.guidance,
        )
        self._rows = replace(self._rows, state=state)
        for number in self._done:
            self._done[number] += 1
        return predicted

    def latents(self, row: int) -> Float[Array, "1 h w c"]:
        """Returns the latents of a picture, with a leading axis."""
        assert self._rows is not None
        return self._rows.state[0][row : row + 1]

    def _row(self, row: int) -> list[Any]:
        """Returns the numbers of the next evaluation of a picture."""
        return [column[self._done[row]] for column in self._pictures[row].columns]


def _stepped(name: str) -> SteppedSolver:
    solver = get_solver(name)
    assert isinstance(solver, SteppedSolver)
    return solver


@functools.partial(jax.jit, static_argnames=("solver",))
def _columns(times: Array, *, solver: str) -> tuple[Array, ...]:
    return _stepped(solver).columns(times)


@functools.partial(jax.jit, static_argnames=("solver",))
def _start(x: Array, *, solver: str) -> tuple[Array, ...]:
    return _stepped(solver).start(x)


@functools.partial(jax.jit, static_argnames=("rows",))
def _repeated(one: StepRows, *, rows: int) -> StepRows:
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, rows, axis=0), one)


@jax.jit
def _placed(batch: StepRows, one: StepRows, row: Array) -> StepRows:
    return jax.tree.map(lambda many, leaf: many.at[row].set(leaf[0]), batch, one)


@functools.partial(jax.jit, static_argnames=("config", "solver", "guidance"))
def _advance(
    params: Any,
    rows: StepRows,
    row: tuple[Array, ...],
    *,
    config: TransformerConfig,
    solver: str,
    guidance: GuidanceForm,
) -> tuple[tuple[Array, ...], Array]:
    """Returns the solver's state after one evaluation, and the latents that it predicts."""
    velocity_fn = velocity_of(config, guidance, params, rows.numbers, rows.null, rows.region)
    predicted = []

    def watched(x_t: Array, t: Array, conditioning: Conditioning) -> Array:
        velocity = velocity_fn(x_t, t, conditioning)
        predicted.append(x_t - t[:, None, None, None] * velocity)
        return velocity

    state = _stepped(solver).advance(watched, rows.state, row, rows.conditioning)
    return state, predicted[0]


def repeated_rows(latents: Float[Array, "1 h w c"], rows: int) -> Float[Array, "b h w c"]:
    """Returns copies of one picture's latents for a program that decodes several pictures."""
    return jnp.asarray(padded(np.asarray(latents), rows))
