"""The command line: `pinxit train | plan | prepare | generate | evaluate | doctor`.

Each command has a file of its own: a dataclass of options and a function. Heavy imports happen
inside functions, so help appears at once. A mistake that a person can mend ends in one line on
stderr and exit code 2 (``PINXIT_DEBUG=1`` shows where it was raised); a bug in its traceback and 1.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import TextIO

from pinxit import extensions
from pinxit.cli import xla_environment
from pinxit.cli.train import train_command
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
    """Exit code of a command; what ends it becomes the lines that a person needs.

    A mistake that a person can mend (`UsageError`) is one line and exit code 2. What the operating
    system refuses (a full disk, a missing permission) is one line. Everything else is a bug: its
    traceback, a line that says where to report it, and exit code 1.
    """
    xla_environment.prepare_environment()
    shown, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        return command()
    except KeyboardInterrupt:
        print("pinxit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line, code = error_line(error)
        if isinstance(error, extensions.ExtensionError):
            print(error.trace, end="", file=sys.stderr)
        if line is None or os.environ.get("PINXIT_DEBUG", "0") not in ("", "0"):
            traceback.print_exception(error)
        if line is None:
            print(f"pinxit: this is a bug; {_where_to_report()}", file=sys.stderr)
        else:
            print(f"pinxit: error: {' '.join(line.split())}", file=sys.stderr)
        return code
    finally:
        warnings.showwarning = shown


def error_line(error: Exception) -> tuple[str | None, int]:
    """An exception in one line, and the exit code; no line for a bug."""
    if isinstance(error, UsageError):
        return str(error), 2
    exhausted = isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    if isinstance(error, MemoryError) or exhausted:
        fix = "try a smaller --batch_size or --size"
        return f"out of memory ({' '.join(str(error).split())}); {fix}", 1
    if isinstance(error, OSError):
        return _refusal(error), 2 if isinstance(error, WRONG_PATH) else 1
    return None, 1


WRONG_PATH = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
WRONG_PATH += (PermissionError,)
"""What the operating system says of a path that was given wrongly; the rest (a full disk, a network
that is down) is not the user's doing."""


def _refusal(error: OSError) -> str:
    """What the operating system refused, and for which path."""
    if error.strerror is None:
        return str(error) or type(error).__name__
    paths = [str(path) for path in (error.filename, error.filename2) if path is not None]
    return ": ".join([*paths[:1], error.strerror])


def _where_to_report() -> str:
    """Where bugs are reported; the project's metadata name the address, where there is one."""
    import importlib.metadata

    try:
        urls = importlib.metadata.metadata("pinxit").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        urls = []
    addresses = dict(url.split(", ", 1) for url in urls)
    tracker = addresses.get("Issues", "the project's issue tracker")
    return f"please report it, with the lines above, to {tracker}"


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
        return train_command(rest, restart=restart)
    extensions.load()
    return COMMANDS[name](rest)


def prepare(argv: Sequence[str]) -> int:
    """Makes a dataset to train on."""
    from pinxit.cli.prepare import prepare_command

    return prepare_command(argv)


def generate(argv: Sequence[str]) -> int:
    """Draws pictures."""
    from pinxit.cli.generate import generate_command

    return generate_command(argv)


def evaluate(argv: Sequence[str]) -> int:
    """Measures a model."""
    from pinxit.cli.evaluate import evaluate_command

    return evaluate_command(argv)


def plan(argv: Sequence[str]) -> int:
    """Says what a run takes."""
    from pinxit.cli.plan import plan_command

    return plan_command(argv)


def doctor(argv: Sequence[str]) -> int:
    """Looks at a machine and a run."""
    from pinxit.cli.doctor import doctor_command

    return doctor_command(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train_command,
    "plan": plan,
    "prepare": prepare,
    "generate": generate,
    "evaluate": evaluate,
    "doctor": doctor,
}
"""Commands by name."""
