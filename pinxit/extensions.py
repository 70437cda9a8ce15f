"""Extensions: the user's Python files that add solvers, objectives, datasets, metrics and so on.

``pinxit --extensions huber.py train ...`` imports each file once, before settings are parsed, so
that names that the file adds to the package's tables are valid settings. The option may also follow
the command, and commas separate several files. The environment variable `VARIABLE` holds the
absolute paths, and every process that Pinxit starts calls `load` first. The files of a run or a
checkpoint only record which extensions were loaded: they never cause an import.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pinxit.config import UsageError

VARIABLE = "PINXIT_EXTENSIONS"
"""The environment variable with the absolute paths of the files, separated as in ``PATH``."""
OPTION = "--extensions"

_loaded: dict[Path, str] = {}
"""The files that this process has imported, with their SHA-256."""


class ExtensionError(UsageError):
    """An extension's own code raised an exception; `trace` is the traceback from there on."""

    def __init__(self, path: Path, error: BaseException) -> None:
        problem = f"an extension that cannot be imported: {type(error).__name__}: {error}"
        super().__init__("extensions", str(path), problem=problem)
        own = error.__traceback__
        while own is not None and own.tb_frame.f_code.co_filename != str(path):
            own = own.tb_next
        self.trace = "".join(traceback.format_exception(type(error), error, own))


def take(argv: Sequence[str]) -> list[str]:
    """Moves the files of ``--extensions`` to `VARIABLE`, and returns the other words.

    Raises `UsageError` if a file does not exist. Nothing is imported yet.
    """
    rest: list[str] = []
    paths = [Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name != OPTION:
            rest.append(word)
            if word == "--":
                rest += words
            continue
        value = value if equals else next(words, "")
        named = [part.strip() for part in value.split(",") if part.strip()]
        if not named or value.startswith("--"):
            valid = "Python files, separated by commas"
            raise UsageError("extensions", value, problem="not a list of files", valid=valid)
        paths += [_absolute(part) for part in named]
    if paths:
        os.environ[VARIABLE] = os.pathsep.join(str(path) for path in dict.fromkeys(paths))
    return rest


def load() -> None:
    """Imports the files in `VARIABLE` that were not imported before.

    A file is imported as a module of the same name, and may import modules from its own folder.
    """
    for name in files():
        if (path := _absolute(name)) not in _loaded:
            _import(path)
            _loaded[path] = hashlib.sha256(path.read_bytes()).hexdigest()


def files() -> list[str]:
    """Returns the paths of the files that this process and its children import."""
    return [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def loaded() -> dict[str, str]:
    """Returns the SHA-256 of each file that this process has imported, by file name."""
    return {path.name: digest for path, digest in _loaded.items()}


def changed(recorded: Mapping[str, str]) -> list[str]:
    """Returns the recorded files that are loaded now but whose content has changed."""
    return [name for name, digest in loaded().items() if recorded.get(name, digest) != digest]


@contextmanager
def explained(recorded: Mapping[str, str]) -> Iterator[None]:
    """Appends the recorded files that are not loaded to a `UsageError` raised inside."""
    try:
        yield
    except UsageError as error:
        missing = [name for name in recorded if name not in loaded()]
        if not missing:
            raise
        advice = f"this run used {OPTION} {','.join(missing)}: add it to the command"
        raise UsageError(f"{error}; {advice}") from error


def _absolute(name: str) -> Path:
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        problem = "not a file" if path.exists() else "missing"
        raise UsageError("extensions", str(path), problem=problem, valid="a Python file")
    if path.suffix != ".py" or not path.stem.isidentifier():
        problem = "not the name of a Python module"
        raise UsageError("extensions", str(path), problem=problem, valid="a name such as huber.py")
    return path


def _import(path: Path) -> None:
    """Imports a file as a top-level module; its folder is searched after all others."""
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(path.stem)
    if spec is None or spec.origin is None or not os.path.samefile(spec.origin, path):
        other = spec.origin if spec is not None else None
        problem = f"the name of another module ({other})"
        raise UsageError("extensions", str(path), problem=problem, valid="a unique module name")
    try:
        importlib.import_module(path.stem)
    except Exception as error:
        raise ExtensionError(path, error) from error
