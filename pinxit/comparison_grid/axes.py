"""The axes of a comparison grid: a setting, and the values that it takes.

An axis is written ``NAME=VALUE,VALUE``: ``guidance_scale=1,2,4``, ``seed=0-3,7``,
``size=64,96x64``. Texts are separated by ``|`` (``prompt=a red house|a blue tent``), and so are
other values if the axis contains one. ``prompt_sr=red|blue|green`` is A1111's "Prompt S/R": each
value in turn replaces the first one in the prompt and in the negative prompt.
"""

from __future__ import annotations

import re
import typing
from collections import Counter
from dataclasses import dataclass
from typing import Any

from pinxit.config import UsageError, few, hints, options
from pinxit.picture_size import parse_size
from pinxit.sampling import ALIASES, HABITS, SEEDS, Sampling, check_seed

REPLACE = "prompt_sr"
"""The axis that searches for a text in the prompts and replaces it."""
TEXTS = ("prompt", REPLACE, "negative_prompt")
"""The axes whose values are texts, which may contain commas."""
MODELS = ("checkpoint", "ema")
"""The axes that choose a model."""
AXES = ("seed", "size", *TEXTS, *MODELS, *hints(Sampling))
"""The names of the settings that an axis may vary."""
MOST = 1000
"""The largest number of values of one axis."""
SEPARATED = "two or more values, separated by commas, or texts separated by |"


@dataclass(frozen=True)
class Axis:
    """A setting and its values, in the order in which they are shown."""

    name: str
    """The setting's name, one of `AXES`."""
    values: tuple[Any, ...]
    """Two or more different values. A size is (width, height), a guidance interval (low, high)."""

    def __post_init__(self) -> None:
        if self.name not in AXES:
            raise _unknown(self.name)
        if len(self.values) < 2:
            problem = f"a single value of {self.name}, which gives no comparison"
            value = self.texts[0] if self.values else ""
            raise UsageError("axis", value, problem=problem, valid=SEPARATED)
        if len(self.values) > MOST:
            problem = f"an axis of {len(self.values):,} values"
            raise UsageError("axis", self.name, problem=problem, valid=f"at most {MOST:,}")
        for value in self.values:
            _check(self.name, value)
        repeated = [text for text, count in Counter(self.texts).items() if count > 1]
        if repeated:
            raise UsageError("axis", self.name, problem=f"given {few(repeated)} more than once")

    @classmethod
    def parse(cls, text: str) -> Axis:
        """Returns the axis that a text such as ``steps=4,8,16`` describes.

        Raises `UsageError` for an unknown setting, for a single or repeated value, and for one that
        the setting does not take.
        """
        name, equals, listed = text.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        name = ALIASES.get(name, name)
        if not equals:
            raise UsageError("axis", text, problem="not NAME=VALUE,VALUE", valid="steps=4,8,16")
        if name not in AXES:
            raise _unknown(name)
        separator = "|" if name in TEXTS or "|" in listed else ","
        parts = [part.strip() for part in listed.split(separator)]
        if name == "seed":
            return cls(name, tuple(seed for part in parts for seed in _seeds(part)))
        return cls(name, tuple(_value(name, part) for part in parts))

    @property
    def texts(self) -> list[str]:
        """The values as the command line takes them."""
        return [spelled(value) for value in self.values]

    @property
    def written(self) -> str:
        """The axis as the command line takes it."""
        by_bar = self.name in TEXTS or any("," in text for text in self.texts)
        return f"{self.name}={('|' if by_bar else ',').join(self.texts)}"

    @property
    def title(self) -> str:
        """The axis's name as the sheet shows it."""
        return f'"{self.values[0]}" replaced by' if self.name == REPLACE else self.name

    @property
    def labels(self) -> list[str]:
        """The values as the sheet shows them."""
        if self.name == "checkpoint":
            return [text if text != "none" else "(shipped)" for text in self.texts]
        return [text or "(empty)" for text in self.texts]


def spelled(value: Any) -> str:
    """Returns a value of an axis as the command line takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, tuple):
        whole = all(isinstance(part, int) for part in value)
        return ("x" if whole else "-").join(spelled(part) for part in value)
    return str(value)


def width_and_height(text: str) -> tuple[int, int]:
    """Returns (width, height) of a size: one side, or WIDTHxHEIGHT, in pixels."""
    size = parse_size(text)
    return size if isinstance(size, tuple) else (size, size)


def _unknown(name: str) -> UsageError:
    """Returns the error for an axis that does not exist."""
    instead = HABITS.get(name) if name not in ("width", "height") else "size=WIDTHxHEIGHT"
    return UsageError("axis", name, valid=instead or [*AXES, *ALIASES])


def _check(name: str, value: Any) -> None:
    """Raises unless a setting takes the value."""
    if name == "seed":
        if not isinstance(value, int) or isinstance(value, bool):
            raise UsageError(name, value, problem="not an integer", valid=f"0 to {SEEDS - 1}")
        check_seed(name, value)
    elif name == "size":
        sides = value if isinstance(value, tuple) else ()
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            valid = "a width and a height above 0, in pixels"
            raise UsageError(name, spelled(value), problem="not a size", valid=valid)
    elif name in TEXTS:
        if not isinstance(value, str) or "|" in value:
            valid = "texts without |, which separates them"
            raise UsageError(name, value, problem="not a text for an axis", valid=valid)
        if name == "prompt" and not value:
            raise UsageError(name, value, problem="an empty text", valid=SEPARATED)
    elif name in MODELS:
        if value is not None and (not isinstance(value, str) or not value):
            raise UsageError(name, value, problem="not a name", valid=SEPARATED)
    else:
        Sampling().override(**{name: value})


def _value(name: str, text: str) -> Any:
    """Returns the value of a setting that a text describes."""
    if name in TEXTS:
        return text
    if name in MODELS:
        return None if name == "checkpoint" and text.lower() == "none" else text
    return width_and_height(text) if name == "size" else _sampling_value(name, text)


def _sampling_value(name: str, text: str) -> Any:
    """Converts a text to the type of a field of `Sampling`."""
    kind = next(kind for kind in options(hints(Sampling)[name]) if kind is not type(None))
    number = r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?"
    if kind is bool:
        flags = {"1": True, "true": True, "0": False, "false": False}
        if text.lower() in flags:
            return flags[text.lower()]
        raise UsageError(name, text, problem="not understood", valid=["0", "1"])
    if typing.get_origin(kind) is tuple:
        ends = re.fullmatch(rf"({number})\s*(?:-|\s)\s*({number})", text)
        if ends is None:
            valid = "LOW-HIGH, such as 0.2-0.8"
            raise UsageError(name, text, problem="not understood", valid=valid)
        return float(ends[1]), float(ends[2])
    if kind not in (int, float):
        return text
    value = _number(text)
    if value is None or (kind is int and not value.is_integer()):
        valid = "an integer" if kind is int else "a number"
        raise UsageError(name, text, problem="not understood", valid=valid)
    return kind(value)


def _number(text: str) -> float | None:
    """Returns the finite number in a text, or None if it holds another thing."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def _seeds(text: str) -> range:
    """Returns the seeds of one value: a seed, or a range FIRST-LAST with both ends."""
    match = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", text)
    if match is None:
        valid = f"0 to {SEEDS - 1}, or a range such as 0-7"
        raise UsageError("seed", text, problem="not understood", valid=valid)
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise UsageError("seed", text, problem="a range that ends before it begins")
    if last - first >= MOST:
        problem = f"a range of {last - first + 1:,} seeds"
        raise UsageError("seed", text, problem=problem, valid=f"at most {MOST:,}")
    return range(first, last + 1)
