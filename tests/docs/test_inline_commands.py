"""Commands and options that the documentation shows inside its sentences exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from documented_commands import check_arguments, options_of
from markdown_blocks import PAGES, ROOT, inline_commands

from pinxit.cli.doctor import DoctorOptions
from pinxit.cli.evaluate import EvaluateOptions
from pinxit.cli.generate import GenerateOptions
from pinxit.cli.plan import PlanOptions
from pinxit.cli.train import TRAIN_ALIASES
from pinxit.config import leaves
from pinxit.prepare.options import PrepareOptions
from pinxit.train.settings import TrainConfig

INLINE = sorted({command for _, command in inline_commands()})
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")


@pytest.mark.parametrize("command", INLINE)
def test_a_command_in_prose_is_understood(command: str, named_folders: Path, capsys):
    check_arguments(shlex.split(command), named_folders)


def known_options() -> set[str]:
    """The options of all commands and of all scripts."""
    commands = (TrainConfig, PrepareOptions, PlanOptions, DoctorOptions, GenerateOptions)
    names = {name for command in commands for name in leaves(command)}
    names |= {*leaves(EvaluateOptions), *TRAIN_ALIASES, "recipe", "test", "help", "version"}
    names |= {"extensions"}
    scripts = [*(ROOT / "scripts").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    own = {option for script in scripts for option in options_of(script)}
    return {f"--{name}" for name in names} | own


@pytest.mark.parametrize("page", PAGES)
def test_an_option_in_prose_exists(page: str):
    text = re.sub(r"^(`{3,}).*?^\1$", "", (ROOT / page).read_text(), flags=re.M | re.S)
    spans = [span for span in SPAN.findall(text) if not span.startswith(("pip ", "ray ", "hf "))]
    options = {o for span in spans for o in re.findall(r"(?<!\S)--[a-z][\w.]*", span)}
    assert options <= known_options()


def test_the_scan_sees_commands_and_options():
    assert {"pinxit doctor scenes", "pinxit evaluate --checkpoint runs/scenes"} <= set(INLINE)
    with pytest.raises(AssertionError):
        check_arguments(["python", "benchmarks/memory_table.py", "--wriet"], ROOT)
    with pytest.raises(AssertionError):
        check_arguments(["pinxit", "train", "--max_stpes", "3"], ROOT)
    with pytest.raises(AssertionError):
        check_arguments(["pinxit", "trian"], ROOT)
