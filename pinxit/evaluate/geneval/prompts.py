"""GenEval's 553 prompts, generated as its authors generated them (Ghosh et al. 2023, 2310.11513).

Every prompt is a template that is filled by draws of one random generator with the seed 43: 80
single objects, then 100 prompts for each of five more tasks, from which repeated ones are removed.
The result equals the published ``prompts/evaluation_metadata.jsonl`` of
https://github.com/djghosh13/geneval (MIT licence) to the last byte, which `geneval_prompts` checks
before it returns anything.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pinxit.config import UsageError
from pinxit.evaluate.geneval.classes import CLASSES, COLOURS, RELATIONS

TASKS: tuple[str, ...] = (
    *("single_object", "two_object", "counting"),
    *("colors", "position", "color_attr"),
)
"""The tasks by the names of the published file, in its order."""
PUBLISHED_SHA256 = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
"""The SHA-256 of the published file."""

_SEED = 43
_DRAWS = 100
_NUMERALS = {2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True)
class Requirement:
    """A number of objects of one class that a picture must show, or must not reach."""

    name: str
    """The class, one of `CLASSES`."""
    count: int = 1
    """The number of objects."""
    colour: str | None = None
    """The colour that these objects must have, or None for any."""
    relation: str | None = None
    """The position relative to the objects of the first requirement, one of `RELATIONS`."""

    def published(self) -> dict[str, Any]:
        """Returns the requirement as the published file writes it."""
        entry: dict[str, Any] = {"class": self.name, "count": self.count}
        if self.colour is not None:
            entry["color"] = self.colour
        if self.relation is not None:
            entry["position"] = [self.relation, 0]
        return entry


@dataclass(frozen=True)
class GenEvalPrompt:
    """A prompt and what a picture of it must show."""

    task: str
    """The task, one of `TASKS`."""
    text: str
    """The prompt itself."""
    include: tuple[Requirement, ...]
    """The requirements that must all be met."""
    exclude: tuple[Requirement, ...] = ()
    """The numbers of objects of which none may be reached."""

    def published(self) -> dict[str, Any]:
        """Returns the prompt as a line of the published file holds it."""
        entry: dict[str, Any] = {
            "tag": self.task,
            "include": [requirement.published() for requirement in self.include],
        }
        if self.exclude:
            entry["exclude"] = [requirement.published() for requirement in self.exclude]
        return entry | {"prompt": self.text}


@functools.cache
def geneval_prompts() -> tuple[GenEvalPrompt, ...]:
    """Returns the 553 prompts, task by task.

    Raises `UsageError` if they are not the published ones, since NumPy does not promise that a
    seed draws the same numbers in all of its versions.
    """
    prompts = tuple(dict.fromkeys(_draw(np.random.default_rng(_SEED))))
    if published_sha256(prompts) != PUBLISHED_SHA256:
        raise UsageError(
            f"NumPy {np.__version__} draws other random numbers from the seed {_SEED} than the "
            "versions that GenEval's prompts are known from, so they cannot be generated; "
            "NumPy 2.4 generates them"
        )
    return prompts


def published_sha256(prompts: Iterable[GenEvalPrompt]) -> str:
    """Returns the SHA-256 of the prompts written as the published file writes them."""
    lines = "".join(json.dumps(prompt.published()) + "\n" for prompt in prompts)
    return hashlib.sha256(lines.encode()).hexdigest()


def balanced(limit: int | None) -> tuple[GenEvalPrompt, ...]:
    """Returns `limit` prompts in the published order, of every task as many as of the others.

    None means all of them. A task that has no prompts left gives its share to the others. Raises
    `UsageError` if the limit is less than one prompt for each task.
    """
    prompts = geneval_prompts()
    if limit is None or limit >= len(prompts):
        return prompts
    if limit < len(TASKS):
        valid = f"at least {len(TASKS)}, one for each task; none means all {len(prompts)}"
        raise UsageError("geneval_prompts", limit, problem="too small", valid=valid)
    turns: list[tuple[int, int]] = []
    seen = dict.fromkeys(TASKS, 0)
    for number, prompt in enumerate(prompts):
        turns.append((seen[prompt.task], number))
        seen[prompt.task] += 1
    return tuple(prompts[number] for number in sorted(n for _, n in sorted(turns)[:limit]))


def _draw(rng: np.random.Generator) -> Iterator[GenEvalPrompt]:
    """Yields all prompts, repeated ones included, in the order of the random draws."""
    for number in rng.choice(len(CLASSES), size=len(CLASSES), replace=False):
        yield _prompt("single_object", _a(CLASSES[number]), Requirement(CLASSES[number]))
    draws: tuple[Callable[[np.random.Generator], GenEvalPrompt], ...] = (
        *(_two_objects, _counting),
        *(_one_colour, _position, _two_colours),
    )
    for draw in draws:
        for _ in range(_DRAWS):
            yield draw(rng)


def _two_objects(rng: np.random.Generator) -> GenEvalPrompt:
    first, second = _two(rng, CLASSES)
    text = f"{_a(first)} and {_a(second)}"
    return _prompt("two_object", text, Requirement(first), Requirement(second))


def _counting(rng: np.random.Generator) -> GenEvalPrompt:
    name = CLASSES[rng.choice(len(CLASSES))]
    count = int(rng.integers(2, 4, endpoint=True))
    plural = name + ("es" if name.endswith("s") else "s")
    return GenEvalPrompt(
        "counting",
        f"a photo of {_NUMERALS[count]} {plural}",
        (Requirement(name, count),),
        (Requirement(name, count + 1),),
    )


def _one_colour(rng: np.random.Generator) -> GenEvalPrompt:
    name = _THINGS[rng.choice(len(_THINGS))]
    colour = COLOURS[rng.choice(len(COLOURS))]
    return _prompt("colors", f"{_a(colour)} {name}", Requirement(name, colour=colour))


def _position(rng: np.random.Generator) -> GenEvalPrompt:
    placed, target = _two(rng, CLASSES)
    relation = RELATIONS[rng.choice(len(RELATIONS))]
    text = f"{_a(placed)} {relation} {_a(target)}"
    return _prompt("position", text, Requirement(target), Requirement(placed, relation=relation))


def _two_colours(rng: np.random.Generator) -> GenEvalPrompt:
    names, colours = _two(rng, _THINGS), _two(rng, COLOURS)
    pairs = list(zip(names, colours, strict=True))
    text = " and ".join(f"{_a(colour)} {name}" for name, colour in pairs)
    wanted_objects = (Requirement(name, colour=colour) for name, colour in pairs)
    return _prompt("color_attr", text, *wanted_objects)


_THINGS = tuple(name for name in CLASSES if name != "person")
"""The classes that prompts give a colour."""


def _two(rng: np.random.Generator, names: tuple[str, ...]) -> tuple[str, str]:
    """Returns two different names."""
    first, second = rng.choice(len(names), size=2, replace=False)
    return names[first], names[second]


def _a(name: str) -> str:
    """Returns the name after its article."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _prompt(task: str, text: str, *include: Requirement) -> GenEvalPrompt:
    return GenEvalPrompt(task, f"a photo of {text}", include)
