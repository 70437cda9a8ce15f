"""The commands of a shell block, and how the tests run them or check their arguments.

Paths that the documentation puts on other machines (`/data/coyo`) lie in the test's folder.
"""

from __future__ import annotations

import ast
import contextlib
import os
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from markdown_blocks import ROOT

from pinxit.cli.compare import CompareOptions
from pinxit.cli.doctor import DoctorOptions
from pinxit.cli.evaluate import EvaluateOptions
from pinxit.cli.export import ExportOptions
from pinxit.cli.generate import GenerateOptions
from pinxit.cli.grid import GridOptions
from pinxit.cli.main import COMMANDS, main
from pinxit.cli.pack import PackOptions
from pinxit.cli.plan import PlanOptions
from pinxit.cli.train_aliases import TRAIN_ALIASES
from pinxit.config import leaves
from pinxit.models.transformer import preset
from pinxit.prepare.options import PrepareOptions
from pinxit.prompt_file import LINE_OPTIONS
from pinxit.serve.settings import StudioConfig
from pinxit.train.settings import TrainConfig

EXTERNAL = ("curl", "pip", "pytest", "hf", "ray", "grep", ".", "python3", "export")
"""Programs of others; `srun` and `gcloud` start ours."""
ELSEWHERE = ("/data/", "/shared/")
DOORS = ("train_text_to_image.py", "train_coyo_vae.py")
"""Root scripts that take the settings of `pinxit train`."""
ADDED = {"--objective.scale", "--noise_scale", "--sampling.noise_scale"}
"""Options that exist once the additions of docs/extending.md are there."""
REMEDY = ("--", "it takes", "valid:", "known:", "hf download", "hf auth login")
"""One of these is in every message that says what to do."""


class Understood(BaseException):
    """A command's arguments were read and its settings resolved; it would begin its work now.

    It is no `Exception`, which the command line would report as a bug.
    """


def commands_of(text: str) -> list[list[str]]:
    """The commands of a shell block as words; pipes and `&&` separate commands."""
    commands: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.replace("$I", "0"), posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("|&;"):
                commands.append(words)
                words = []
            else:
                words.append(word)
        commands.append(words)
    return [words for words in commands if words]


def ours(words: Sequence[str]) -> list[str] | None:
    """The part of a command that starts a program of this repository; None if there is none."""
    if words[0] in ("srun", "gcloud"):
        quoted = next((word for word in words if word.startswith("pinxit ")), None)
        return shlex.split(quoted) if quoted else list(words[words.index("pinxit") :])
    if words[0] in ("pinxit", "python") and words[1:3] != ["-m", "venv"]:
        return list(words)
    assert words[0] in EXTERNAL, f"{shlex.join(words)} starts a program that no test knows"
    return None


def check_extras(words: Sequence[str]) -> None:
    """Asserts that the extras of a `pip install -e ".[extra]"` are declared."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        if word.startswith(".["):
            assert set(word[2:-1].split(",")) <= declared["optional-dependencies"].keys(), word


def options_of(script: Path) -> set[str]:
    """The options that a script gives to argparse, or adds to the studio's, read without importing
    it. Modules beside the script that it imports may add options too."""
    tree = ast.parse(script.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    if any("StudioConfig" in ast.unparse(base) for one in classes for base in one.bases):
        fields = [node for one in classes for node in one.body if isinstance(node, ast.AnnAssign)]
        return {f"--{name}" for name in leaves(StudioConfig)} | {
            f"--{ast.unparse(field.target)}" for field in fields
        }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    added = [call for call in calls if getattr(call.func, "attr", None) == "add_argument"]
    names = [arg.value for call in added for arg in call.args if isinstance(arg, ast.Constant)]
    own = {name for name in names if name.startswith("-")} | {"--help", "-h"}
    imported = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    beside = [script.with_name(f"{name}.py") for name in imported if name]
    return own.union(*(options_of(path) for path in beside if path.exists()))


@contextlib.contextmanager
def nothing_begins() -> Iterator[None]:
    """Within it, every command raises `Understood` where its work would begin."""

    def stop(*_: object, **__: object) -> None:
        raise Understood

    def resolve(*configs: Any, **_: object) -> None:
        given = next(config for config in configs if isinstance(config, TrainConfig))
        model = given.resolved().model
        preset(model.preset, **model.overrides())  # raises for sizes that do not fit together
        raise Understood

    def prepare(options: PrepareOptions, *_: object) -> None:
        assert options.name and (options.find_duplicates or options.folder)
        raise Understood

    def pack(options: PackOptions, *_: object) -> None:
        assert options.source and options.target
        raise Understood

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pinxit.train.run.run", resolve)
        patch.setattr("pinxit.cli.training_settings.read_model", stop)
        patch.setattr("pinxit.cli.plan._plan", resolve)
        patch.setattr("pinxit.cli.plan.install", stop)
        patch.setattr("pinxit.cli.prepare._prepare", prepare)
        patch.setattr("pinxit.cli.pack._pack", pack)
        patch.setattr("pinxit.serve.server.run_studio", stop)
        patch.setattr("pinxit.model_loading.load_checkpoint", stop)
        patch.setattr("pinxit.redraw.find_model", stop)
        patch.setattr("pinxit.cli.doctor.examine", stop)
        patch.setattr("pinxit.stored_model.read_model", stop)
        patch.setattr("pinxit.export.hub_upload.check_repository", stop)
        yield


def run_here(words: Sequence[str], folder: Path) -> int:
    """The exit code of `pinxit` or of a door to training, run in this process and in `folder`."""
    words = [moved(word, folder) for word in words]
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        if words[0] == "pinxit":
            return main(words[1:])
        script = ROOT / words[1] if words[1] != "-m" else None
        arguments = words[2:] if script else words[3:]
        patch.setattr("sys.argv", [str(script), *arguments])
        try:
            if script is None:
                patch.delitem(sys.modules, words[2], raising=False)
                # the tests' hook checks types: such bytecode must not reach other processes
                patch.setattr(sys, "dont_write_bytecode", True)
                runpy.run_module(words[2], run_name="__main__", alter_sys=True)
            else:
                patch.syspath_prepend(script.parent)  # as Python does
                runpy.run_path(str(script), run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def moved(word: str, folder: Path) -> str:
    """The word, with paths of other machines led into `folder`."""
    for place in ELSEWHERE:
        if word.startswith(place):
            return f"{folder}{word}"
    return os.path.expanduser(word)


def check_arguments(words: Sequence[str], folder: Path) -> None:
    """Asserts that a command exists, and that it understands all its arguments.

    `folder` has the datasets and runs that the command names.
    """
    if words[0] == "python" and words[1] not in DOORS:
        module = f"{words[2].replace('.', '/')}.py" if words[1] == "-m" else words[1]
        given = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
        assert given <= options_of(ROOT / module), shlex.join(words)
    elif len(words) == 2 and words[1] in ("generate", "grid", "prepare", "compare", "pack"):
        assert words[1] in COMMANDS  # named only: they need more words
    elif words[-1] == "--help":
        with pytest.raises(SystemExit) as ended:
            main(words[1:])
        assert not ended.value.code
    else:
        code = None
        with nothing_begins(), contextlib.suppress(Understood):
            code = run_here(words, folder)
        assert code is None, f"{shlex.join(words)} ended with {code}"


def check_names(words: Sequence[str], folder: Path) -> None:
    """Asserts that a command and its options exist, whose values are names of an extension."""
    if words[0] == "pinxit":
        words = [words[0], *words[3:]] if words[1] == "--extensions" else words
        assert words[1] in COMMANDS, shlex.join(words)
    given = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
    assert given <= known_options() | ADDED, shlex.join(words)


def known_options() -> set[str]:
    """The options of all commands, of all scripts, and of a line in a file of prompts."""
    commands = (PrepareOptions, PackOptions, PlanOptions, DoctorOptions, GenerateOptions)
    commands += (GridOptions, ExportOptions, CompareOptions, StudioConfig)
    names = {name for command in commands for name in leaves(command)}
    names |= {*leaves(TrainConfig, TrainConfig()), "objective"}
    names |= {
        *leaves(EvaluateOptions),
        *TRAIN_ALIASES,
        "recipe",
        "test",
        "help",
        "version",
        "studio",
    }
    names |= {"extensions", *LINE_OPTIONS}
    scripts = [*(ROOT / "scripts").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    scripts += [ROOT / "examples" / "ray_serve.py"]
    own = {option for script in scripts for option in options_of(script)}
    return {f"--{name}" for name in names} | own
