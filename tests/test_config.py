"""Settings as dataclasses and as JSON, flat and compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pytest

from pinxit.config import (
    UsageError,
    diff,
    differences,
    from_json,
    full_names,
    plain,
    replace,
    shown,
    to_json,
)
from pinxit.train.settings import TrainConfig


@dataclass(frozen=True)
class Part:
    """A nested part."""

    patch_size: int = 2
    """Side of a patch."""
    use_vae: bool = True
    depth: int | None = None
    mode: Literal["fast", "slow"] = "fast"
    span: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Config:
    """A config."""

    name: str = "run"
    rate: float = 1e-3
    resume: bool | Literal["auto"] = "auto"
    words: tuple[str, ...] = ()
    part: Part = field(default_factory=Part)


def test_json_round_trip():
    config = Config(words=("a",), resume=False, part=Part(span=(0.1, 0.9)))
    assert from_json(Config, to_json(config)) == config
    assert from_json(Config, {"rate": 1, "part": {"depth": 2}}) == Config(
        rate=1.0, part=Part(depth=2)
    )
    with pytest.raises(UsageError, match="'nmae' is unknown; valid: name"):
        from_json(Config, {"nmae": "x"})


def test_settings_are_the_same_in_every_process():
    assert plain({"a": frozenset("cab"), "b": (1, {2})}) == {"a": ["a", "b", "c"], "b": [1, [2]]}


def test_differences_of_mappings_name_what_is_nested():
    old = {"a": {"b": 1, "c": [1]}, "z": 0}
    assert differences(old, {"a": {"b": 2, "c": [1]}, "y": 0}) == [
        "a.b (was 1, is 2)",
        "y (was none, is 0)",
        "z (was 0, is none)",
    ]
    assert differences(Config(), replace(Config(), {"part.depth": 2})) == [
        "part.depth (was none, is 2)"
    ]


def test_diff_and_replace_use_dotted_names():
    changed = replace(Config(), {"part.depth": 2, "name": "other"})
    assert diff(Config(), changed) == [("name", "run", "other"), ("part.depth", None, 2)]
    with pytest.raises(UsageError, match=r"part\.dept"):
        replace(Config(), {"part.dept": 1})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"max_steps": "many"}, "max_steps: 'many' is not a whole number"),
        ({"max_steps": 2.5}, "max_steps: 2.5 is not a whole number"),
        ({"max_steps": True}, "max_steps: True is not a whole number"),
        ({"name": 5}, "name: 5 is not text"),
        ({"use_amp": "no"}, "use_amp: 'no' is not true or false"),
        ({"model": [1]}, "model: \\[1\\] is not an object with settings"),
        ({"model": {"depth": "12"}}, "model.depth: '12' is not a whole number or null"),
        ({"optimizer": {"learning_rate": None}}, "optimizer.learning_rate: None is not a number"),
        ({"samples": {"prompts": "red"}}, "samples.prompts: 'red' is not a list"),
    ],
)
def test_values_of_another_type_are_refused_by_name(data: dict, says: str):
    with pytest.raises(UsageError, match=says):
        from_json(TrainConfig, data)


def test_values_that_mean_the_same_are_accepted():
    data = {"use_amp": 1, "optimizer": {"learning_rate": 1, "clip_norm": None}}
    config = from_json(TrainConfig, data | {"max_steps": np.int64(3)})
    assert config.use_amp and config.optimizer.learning_rate == 1.0 and config.max_steps == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "1"),
        (False, "0"),
        (None, "none"),
        (3, "3"),
        (0.5, "0.5"),
        ("sd", "'sd'"),
        ((0.05, 0.1), "0.05 0.1"),
        (("caption=text", "url=link"), "caption=text url=link"),
        (((256, 192), (192, 256)), "256 192 192 256"),
        ((), "''"),
        ({"caption": "text"}, "caption=text"),
    ],
)
def test_values_are_shown_as_the_command_line_takes_them(value: object, text: str):
    assert shown(value) == text
    assert str(UsageError("name", value, problem="wrong")) == f"name: {text} is wrong"


def test_an_error_inside_gets_the_full_name_of_its_setting():
    for group, names, full in (
        ("filters", {}, "filters.side"),
        ("", {}, "side"),
        ("filters", {"side": "image_side"}, "image_side"),
    ):
        with pytest.raises(UsageError) as caught, full_names(group, **names):
            raise UsageError("side", 3, problem="small", valid="4")
        assert str(caught.value) == f"{full}: 3 is small; valid: 4" and caught.value.field == full
    with pytest.raises(UsageError, match=r"^the file a\.b: damaged"), full_names("filters"):
        raise UsageError("the file a.b: damaged")
