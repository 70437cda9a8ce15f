"""Extensions: Python files of the user's that add solvers, objectives, datasets, metrics and so on.

``pinxit --extensions huber.py train ...`` (also after the command; several files are separated by
commas) imports each file once, before settings are parsed, so that the names the file puts into the
package's tables are valid settings. The absolute paths stand in the environment variable
`VARIABLE`, and every process that Pinxit starts calls `load` at its entry. Nothing is ever imported
because a run's or a checkpoint's files name it: they only record what was loaded.
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
"""Environment variable with the absolute paths of the files, separated as in ``PATH``."""
OPTION = "--extensions"

_loaded: dict[Path, str] = {}
"""The files that this process has imported, with their SHA-256."""


class ExtensionError(UsageError):
    """An extension's own code raised; `trace` is the traceback from there."""

    def __init__(self, path: Path, error: BaseException) -> None:
        problem = f"an extension that does not load: {type(error).__name__}: {error}"
        super().__init__("extensions", str(path), problem=problem)
        own = error.__traceback__
        while own is not None and own.tb_frame.f_code.co_filename != str(path):
            own = own.tb_next
        self.trace = "".join(traceback.format_exception(type(error), error, own))


def take(argv: Sequence[str]) -> list[str]:
    """Returns the words of a command line without ``--extensions``, whose files go to `VARIABLE`.

    Raises `UsageError` for a file that is not there. Nothing is imported yet.
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
    """Imports the files that `VARIABLE` names, those that were not imported before.

    A file is imported as the module of its name, and may import what lies beside it.
    """
    for name in os.environ.get(VARIABLE, "").split(os.pathsep):
        if name and (path := _absolute(name)) not in _loaded:
            _import(path)
            _loaded[path] = hashlib.sha256(path.read_bytes()).hexdigest()


def loaded() -> dict[str, str]:
    """Returns the names of the files that this process has imported, with their SHA-256."""
    return {path.name: digest for path, digest in _loaded.items()}


def changed(recorded: Mapping[str, str]) -> list[str]:
    """Returns the recorded files that are loaded now with another content."""
    return [name for name, digest in loaded().items() if recorded.get(name, digest) != digest]


@contextmanager
def explained(recorded: Mapping[str, str]) -> Iterator[None]:
    """Adds to a `UsageError` raised inside which of the recorded files were not given."""
    try:
        yield
    except UsageError as error:
        missing = [name for name in recorded if name not in loaded()]
        if not missing:
            raise
        more = f"this run was made with {OPTION} {','.join(missing)}: give it"
        raise UsageError(f"{error}; {more}") from error


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
        raise UsageError("extensions", str(path), problem=problem, valid="a name of its own")
    try:
        importlib.import_module(path.stem)
    except Exception as error:
        raise ExtensionError(path, error) from error
