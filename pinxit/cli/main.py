"""The command line: `pinxit train | plan | prepare | generate | evaluate | doctor`.

Each command has a file of its own: a dataclass of options and a function. Heavy imports happen
inside functions, so help appears at once. A wrong input ends in one line on stderr and exit code 2;
set ``PINXIT_DEBUG=1`` to see where it was raised.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TextIO

from pinxit import extensions
from pinxit.cli import xla_environment
from pinxit.cli.evaluate import evaluate
from pinxit.cli.generate import generate
from pinxit.cli.train import train
from pinxit.config import UsageError
from pinxit.version import __version__

USAGE = """usage: pinxit [--extensions FILE[,FILE...]] COMMAND [OPTIONS]

Train text-to-image models from scratch, end to end.

commands:
  train      train a model (without options: the scenes recipe, made for two CPU cores)
  plan       what a run takes on a machine: memory, time, money; before anything is spent
  prepare    make a dataset to train on: fetch images, encode them, write shards
  generate   draw pictures for prompts
  evaluate   accuracy on held-out prompts, and validation loss by time
  doctor     look at this machine, and at a run: what is wrong, and what to do

pinxit COMMAND --help lists a command's options; pinxit --version prints the version.
--extensions imports Python files of yours first: see docs/extending.md."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(extensions.take(words), restart=argv is None))


def guarded(command: Callable[[], int]) -> int:
    """Exit code of a command; a wrong input becomes one line on stderr and 2."""
    xla_environment.prepare_environment()
    shown, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        return command()
    except ValueError as error:
        if os.environ.get("PINXIT_DEBUG", "0") not in ("", "0"):
            raise
        if isinstance(error, extensions.ExtensionError):
            print(error.trace, end="", file=sys.stderr)
        print(f"pinxit: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        fix = "try a smaller --batch_size or --size"
        print(
            f"pinxit: error: out of memory ({' '.join(str(error).split())}); {fix}", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("pinxit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        warnings.showwarning = shown


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Ours as one line; what the libraries warn of is for developers."""
    if category is UserWarning and "pinxit" in filename:
        print(f"pinxit: warning: {message}", file=sys.stderr)


def _dispatch(words: list[str], *, restart: bool) -> int:
    if not words or words[0] in ("-h", "--help", "--version"):
        print(f"pinxit {__version__}" if words == ["--version"] else USAGE, flush=True)
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise UsageError("command", name, valid=list(COMMANDS))
    if name == "train":
        return train(rest, restart=restart)
    extensions.load()
    return COMMANDS[name](rest)


def prepare(argv: Sequence[str]) -> int:
    """Makes a dataset to train on."""
    from pinxit.cli.prepare import prepare

    return prepare(argv)


def plan(argv: Sequence[str]) -> int:
    """Says what a run takes."""
    from pinxit.cli.plan import plan

    return plan(argv)


def doctor(argv: Sequence[str]) -> int:
    """Looks at a machine and a run."""
    from pinxit.cli.doctor import doctor

    return doctor(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "plan": plan,
    "prepare": prepare,
    "generate": generate,
    "evaluate": evaluate,
    "doctor": doctor,
}
"""Commands by name."""
