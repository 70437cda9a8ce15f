"""Configuration: frozen dataclasses, their JSON, and the errors for wrong settings.

A setting has one name everywhere, its dotted path: ``--model.patch_size 4`` on the command line and
``{"model": {"patch_size": 4}}`` in a run's ``config.json`` are ``config.model.patch_size``. Short
names (``--learning_rate``) are aliases of a dotted path. Whatever is wrong with an input ends in
one `UsageError`: the field, the value, and what would be valid.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Number = int | float
"""A number that need not be whole; 7 is as good as 7.0."""

SENTENCE: Any = object()
"""Given as a `UsageError`'s value: its first argument is the whole message."""


class UsageError(ValueError):
    """A mistake that a person can mend: a setting, a prompt, a file, a folder, a checkpoint.

    On the command line it becomes one line and exit code 2; every other exception is a bug. It is
    made of its parts, ``UsageError("steps", 0, problem="too small", valid="at least 1")``, or of
    one sentence that says what is wrong with what: ``UsageError(f"{path} is damaged")``.
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
        message = field if value is SENTENCE else f"{field}: {value!r} is {problem}"
        choices = valid if isinstance(valid, str) else ", ".join(str(choice) for choice in valid)
        super().__init__(f"{message}; valid: {choices}" if choices else message)


def check_writable(field: str, value: str, folder: Path) -> None:
    """Raises unless files can be written to the folder; it is made later, so it need not exist."""
    import tempfile

    place = folder.absolute()
    while not place.exists():
        place = place.parent
    why = "" if place.is_dir() else "a file"
    try:
        if not why:
            tempfile.TemporaryDirectory(prefix=".pinxit-", dir=place).cleanup()
    except OSError as error:
        why = f"read-only ({error.strerror})"
    if why:
        problem = f"not a place to write to: {place} is {why}"
        valid = "a folder, there or not, that may be written to"
        raise UsageError(field, value, problem=problem, valid=valid)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; a `UsageError` where the file holds none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def positive(field: str, value: Number | None, *, minimum: Number = 1) -> None:
    """Raises unless `value` is at least `minimum` (None passes: the setting is absent)."""
    if value is not None and not value >= minimum:
        raise UsageError(field, value, problem="too small", valid=f"at least {minimum}")


def choice(field: str, value: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    """Raises unless `value` is one of the `known` names."""
    if value not in known:
        raise UsageError(field, value, valid=list(known))


def unknown_name(name: str, known: Sequence[str] | Mapping[str, Any]) -> UsageError:
    """The error for a setting that does not exist, with the nearest that do."""
    tail = name.rpartition(".")[2]
    near = [full for full in known if full.rpartition(".")[2] == tail]
    near += [full for full in known if full.startswith(name)]
    near += difflib.get_close_matches(name, list(known), n=4, cutoff=0.5)
    inside = [full for full in known if full.startswith(name.partition(".")[0] + ".")]
    valid = list(dict.fromkeys(near)) or inside or [full for full in known if "." not in full]
    return UsageError("setting", name, valid=valid)


# --- kinds ------------------------------------------------------------------------------------


KIND = "kind"
"""In JSON and in differences: the name of a setting's class, where there are several to choose."""


def one_of(table: Mapping[str, type], *, wiring: str) -> dict[str, Any]:
    """The metadata of a dataclass field that holds an instance of one of the table's classes.

    JSON has the class's name in the table as `KIND`; without it (older files) it is the default's.
    `wiring` is the table's full name, for the message that tells how to add a class.
    """
    return {"kinds": table, "wiring": wiring}


def kinds_of(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    """Returns the fields with the metadata of `one_of`, by name."""
    return {field.name: field for field in dataclasses.fields(cls) if "kinds" in field.metadata}


def kind_of(field: dataclasses.Field[Any], value: Any) -> str:
    """The name of a value's class in its field's table; a `UsageError` where it has none."""
    table = field.metadata["kinds"]
    for kind, cls in table.items():
        if type(value) is cls:
            return kind
    cls = type(value).__name__
    module, _, name = field.metadata["wiring"].rpartition(".")
    add = f"{name}[{cls.lower()!r}] = {cls} ({name} is in {module})"
    problem = "a class without a name in the table"
    raise UsageError(field.name, cls, problem=problem, valid=f"{', '.join(table)}; or add {add}")


def as_kind(config: T, name: str, kind: str) -> T:
    """The config with a field of another kind; settings that both kinds have keep their values."""
    table = kinds_of(config)[name].metadata["kinds"]
    choice(name, kind, table)
    old, new = getattr(config, name), table[kind]()
    known = {field.name for field in dataclasses.fields(old) if field.init}
    both = {f.name: getattr(old, f.name) for f in dataclasses.fields(new) if f.name in known}
    return dataclasses.replace(config, **{name: dataclasses.replace(new, **both)})  # type: ignore[type-var]


# --- fields -----------------------------------------------------------------------------------


def hints(cls: type) -> dict[str, Any]:
    """Field to its resolved type."""
    resolved = typing.get_type_hints(cls)
    return {f.name: resolved[f.name] for f in dataclasses.fields(cls) if f.init}


def leaves(cls: type, default: Any = None) -> dict[str, Any]:
    """Dotted field to its type, for every setting below a dataclass."""
    found: dict[str, Any] = {}
    for name, hint in hints(cls).items():
        value = getattr(default, name, None)
        nested = type(value) if dataclasses.is_dataclass(value) else hint
        if dataclasses.is_dataclass(nested) and isinstance(nested, type):
            found |= {f"{name}.{rest}": leaf for rest, leaf in leaves(nested, value).items()}
        else:
            found[name] = hint
    return found


def options(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a type: members of a union, otherwise the type alone."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(part for member in typing.get_args(hint) for part in options(member))
    return (hint,)


def flattened(settings: Any) -> dict[str, Any]:
    """Returns dotted name to value, for a dataclass or a mapping and all that is nested in it."""
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
    """The config with some dotted fields changed; an unknown one is a `UsageError`."""
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
    """Returns the settings that differ: (dotted name, old value, new value)."""
    before, after = flattened(old), flattened(new)
    return [
        (name, before.get(name), after.get(name))
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def differences(old: Any, new: Any) -> list[str]:
    """Returns `diff` in words, sorted by name: "filters.min_side (was 256, is 512)"."""
    changes = sorted(diff(old, new), key=lambda change: change[0])
    return [f"{name} (was {before!r}, is {after!r})" for name, before, after in changes]


# --- JSON -------------------------------------------------------------------------------------


def to_json(config: Any) -> dict[str, Any]:
    """Returns the config as plain JSON values."""
    values = {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    for name, field in kinds_of(config).items():
        values[name] = {KIND: kind_of(field, getattr(config, name)), **values[name]}
    return values


def plain(value: Any) -> Any:
    """Returns a setting as JSON has it. Sets, which have no order of their own, become sorted
    lists, so that the result is the same in every process."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(value)
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(inner) for inner in value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def from_json(cls: type[T], data: Mapping[str, Any]) -> T:
    """The inverse of `to_json`. Absent fields take their defaults; unknown ones are an error."""
    return cls(**typed(cls, data))


def typed(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Values as the fields of `cls` have them: whole numbers to floats, lists to tuples."""
    types_of = hints(cls)
    for name in data:
        if name not in types_of:
            raise unknown_name(name, types_of)
    values = {name: _typed(types_of[name], value) for name, value in data.items()}
    for name, field in kinds_of(cls).items():
        if isinstance(data.get(name), Mapping):
            values[name] = from_kind(field, data[name])
    return values


def from_kind(field: dataclasses.Field[Any], data: Mapping[str, Any]) -> Any:
    """The instance that JSON describes, of the class that its `KIND` names."""
    default: Any = field.default_factory
    table, kind = field.metadata["kinds"], data.get(KIND) or kind_of(field, default())
    choice(field.name, kind, table)
    return from_json(table[kind], {name: v for name, v in data.items() if name != KIND})


def _typed(hint: Any, value: Any) -> Any:
    for option in options(hint):
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return from_json(option, value)  # type: ignore[arg-type]
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            arguments = typing.get_args(option)
            return tuple(_typed(arguments[0], item) for item in value)
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
    return value
