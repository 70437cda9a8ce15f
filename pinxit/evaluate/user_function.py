"""Loads a user's function, such as an object detector, from ``FILE.py:NAME`` and calls it.

The file is the user's own code and runs with the user's rights, like an extension. It is named on
the command line; nothing stored in a run or a checkpoint ever causes it to be loaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import secrets
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from pinxit.config import UsageError, few
from pinxit.extensions import ExtensionError

FORM = "FILE.py:NAME, a Python file and the name of a function in it"

_plain: dict[int, UserFunction] = {}
"""The wrappers of functions without a file, by the function's id; they keep the function alive."""


class UserFunctionError(ExtensionError):
    """A user's function raised an exception, or returned something that it must not.

    `trace` is the traceback from the user's file on, and is empty for a wrong return value.
    """

    def __init__(self, message: str, error: BaseException | None = None, file: str = "") -> None:
        UsageError.__init__(self, message)
        self.trace = ""
        if error is not None:
            own = error.__traceback__
            while own is not None and own.tb_frame.f_code.co_filename != file:
                own = own.tb_next
            lines = traceback.format_exception(type(error), error, own or error.__traceback__)
            self.trace = "".join(lines)


class StoppedAtPicture(Exception):
    """A user's function failed for one of several pictures."""

    def __init__(self, rows: Float[np.ndarray, "n d"], error: UserFunctionError) -> None:
        """Holds the `rows` of the pictures before the one that failed, and the error."""
        super().__init__(str(error))
        self.rows, self.error = rows, error

    def named(self, start: int, prompts: Sequence[str]) -> UserFunctionError:
        """Returns the error with the picture's number, if `start` is the first picture's."""
        number = start + len(self.rows)
        where = f"picture {number} ({prompts[len(self.rows)]!r}): {self.error}"
        error = UserFunctionError(
            f"{where}; if results are kept in a folder, the same evaluation goes on with this "
            "picture, unless the file is edited"
        )
        error.trace = self.error.trace
        return error


class UserFunction:
    """A user's function, with the errors and the identity that an evaluation needs."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        option: str,
        name: str,
        module: ModuleType | None = None,
        sha256: str | None = None,
    ) -> None:
        """Wraps a function. `option` and `name` are for messages.

        `module` is the file that it was loaded from and `sha256` the hash of that file; without a
        hash, results are never reused by another process.
        """
        self.function, self.option, self.name = function, option, name
        self.module, self.sha256 = module, sha256
        self._about = (
            {"function": name.rpartition(":")[2], "sha256": sha256}
            if sha256 is not None
            else {"function": name, "process": secrets.token_hex(16)}
        )

    def about(self) -> Mapping[str, Any]:
        """Returns the name and the SHA-256 of the whole file, as JSON."""
        return self._about

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function. An exception becomes a `UserFunctionError` with its traceback."""
        try:
            return self.function(*arguments)
        except Exception as error:
            file = str(getattr(self.module, "__file__", ""))
            problem = f"raised {type(error).__name__}: {error}"
            raise UserFunctionError(f"{self.option}: {self.name} {problem}", error, file) from error

    def wrong(self, problem: str, *, valid: str) -> UserFunctionError:
        """Returns the error for a return value with this problem."""
        return UserFunctionError(f"{self.option}: {self.name} {problem}; valid: {valid}")

    def check_parameters(self, names: Sequence[str]) -> None:
        """Raises `UsageError` unless the function can be called with these arguments."""
        try:
            signature = inspect.signature(self.function)
        except ValueError:  # a function of a compiled module, which does not tell
            return
        try:
            signature.bind(*names)
        except TypeError as error:
            problem = f"a function with the parameters {signature}"
            valid = f"a function of ({', '.join(names)})"
            raise UsageError(self.option, self.name, problem=problem, valid=valid) from error

    def beside(self, name: str, parameters: Sequence[str]) -> UserFunction | None:
        """Returns another function of the same file, or None if the file has none of this name."""
        function = getattr(self.module, name, None)
        if self.module is None or function is None:
            return None
        path = self.name.rpartition(":")[0]
        return _checked(
            function, f"{path}:{name}", self.option, self.module, self.sha256, parameters
        )


def load_function(
    text: str, *, option: str, parameters: Sequence[str] | None = None
) -> UserFunction:
    """Returns the function that ``FILE.py:NAME`` names. The file is run once for each call.

    `parameters` are the names of the arguments that it will be called with. Raises `UsageError`
    for a missing file, a missing name, a name that is no function, and a function with other
    parameters, and `ExtensionError` for a file whose own code raises an exception.
    """
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise UsageError(option, text, problem="not a file and a function", valid=FORM)
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        problem = "not a file" if path.exists() else "missing"
        raise UsageError(option, str(path), problem=problem, valid=FORM)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    module = _run(path, sha256, option)
    function = getattr(module, name, None)
    if function is None:
        own = [n for n, v in vars(module).items() if inspect.isfunction(v) and n[0] != "_"]
        problem = f"missing: {path.name} has no {name}"
        raise UsageError(option, text, problem=problem, valid=few(own) or "a function of it")
    return _checked(function, text, option, module, sha256, parameters)


def as_user_function(
    function: Callable[..., Any], *, option: str, parameters: Sequence[str]
) -> UserFunction:
    """Returns a Python function as a `UserFunction`, and checks its parameters.

    The hash of the file that defines a plain function is not known for certain, so its results are
    never reused by another process. `load_function` gives one whose results are.
    """
    if isinstance(function, UserFunction):
        wrapped = function
    else:
        name = getattr(function, "__qualname__", type(function).__name__)
        new = UserFunction(function, option=option, name=name)
        wrapped = _plain.setdefault(id(function), new)
    wrapped.check_parameters(parameters)
    return wrapped


def one_by_one_rows(
    row: Callable[[Any, str], Float[np.ndarray, " d"]],
    pictures: Iterable[Any],
    prompts: Iterable[str],
    *,
    width: int,
) -> Float[np.ndarray, "n d"]:
    """Returns the row of each picture. Raises `StoppedAtPicture` where a user's function fails."""
    rows: list[np.ndarray] = []
    for picture, prompt in zip(pictures, prompts, strict=True):
        try:
            rows.append(row(picture, prompt))
        except UserFunctionError as error:
            raise StoppedAtPicture(np.array(rows, np.float32).reshape(-1, width), error) from error
    return np.array(rows, np.float32).reshape(-1, width)


def _checked(
    function: Any,
    name: str,
    option: str,
    module: ModuleType,
    sha256: str | None,
    parameters: Sequence[str] | None,
) -> UserFunction:
    """Returns a function of a file. Raises `UsageError` for another object or other parameters."""
    if not callable(function):
        problem = f"not a function but of the type {type(function).__name__}"
        raise UsageError(option, name, problem=problem, valid=FORM)
    wrapped = UserFunction(function, option=option, name=name, module=module, sha256=sha256)
    if parameters is not None:
        wrapped.check_parameters(parameters)
    return wrapped


def _run(path: Path, sha256: str, option: str) -> ModuleType:
    """Runs a file as a module. Its folder is searched after all others for what it imports."""
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(f"_user_{path.stem}_{sha256[:8]}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        problem = f"{path} cannot be run: {type(error).__name__}: {error}"
        raise UserFunctionError(f"{option}: {problem}", error, str(path)) from error
    return module
