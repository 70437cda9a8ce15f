"""The settings of a plan: a recipe, and values that a form gives for some settings by name.

A plan is computed from the shapes of a run, so settings that name files, folders, runs or addresses
have no place here. Encoders are chosen by their names in the catalogues.
"""

from __future__ import annotations

import math
import shlex
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

from pinxit.config import UsageError, choice, leaves, misfit, options, positive, replace, written
from pinxit.encoders.autoencoder import AUTOENCODERS, HOMES
from pinxit.encoders.text_encoder_catalogue import TEXT_ENCODERS
from pinxit.models.transformer import PRESETS
from pinxit.plan.targets import HERE, get_target
from pinxit.recipes import RECIPES
from pinxit.train.model_settings import POLICIES
from pinxit.train.settings import TrainConfig

NAMES = (
    *("batch_size", "max_steps", "image_size", "gradient_accumulation_steps", "use_amp", "mesh"),
    *("text_encoder", "text_max_tokens", "cache_text", "vae", "encoder_dtype", "encode_in_step"),
    "encoder_chunk",
)
"""The settings of a run that a plan may change, besides those of the network and the optimiser."""
GROUPS = ("model.", "optimizer.", "ema.")
"""The groups whose settings a plan may change."""
LARGEST = {"batch_size": 2**20, "image_size": 2**14, "model.depth": 512, "model.hidden_size": 2**15}
"""The largest values, so that a mistyped number does not occupy the machine."""
MOST = 2**53
"""The largest absolute value of any number."""
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class PlanRequest:
    """A run and a machine to plan it for."""

    recipe: str
    target: str
    settings: tuple[tuple[str, Any], ...] = ()
    """Names and values that differ from the recipe, sorted by name."""
    policies: tuple[str, ...] = ()
    """The rematerialisation policies whose largest batch is searched."""
    price: float | None = None

    def config(self) -> TrainConfig:
        """Returns the settings of the run."""
        return replace(RECIPES[self.recipe](), dict(self.settings))

    def plan_command(self) -> str:
        """Returns the command that prints the same plan."""
        words = ["pinxit", "plan", "--recipe", self.recipe, "--target", self.target]
        words += ["--policies", *self.policies]
        words += [] if self.price is None else ["--price", f"{self.price:g}"]
        return " ".join([shlex.join(words), *self._options()])

    def train_command(self) -> str:
        """Returns the command that trains with these settings."""
        return " ".join(
            [shlex.join(["pinxit", "train", "--recipe", self.recipe]), *self._options()]
        )

    def _options(self) -> list[str]:
        return [f"--{name} {written(value)}" for name, value in self.settings]


def plan_request(
    recipe: str,
    target: str,
    settings: Mapping[str, Any],
    *,
    policies: Sequence[str] = (),
    price: float | None = None,
) -> PlanRequest:
    """Checks what a form gives, and returns the request. Raises `UsageError` for wrong values."""
    choice("recipe", recipe, RECIPES)
    if target != HERE:
        target = get_target(target).name
    for name in policies:
        choice("policies", name, (*POLICIES, "offload"))
    positive("price", price, minimum=0)
    if price is not None and not math.isfinite(price):
        raise UsageError("price", price, problem="not finite", valid="a number")
    default = RECIPES[recipe]()
    known = planned_settings(default)
    values: dict[str, Any] = {}
    for name, value in settings.items():
        choice("setting", name, known)
        values[name] = _typed(name, known[name], value)
        if name in LARGEST and (values[name] or 0) > LARGEST[name]:
            valid = f"at most {LARGEST[name]}"
            raise UsageError(name, values[name], problem="too large", valid=valid)
    for name, catalogue in (("text_encoder", TEXT_ENCODERS), ("vae", {**AUTOENCODERS, **HOMES})):
        if values.get(name, "auto") != "auto":
            choice(name, values[name], ["auto", *catalogue])
    choice("model.preset", values.get("model.preset", "tiny"), PRESETS)
    request = PlanRequest(
        recipe,
        target,
        tuple(sorted(values.items())),
        tuple(dict.fromkeys(policies)),
        price,
    )
    request.config().resolved()  # raises if the settings do not fit together
    return request


def planned_settings(default: TrainConfig) -> dict[str, Any]:
    """Returns the type of each setting that a plan may change, by name."""
    return {
        name: hint
        for name, hint in leaves(TrainConfig, default).items()
        if name in NAMES or name.startswith(GROUPS)
    }


def _typed(name: str, hint: Any, value: Any) -> Any:
    """Converts a value from JSON, or a text as the command line takes it, to a setting's type."""
    if isinstance(value, str):
        value = _from_text(name, hint, value.strip())
    kinds = options(hint)
    if isinstance(value, int | float) and not abs(value) <= MOST:  # also NaN
        raise UsageError(name, value, problem="too large", valid="a number")
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    words = [word for kind in kinds for word in typing.get_args(kind)]
    is_word = any(isinstance(word, str) for word in words)
    if problem := misfit(hint, value) if not is_word else "":
        raise UsageError(name, value, problem="not of this kind", valid=problem)
    if is_word and value not in words and type(value) not in kinds:
        raise UsageError(name, value, valid=[*words, *_numbers(kinds)])
    return value


def _from_text(name: str, hint: Any, text: str) -> Any:
    """Returns the value that a text stands for."""
    kinds, low = options(hint), text.lower()
    if NoneType in kinds and low in ("none", "null", ""):
        return None
    if any(text in typing.get_args(kind) for kind in kinds):
        return text
    if any(typing.get_origin(kind) is tuple for kind in kinds):
        return [_number(name, word, int) for word in text.split()]
    if bool in kinds and low in (*TRUE, *FALSE):
        return low in TRUE
    for kind in (int, float):
        if kind in kinds:
            return _number(name, text, float if float in kinds else int)
    return text


def _number(name: str, text: str, kind: type) -> int | float:
    """Returns a number; 1e4 is a whole one too."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(name, text, problem="not a number", valid="a number")
    return int(number) if number.is_integer() and kind is int else number


def _numbers(kinds: Sequence[Any]) -> list[str]:
    """Returns words for the kinds of value that are accepted besides the names."""
    names = {NoneType: "none", bool: "0, 1", int: "a number", float: "a number"}
    return [names[kind] for kind in kinds if kind in names]
