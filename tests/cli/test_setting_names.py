"""Every error about a setting begins with a name that exists, and has values as they are typed."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from pinxit.cli.arguments import parse
from pinxit.cli.generate import GenerateOptions
from pinxit.cli.train_aliases import TRAIN_ALIASES
from pinxit.config import UsageError, leaves, options
from pinxit.devices.hardware import Hardware, hardware_of
from pinxit.prepare.options import PrepareOptions
from pinxit.train.build import model_config
from pinxit.train.settings import TrainConfig

PYTHON = re.compile(r"\b(True|False|None)\b|\(\)|\[|\('|\(\d|\w=(True|False|None)")
"""Python's notation, which nobody types on the command line."""


def wrong_values(hint: Any) -> Iterator[list[str]]:
    """Yields values, most of which a setting of this type must refuse."""
    for kind in options(hint):
        if typing.get_origin(kind) is tuple:
            element = typing.get_args(kind)[0]
            words = ["-1", "99999999", "3"] if element in (int, float) else ["=", "a b", "x"]
            yield from ([word] for word in words)
            yield words[:2]
            yield words
        elif kind in (int, float):
            yield from (["-1"], ["0"], ["1000000000"], ["nan"], ["inf"], ["0.5"])
        elif kind is str:
            yield from ([""], ["no such"], ["/"])
    yield ["nonsense="]


def refusals(cls: type, default: Any, check: Any = None, every: int = 1) -> dict[str, str]:
    """The message of each wrong command that is refused, or some of them."""
    messages: dict[str, str] = {}
    for place, (name, hint) in enumerate(leaves(cls, default).items()):
        for words in islice(wrong_values(hint), place % every, None, every):
            try:
                config = parse(
                    cls,
                    [f"--{name}", *words],
                    default=default,
                    aliases=TRAIN_ALIASES,
                    positional="prompt" if cls is GenerateOptions else None,
                )
                if check is not None:
                    check(config)
            except UsageError as error:
                messages[" ".join([name, *words])] = str(error)
    return messages


def check_model(config: TrainConfig) -> None:
    config = config.resolved()
    if config.model.depth is None or config.model.depth < 100:
        model_config(config, channels=4, width=8, hardware=HERE)


HERE: Hardware = hardware_of(__import__("jax").devices()[0])


@pytest.mark.parametrize(
    ("cls", "default", "check", "every", "least"),
    [
        (TrainConfig, TrainConfig(), check_model, 8, 25),
        pytest.param(TrainConfig, TrainConfig(), check_model, 1, 200, marks=pytest.mark.slow),
        (PrepareOptions, PrepareOptions(), None, 1, 100),
    ],
)
def test_errors_begin_with_the_name_of_a_setting(
    cls: type, default: Any, check: Any, every: int, least: int
):
    names = {*leaves(cls, default), "argument"}
    messages = refusals(cls, default, check, every)
    assert len(messages) >= least
    for command, message in messages.items():
        assert message.partition(":")[0] in names, (command, message)
        assert not PYTHON.search(message), (command, message)
