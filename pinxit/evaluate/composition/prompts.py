"""Generates the prompts of every task, all of them with a held-out combination.

A prompt names what its task needs, and what makes it held out: a pair of colour and object, or the
time and the backdrop that make a triple with the object. Pairs and triples alternate until the
pairs have run out. The weather, the sun and the moon are left free, and with a pair the time and
the backdrop too.

The usual wording names the size and the place of every object, as nearly all captions do, and the
rules of most tasks ignore them. The short wording leaves them free unless the task needs them.
Training shows such captions so seldom that pictures of them fail for that reason, with held-out
combinations and with others (docs/composition.md has the figures).

The first prompts are the same for any number of them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pinxit.config import UsageError
from pinxit.data.scenes.attributes import BACKDROPS, COLOURS, HELD_OUT_TRIPLES, KINDS, PLACES, TIMES
from pinxit.data.scenes.captions import short_caption
from pinxit.evaluate.composition.facts import NamedFacts, NamedThing
from pinxit.evaluate.composition.tasks import TASKS

Wording = Literal["usual", "short"]
"""Whether prompts name the size and the place of objects even where the task does not need them."""
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


def task_prompts(
    task: str, count: int, *, wording: Wording = "usual", held_out: bool = True
) -> tuple[Prompt, ...]:
    """Returns the first `count` prompts of a task, no two of which ask for the same.

    With `held_out` False they name no held-out combination, for comparison. Raises `UsageError` if
    a task does not have as many prompts.
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
    prompts = []
    for number, facts in enumerate(_ordered(task, held_out)[:count]):
        named = _with_sizes_and_places(facts, seed, number) if wording == "usual" else facts
        things = [(thing.size, thing.colour, thing.kind, thing.place) for thing in named.things]
        text = short_caption(things, named.landscape, seed=seed, index=number)
        prompts.append(Prompt(task, text, named, number))
    return tuple(prompts)


@functools.cache
def most_prompts() -> dict[str, int]:
    """Returns the number of distinct prompts of each task.

    Two prompts are distinct if they name other kinds, colours, times or backdrops, or, for the task
    position, other places.
    """
    return {task: len(_ordered(task, True)) for task in TASKS}


def _with_sizes_and_places(facts: NamedFacts, seed: int, number: int) -> NamedFacts:
    """Returns the facts and the sizes and places of a scene that agrees with them."""
    scene = facts.scene(seed=seed, index=number)
    things = tuple(
        replace(thing, place=shown.place, size=shown.size)
        for thing, shown in zip(facts.things, scene.things, strict=True)
    )
    return replace(facts, things=things)


@functools.cache
def _ordered(task: str, held_out: bool) -> tuple[NamedFacts, ...]:
    """Returns all facts of a task in a random order in which pairs and triples alternate."""
    rng = np.random.default_rng([SEED, list(TASKS).index(task)])
    shuffled = []
    for facts in (list(_with_pairs(task, held_out)), list(_with_triples(task, held_out))):
        shuffled.append([facts[i] for i in rng.permutation(len(facts))])
    alternating = [one for both in itertools.zip_longest(*shuffled) for one in both if one]
    return tuple(_mixed(facts, rng) for facts in alternating)


def _mixed(facts: NamedFacts, rng: np.random.Generator) -> NamedFacts:
    """Returns the same facts with the objects in a random order."""
    things = tuple(facts.things[i] for i in rng.permutation(len(facts.things)))
    return NamedFacts(things, facts.landscape)


def _with_pairs(task: str, held_out: bool) -> Iterator[NamedFacts]:
    """Yields the facts without a landscape that contain a held-out pair, or none of them."""
    facts = (NamedFacts(things) for things in _things(task))
    return (each for each in facts if each.held_out == held_out)


def _with_triples(task: str, held_out: bool) -> Iterator[NamedFacts]:
    """Yields the facts with a landscape that contain a held-out triple, or nothing held out."""
    things = list(_things(task))
    for landscape in itertools.product(TIMES, BACKDROPS):
        absent = {kind for *where, kind in HELD_OUT_TRIPLES if (*where,) == landscape}
        for each in things if absent or not held_out else ():
            has_triple = any(thing.kind in absent for thing in each)
            if has_triple if held_out else not (has_triple or NamedFacts(each).held_out):
                yield NamedFacts(each, landscape)


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
