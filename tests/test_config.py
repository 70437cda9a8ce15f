"""Settings as dataclasses and as JSON, flat and compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from pinxit.config import UsageError, diff, differences, from_json, plain, replace, to_json


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
        "y (was None, is 0)",
        "z (was 0, is None)",
    ]
    assert differences(Config(), replace(Config(), {"part.depth": 2})) == [
        "part.depth (was None, is 2)"
    ]


def test_diff_and_replace_use_dotted_names():
    changed = replace(Config(), {"part.depth": 2, "name": "other"})
    assert diff(Config(), changed) == [("name", "run", "other"), ("part.depth", None, 2)]
    with pytest.raises(UsageError, match=r"part\.dept"):
        replace(Config(), {"part.dept": 1})
