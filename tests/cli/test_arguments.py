"""Settings from the command line, and what is said of wrong ones."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import Literal

import pytest

from pinxit.cli.arguments import parse
from pinxit.config import UsageError


@dataclass(frozen=True)
class Part:
    """A nested part."""

    patch_size: int = 2
    """Side of a patch."""
    use_vae: bool = True
    depth: int | None = None
    mode: Literal["fast", "slow"] = "fast"
    span: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        if self.patch_size < 1:
            raise ValueError(f"part.patch_size: {self.patch_size} must be at least 1")


@dataclass(frozen=True)
class Config:
    """A config."""

    name: str = "run"
    rate: float = 1e-3
    resume: bool | Literal["auto"] = "auto"
    words: tuple[str, ...] = ()
    part: Part = field(default_factory=Part)


def read(line: str, **options) -> Config:
    return parse(Config, line.split(), aliases={"patch": "part.patch_size"}, **options)


def test_dotted_plain_and_dashed_names():
    assert read("--part.patch_size 4") == read("--patch 4") == read("--part.patch-size=4")
    assert read("--patch 4").part.patch_size == 4


def test_the_default_is_the_starting_point_and_the_last_word_wins():
    config = read("--rate 1 --rate 2", default=Config(name="mine", part=Part(depth=3)))
    assert (config.name, config.rate, config.part.depth) == ("mine", 2.0, 3)


@pytest.mark.parametrize(
    ("word", "value"),
    [("0", False), ("1", True), ("true", True), ("False", False), ("off", False), ("", True)],
)
def test_booleans(word, value):
    assert read(f"--part.use_vae {word}").part.use_vae is value
    assert read(f"--resume {word} --patch 1").resume is value


def test_values_of_every_kind():
    config = read(
        "--resume auto --part.depth none --part.span 0.1 0.9 --words a b --part.mode slow"
    )
    assert config == Config(words=("a", "b"), part=Part(span=(0.1, 0.9), mode="slow"))
    assert read("--patch 1e1").part.patch_size == 10
    assert read("--rate -1").rate == -1.0


def test_none_may_be_a_word_of_a_list():
    assert read("--words none b").words == ("none", "b")


def test_words_without_an_option_are_the_positional_field():
    config = parse(Config, ["a b", "--rate", "2", "--", "--c"], positional="words")
    assert config.words == ("a b", "--c")
    with pytest.raises(UsageError, match="'stray'"):
        read("stray")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--part.pach_size 4", "'part.pach_size' is unknown; valid: part.patch_size"),
        ("--patch_size 4", "'patch_size' is unknown; valid: part.patch_size"),
        ("--patch two", "patch: 'two' is not understood; valid: an integer"),
        ("--patch 1.5", "patch: '1.5' is not understood; valid: an integer"),
        ("--rate", "rate: '' is missing its value; valid: a number"),
        ("--part.mode medium", "part.mode: 'medium' is not understood; valid: fast, slow"),
        ("--part.use_vae 2", "argument: '2'"),
        ("--part.use_vae=2", "part.use_vae: '2' is not understood; valid: 0, 1, true, false"),
        ("--patch 0", "part.patch_size: 0 must be at least 1"),
    ],
)
def test_a_wrong_input_is_one_line(line, message):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        read(line)
    assert message in str(error.value)
    assert not re.search("Value error|helptext|--$", str(error.value))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_message_is_free_of_its_box(encoding, monkeypatch):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    with pytest.raises(UsageError) as error:
        read("--patch 0")
    assert str(error.value) == "part.patch_size: 0 must be at least 1"


def test_help_lists_fields_and_short_names(capsys):
    with pytest.raises(SystemExit) as stop:
        read("--rate 3 --help")
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--part.patch_size" in shown
    assert "Side of a patch." in shown
    assert "--patch = --part.patch_size" in shown
