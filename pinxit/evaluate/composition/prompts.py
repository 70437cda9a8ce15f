"""Generates the prompts of every task, all of them with a held-out combination.

A prompt names what its task needs, and what makes it held out. Captions of scenes always name an
object's colour, so every prompt does, even where the task's rule ignores it. A held-out pair of
colour and object is thereby named. For a held-out triple, the prompt names the time and the
backdrop too. Pairs and triples alternate until the pairs have run out.

The first prompts are the same for any number of them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pinxit.config import UsageError
from pinxit.data.scenes.attributes import (
    COLOURS,
    HELD_OUT_TRIPLES,
    KINDS,
    PLACES,
)
from pinxit.data.scenes.captions import short_caption
from pinxit.evaluate.composition.facts import NamedFacts, NamedThing
from pinxit.evaluate.composition.tasks import TASKS

SEED = 30_000
"""The seed of the prompts and of the real scenes that agree with them."""
FEWEST = 2
"""The smallest number of prompts of a task: the floor needs another prompt."""


@dataclass(frozen=True)
class Prompt:
    """A prompt of one task: its text, and the facts that it names."""

    task: str
    text: str
    facts: NamedFacts
    number: int
    """The prompt's number among those of its task."""


def task_prompts(task: str, count: int) -> tuple[Prompt, ...]:
    """Returns the first `count` prompts of a task, which all name different facts.

    Raises `UsageError` if the task does not have as many.
    """
    most = most_prompts()
    if count != 0 and not FEWEST <= count <= min(most.values()):
        each = ", ".join(f"{name} {number}" for name, number in most.items())
        raise UsageError(
            "composition_prompts",
            count,
            problem=f"not possible: the tasks have this many distinct prompts: {each}",
            valid=f"0, or {FEWEST} to {min(most.values())}",
        )
    seed = SEED + list(TASKS).index(task)
    return tuple(
        Prompt(task, _text(facts, seed, number), facts, number)
        for number, facts in enumerate(_ordered(task)[:count])
    )


@functools.cache
def most_prompts() -> dict[str, int]:
    """Returns the number of distinct prompts of each task: of different sets of named facts."""
    return {task: len(_ordered(task)) for task in TASKS}


def _text(facts: NamedFacts, seed: int, number: int) -> str:
    things = [(thing.colour, thing.kind, thing.place) for thing in facts.things]
    return short_caption(things, facts.landscape, seed=seed, index=number)


@functools.cache
def _ordered(task: str) -> tuple[NamedFacts, ...]:
    """Returns all facts of a task in a random order in which pairs and triples alternate."""
    rng = np.random.default_rng([SEED, list(TASKS).index(task)])
    shuffled = []
    for facts in (list(_with_pairs(task)), list(_with_triples(task))):
        shuffled.append([facts[i] for i in rng.permutation(len(facts))])
    alternating = [one for both in itertools.zip_longest(*shuffled) for one in both if one]
    return tuple(_mixed(facts, rng) for facts in alternating)


def _mixed(facts: NamedFacts, rng: np.random.Generator) -> NamedFacts:
    """Returns the same facts with the objects in a random order."""
    things = tuple(facts.things[i] for i in rng.permutation(len(facts.things)))
    return NamedFacts(things, facts.landscape)


def _with_pairs(task: str) -> Iterator[NamedFacts]:
    """Yields the facts without a landscape that contain a held-out pair of colour and object."""
    facts = (NamedFacts(things) for things in _things(task))
    return (each for each in facts if each.held_out)


def _with_triples(task: str) -> Iterator[NamedFacts]:
    """Yields the facts with a landscape that contain a held-out triple."""
    for time, backdrop, kind in sorted(HELD_OUT_TRIPLES):
        for things in _things(task):
            if any(thing.kind == kind for thing in things):
                yield NamedFacts(things, (time, backdrop))


def _things(task: str) -> Iterator[tuple[NamedThing, ...]]:
    """Yields the objects of all possible prompts of a task, each set of objects in one order."""
    if task in ("single_object", "colors"):
        yield from ((NamedThing(kind, colour),) for kind in KINDS for colour in COLOURS)
        return
    two_places = list(itertools.permutations(PLACES, 2)) if task == "position" else [(None, None)]
    for kinds in itertools.combinations(KINDS, 2):
        for two in itertools.product(COLOURS, repeat=2):
            # GenEval's two colours of color_attr differ: otherwise nothing needs to be bound.
            if task == "color_attr" and two[0] == two[1]:
                continue
            for places in two_places:
                yield tuple(
                    NamedThing(kind, colour, place)
                    for kind, colour, place in zip(kinds, two, places, strict=True)
                )
