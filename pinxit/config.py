"""Configuration: frozen dataclasses, their JSON, and the errors for wrong settings.

A setting has the same name everywhere, its dotted path: ``config.model.patch_size`` is
``--model.patch_size 4`` on the command line and ``{"model": {"patch_size": 4}}`` in a run's
``config.json``. Short names (``--learning_rate``) are aliases of a dotted path. Every wrong input
raises a `UsageError`, which states the field, the value, and the valid values.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import numbers
import re
import shlex
import types
import typing
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pinxit.lfs_pointer import pointer_problem
from pinxit.plain_json import plain_values

T = TypeVar("T")
Number = int | float
"""A number that need not be an integer: 7 and 7.0 are equivalent."""

SENTENCE: Any = object()
"""The default value of a `UsageError`: its first argument is then the whole message."""


class UsageError(ValueError):
    """A mistake that the user can fix, in a setting, a prompt, a file, a folder or a checkpoint.

    On the command line it is shown as one line and gives exit code 2. Every other exception is a
    bug. The message is composed of parts, as in
    ``UsageError("steps", 0, problem="too small", valid="at least 1")``, or is one sentence that
    names the thing and its problem, as in ``UsageError(f"{path} is damaged")``.
    """

    def __init__(
        self,
        field: str,
        value: Any = SENTENCE,
        *,
        valid: Sequence[Any] | str = (),
        problem: str = "unknown",
    ) -> None:
        self.field = field
        self.value = value
        self.valid = valid
        message = field if value is SENTENCE else f"{field}: {shown(value)} is {problem}"
        choices = valid if isinstance(valid, str) else ", ".join(str(choice) for choice in valid)
        super().__init__(f"{message}; valid: {choices}" if choices else message)


def written(value: Any, *, quote: Callable[[str], str] = shlex.quote) -> str:
    """Returns a setting's value as the command line takes it: 1 for True, none for None, the
    values of a list with blanks between them."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list | tuple):
        return " ".join(written(item, quote=quote) for item in value)
    return quote(str(value))


def shown(value: Any) -> str:
    """Returns a setting's value for a message: as `written`, but text is quoted where it stands
    alone, and only there."""
    if isinstance(value, Mapping):
        value = [f"{name}={inner}" for name, inner in value.items()]
    if value is None or isinstance(value, bool | list | tuple):
        return written(value, quote=str) or "''"
    return repr(value)


@contextlib.contextmanager
def full_names(group: str = "", **names: str) -> Generator[None, None, None]:
    """Gives the setting that a `UsageError` raised inside begins with its full name: another one
    from `names`, or its own with the `group` before it."""
    try:
        yield
    except UsageError as error:
        text = str(error)
        field, colon, rest = text.partition(": ")
        if not colon or not re.fullmatch(r"\w+", field):
            raise
        error.field = names.get(field) or (f"{group}.{field}" if group else field)
        error.args = (f"{error.field}: {rest}",)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file. Raises `UsageError` if the file does not hold one."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        if problem := pointer_problem(path):
            raise UsageError(problem) from error
        raise UsageError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def few(items: Sequence[object], *, limit: int = 5, separator: str = ", ") -> str:
    """Returns the first items of a list for a message, and the number of the others."""
    more = [f"and {len(items) - limit} more"] if len(items) > limit else []
    return separator.join([*map(str, items[:limit]), *more])


def positive(field: str, value: Number | None, *, minimum: Number = 1) -> None:
    """Raises unless `value` is at least `minimum`. None, an absent setting, is accepted."""
    if value is not None and not value >= minimum:
        raise UsageError(field, value, problem="too small", valid=f"at least {minimum}")


def choice(field: str, value: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    """Raises unless `value` is one of the `known` names."""
    if value not in known:
        raise UsageError(field, value, valid=list(known))


def unknown_name(
    name: str, known: Sequence[str] | Mapping[str, Any], *, instead: str = ""
) -> UsageError:
    """Returns the error for a setting that does not exist.

    It says what to use `instead`, or, if that is empty, the most similar known names.
    """
    if instead:
        return UsageError("setting", name, valid=instead)
    tail = name.rpartition(".")[2]
    near = [full for full in known if full.rpartition(".")[2] == tail]
    near += [full for full in known if full.startswith(name)]
    near += difflib.get_close_matches(name, list(known), n=4, cutoff=0.5)
    inside = [full for full in known if full.startswith(name.partition(".")[0] + ".")]
    valid = list(dict.fromkeys(near)) or inside or [full for full in known if "." not in full]
    return UsageError("setting", name, valid=valid)


# --- kinds ------------------------------------------------------------------------------------


KIND = "kind"
"""The key of a setting's class name, in JSON and in differences, if it may have several classes."""


def one_of(table: Mapping[str, type], *, wiring: str) -> dict[str, Any]:
    """Returns the metadata of a dataclass field that holds an instance of one of several classes.

    `table` names the classes. JSON has the class's name as `KIND`; older files lack it and mean the
    default class. `wiring` is the table's full name, which the error message for a class without a
    name shows.
    """
    return {"kinds": table, "wiring": wiring}


def kinds_of(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    """Returns the fields with the metadata of `one_of`, by name."""
    return {field.name: field for field in dataclasses.fields(cls) if "kinds" in field.metadata}


def kind_of(field: dataclasses.Field[Any], value: Any) -> str:
    """Returns the name of a value's class in its field's table, or raises `UsageError`."""
    table = field.metadata["kinds"]
    for kind, cls in table.items():
        if type(value) is cls:
            return kind
    cls = type(value).__name__
    module, _, name = field.metadata["wiring"].rpartition(".")
    add = f"{name}[{cls.lower()!r}] = {cls} ({name} is in {module})"
    problem = "a class that is not in the table"
    raise UsageError(field.name, cls, problem=problem, valid=f"{', '.join(table)}; or add {add}")


def as_kind(config: T, name: str, kind: str) -> T:
    """Returns the config with one field of another kind.

    Settings that both kinds have keep their values.
    """
    table = kinds_of(config)[name].metadata["kinds"]
    choice(name, kind, table)
    old, new = getattr(config, name), table[kind]()
    known = {field.name for field in dataclasses.fields(old) if field.init}
    both = {f.name: getattr(old, f.name) for f in dataclasses.fields(new) if f.name in known}
    return dataclasses.replace(config, **{name: dataclasses.replace(new, **both)})  # type: ignore[type-var]


# --- fields -----------------------------------------------------------------------------------


def hints(cls: type) -> dict[str, Any]:
    """Returns the resolved type of each field."""
    resolved = typing.get_type_hints(cls)
    return {f.name: resolved[f.name] for f in dataclasses.fields(cls) if f.init}


def leaves(cls: type, default: Any = None) -> dict[str, Any]:
    """Returns the type of every setting of a dataclass and those nested in it, by dotted name."""
    types_of: dict[str, Any] = {}
    for name, hint in hints(cls).items():
        value = getattr(default, name, None)
        nested = type(value) if dataclasses.is_dataclass(value) else hint
        if dataclasses.is_dataclass(nested) and isinstance(nested, type):
            types_of |= {f"{name}.{rest}": leaf for rest, leaf in leaves(nested, value).items()}
        else:
            types_of[name] = hint
    return types_of


def options(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union type, or the type alone."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(part for member in typing.get_args(hint) for part in options(member))
    return (hint,)


def flattened(settings: Any) -> dict[str, Any]:
    """Returns the values of a dataclass or mapping, and of those nested in it, by dotted name."""
    named, kinds = settings, {}
    if not isinstance(settings, Mapping):
        named = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
        kinds = kinds_of(settings)
    flat: dict[str, Any] = {
        f"{name}.{KIND}": kind_of(field, named[name]) for name, field in kinds.items()
    }
    for name, value in named.items():
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            flat |= {f"{name}.{rest}": leaf for rest, leaf in flattened(value).items()}
        else:
            flat[name] = value
    return flat


def replace(config: T, changes: Mapping[str, Any], *, prefix: str = "") -> T:
    """Returns the config with some dotted fields changed. Raises `UsageError` for unknown ones."""
    direct: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    names = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    for dotted, value in changes.items():
        name, _, rest = dotted.partition(".")
        if name not in names or (rest and not dataclasses.is_dataclass(getattr(config, name))):
            known = [f"{prefix}{name}" for name in flattened(config)]
            raise unknown_name(f"{prefix}{dotted}", known)
        if rest:
            nested.setdefault(name, {})[rest] = value
        else:
            direct[name] = value
    for name, inner in nested.items():
        direct[name] = replace(getattr(config, name), inner, prefix=f"{prefix}{name}.")
    return dataclasses.replace(config, **direct)  # type: ignore[type-var]


def diff(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Returns the settings that differ, as (dotted name, old value, new value)."""
    before, after = flattened(old), flattened(new)
    return [
        (name, before.get(name), after.get(name))
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def differences(old: Any, new: Any) -> list[str]:
    """Returns `diff` in words, sorted by name: "filters.min_side (was 256, is 512)"."""
    changes = sorted(diff(old, new), key=lambda change: change[0])
    return [f"{name} (was {shown(before)}, is {shown(after)})" for name, before, after in changes]


# --- JSON -------------------------------------------------------------------------------------


def to_json(config: Any) -> dict[str, Any]:
    """Returns the config as plain JSON values."""
    values = {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    for name, field in kinds_of(config).items():
        values[name] = {KIND: kind_of(field, getattr(config, name)), **values[name]}
    return values


def plain(value: Any) -> Any:
    """Returns a setting as plain JSON values, and a config as a dict (see `plain_json`)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(value)
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(inner) for inner in value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return plain_values(value)


def from_json(cls: type[T], data: Mapping[str, Any], *, prefix: str = "") -> T:
    """Inverts `to_json`. Absent fields take their defaults. Unknown fields, and values of another
    type than the field's, raise `UsageError`; `prefix` is put before the names in its message."""
    return cls(**typed(cls, data, prefix=prefix))


def typed(cls: type, data: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Converts JSON values to the types of the fields of `cls`: int to float, list to tuple.

    Raises the same errors as `from_json`.
    """
    types_of = hints(cls)
    for name, value in data.items():
        if name not in types_of:
            raise unknown_name(name, types_of)
        if name not in kinds_of(cls) and (kinds := misfit(types_of[name], value)):
            raise UsageError(f"{prefix}{name}: {value!r} is not {kinds}")
    values = {n: _typed(types_of[n], value, f"{prefix}{n}.") for n, value in data.items()}
    for name, field in kinds_of(cls).items():
        if isinstance(data.get(name), Mapping):
            values[name] = from_kind(field, data[name])
    return values


def from_kind(field: dataclasses.Field[Any], data: Mapping[str, Any]) -> Any:
    """Returns the instance that JSON describes, of the class that its `KIND` names."""
    default: Any = field.default_factory
    table, kind = field.metadata["kinds"], data.get(KIND) or kind_of(field, default())
    choice(field.name, kind, table)
    return from_json(table[kind], {name: v for name, v in data.items() if name != KIND})


PLAIN_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda v: isinstance(v, bool) or (_is_number(v) and v in (0, 1))),
    int: ("a whole number", lambda v: _is_number(v) and isinstance(v, numbers.Integral)),
    float: ("a number", lambda v: _is_number(v)),
    str: ("text", lambda v: isinstance(v, str)),
    tuple: ("a list", lambda v: isinstance(v, list | tuple)),
    types.NoneType: ("null", lambda v: v is None),
}
"""The types of settings whose values are checked: how a message calls each, and its test."""


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def misfit(hint: Any, value: Any) -> str:
    """Returns the kinds of value that a type accepts ("a number or null") if `value` is none of
    them, else "". Types other than plain ones and dataclasses accept everything."""
    names = []
    for option in options(hint):
        kind = typing.get_origin(option) or option
        if dataclasses.is_dataclass(kind):
            if isinstance(value, Mapping | kind):  # type: ignore[operator]
                return ""
            names.append("an object with settings")
        elif kind not in PLAIN_KINDS or PLAIN_KINDS[kind][1](value):
            return ""
        else:
            names.append(PLAIN_KINDS[kind][0])
    return " or ".join(names)


def _typed(hint: Any, value: Any, prefix: str = "") -> Any:
    for option in options(hint):
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return from_json(option, value, prefix=prefix)  # type: ignore[arg-type]
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            arguments = typing.get_args(option)
            return tuple(_typed(arguments[0], item) for item in value)
        if option in (bool, int, float) and PLAIN_KINDS[option][1](value):
            return option(value)
    return value
