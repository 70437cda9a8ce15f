"""The command line: `pinxit COMMAND`, for the commands in `USAGE`.

Each command has its own file with a dataclass of options and a function. Heavy imports happen
inside functions, so that help appears at once. A mistake that the user can fix ends with one line
on stderr and exit code 2 (``PINXIT_DEBUG=1`` adds the traceback). A bug ends with its traceback and
exit code 1.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import TextIO

from pinxit import extensions, garbage_collection
from pinxit.cli import xla_environment
from pinxit.cli.train import train_command
from pinxit.config import UsageError
from pinxit.open_files import raise_limit
from pinxit.version import __version__

USAGE = """usage: pinxit [--extensions FILE[,FILE...]] COMMAND [OPTIONS]

Train text-to-image models from scratch, end to end.

commands:
  train      train a model (by default the scenes recipe, which is made for two CPU cores)
  plan       estimate the memory, time and cost of a run on any machine before starting it
  prepare    prepare a dataset for training: fetch images, encode them, write shards
  pack       gather a prepared dataset in a few large files, for object stores and large sets
  generate   draw pictures for prompts
  grid       compare settings: one labelled picture over seeds, guidance, steps, checkpoints, ...
  evaluate   measure a model: losses, effect of captions, accuracy, distances from real pictures
  compare    measure and draw several models with the same prompts and seeds, side by side
  studio     serve a web page and an HTTP API: draw, compare, watch runs, browse data, plan
  export     write a model as a folder for diffusers, or as one file, and upload it to the Hub
  doctor     check this machine and a run for problems, and suggest solutions

pinxit COMMAND --help lists a command's options; pinxit --version prints the version.
--extensions imports your own Python files first: see docs/extending.md."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    code = guarded(lambda: _dispatch(extensions.take(words), restart=argv is None))
    if argv is None:
        garbage_collection.skip_last()
    return code


def guarded(command: Callable[[], int]) -> int:
    """Runs a command, reports its exceptions on stderr, and returns the exit code.

    A mistake that the user can fix (`UsageError`) is one line and exit code 2. An error of the
    operating system (a full disk, a missing permission) is one line and exit code 1 or 2. Any other
    exception is a bug: its traceback, a line that says where to report it, and exit code 1.
    """
    xla_environment.prepare_environment()
    raise_limit()
    shown, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        return command()
    except KeyboardInterrupt:
        print("pinxit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of a pipe (head, less) has closed it
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
    """Returns an exception as one line, or None for a bug, and the exit code."""
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
"""Errors that mean a wrong path and so exit code 2. Others (a full disk, a network that is down)
are not the user's mistake and give exit code 1."""


def _refusal(error: OSError) -> str:
    """Formats an error of the operating system as "path: reason"."""
    if error.strerror is None:
        return str(error) or type(error).__name__
    paths = [str(path) for path in (error.filename, error.filename2) if path is not None]
    return ": ".join([*paths[:1], error.strerror])


def _where_to_report() -> str:
    """Says where to report bugs. The address comes from the package's metadata, if it is there."""
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
    """Prints Pinxit's own warnings as one line, and hides those of libraries."""
    if category is UserWarning and "pinxit" in filename:
        print(f"pinxit: warning: {message}", file=sys.stderr)


def _dispatch(words: list[str], *, restart: bool) -> int:
    if not words or words[0] in ("-h", "--help", "--version"):
        print(f"pinxit {__version__}" if words == ["--version"] else USAGE, flush=True)
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise UsageError("command", name, valid=list(COMMANDS))
    garbage_collection.postpone()
    try:
        if name == "train":
            return train_command(rest, restart=restart)
        extensions.load()
        return COMMANDS[name](rest)
    finally:
        garbage_collection.resume()


def prepare(argv: Sequence[str]) -> int:
    """Prepares a dataset for training."""
    from pinxit.cli.prepare import prepare_command

    return prepare_command(argv)


def pack_prepared(argv: Sequence[str]) -> int:
    """Packs a prepared dataset."""
    from pinxit.cli.pack import pack_command

    return pack_command(argv)


def generate(argv: Sequence[str]) -> int:
    """Draws pictures."""
    from pinxit.cli.generate import generate_command

    return generate_command(argv)


def grid(argv: Sequence[str]) -> int:
    """Draws a comparison grid."""
    from pinxit.cli.grid import grid_command

    return grid_command(argv)


def evaluate(argv: Sequence[str]) -> int:
    """Measures a model."""
    from pinxit.cli.evaluate import evaluate_command

    return evaluate_command(argv)


def compare(argv: Sequence[str]) -> int:
    """Measures several models with the same prompts and seeds."""
    from pinxit.cli.compare import compare_command

    return compare_command(argv)


def export(argv: Sequence[str]) -> int:
    """Writes a model for other programs."""
    from pinxit.cli.export import export_command

    return export_command(argv)


def studio(argv: Sequence[str]) -> int:
    """Serves the studio."""
    from pinxit.cli.studio import studio_command

    return studio_command(argv)


def plan(argv: Sequence[str]) -> int:
    """Estimates the memory, time and cost of a run."""
    from pinxit.cli.plan import plan_command

    return plan_command(argv)


def doctor(argv: Sequence[str]) -> int:
    """Checks a machine and a run."""
    from pinxit.cli.doctor import doctor_command

    return doctor_command(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train_command,
    "plan": plan,
    "prepare": prepare,
    "pack": pack_prepared,
    "generate": generate,
    "grid": grid,
    "evaluate": evaluate,
    "compare": compare,
    "export": export,
    "studio": studio,
    "doctor": doctor,
}
"""The functions of the commands, by name."""
