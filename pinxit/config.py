"""Configuration: frozen dataclasses, read from the command line and from JSON.

A setting has one name everywhere, its dotted path: ``--model.patch_size 4`` on the command line and
``{"model": {"patch_size": 4}}`` in a run's ``config.json`` are ``config.model.patch_size``. Short
names (``--learning_rate``) are aliases of a dotted path. Whatever is wrong with an input ends in
one `UsageError`: the field, the value, and what would be valid.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Number = int | float
"""A number that need not be whole; 7 is as good as 7.0."""

TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off")


class UsageError(ValueError):
    """A wrong input: which field, what value, and what is valid."""

    def __init__(
        self, field: str, value: Any, *, valid: Sequence[Any] | str = (), problem: str = "unknown"
    ) -> None:
        self.field = field
        self.value = value
        self.valid = valid
        known = valid if isinstance(valid, str) else ", ".join(str(choice) for choice in valid)
        message = f"{field}: {value!r} is {problem}"
        super().__init__(f"{message}; valid: {known}" if known else message)


def positive(field: str, value: Number | None, *, minimum: Number = 1) -> None:
    """Raises unless `value` is at least `minimum` (None passes: the setting is absent)."""
    if value is not None and not value >= minimum:
        raise UsageError(field, value, problem="too small", valid=f"at least {minimum}")


def choice(field: str, value: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    """Raises unless `value` is one of the `known` names."""
    if value not in known:
        raise UsageError(field, value, valid=list(known))


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


def flatten(settings: Any) -> dict[str, Any]:
    """Returns dotted name to value, for a dataclass or a mapping and all that is nested in it."""
    named = settings
    if not isinstance(settings, Mapping):
        named = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    flat: dict[str, Any] = {}
    for name, value in named.items():
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            flat |= {f"{name}.{rest}": leaf for rest, leaf in flatten(value).items()}
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
            known = [f"{prefix}{name}" for name in flatten(config)]
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
    before, after = flatten(old), flatten(new)
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
    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


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
    return {name: _typed(types_of[name], value) for name, value in data.items()}


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


# --- the command line -------------------------------------------------------------------------


def parse(
    cls: type[T],
    argv: Sequence[str],
    *,
    default: T | None = None,
    aliases: Mapping[str, str] | None = None,
    prog: str = "pinxit",
    description: str | None = None,
    positional: str | None = None,
) -> T:
    """A config from `--name value` arguments over `default`.

    Names may be dotted or aliases, with `-` or `_`; booleans take 0, 1, true, false or nothing.
    Words that belong to no option go to the field `positional`. Prints help and exits on `--help`.
    """
    import tyro

    aliases = dict(aliases or {})
    types_of = leaves(cls, default)
    given, words = _read(argv, types_of, aliases)
    if words and positional is None:
        problem = "not an option (options start with --)"
        raise UsageError("argument", words[0], problem=problem)
    arguments = [part for name, values in given.items() for part in (f"--{name}", *values)]
    if any(word in ("-h", "--help") for word in argv):
        arguments = ["--help"]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config = tyro.cli(
                cls,
                args=arguments,
                default=default,
                prog=prog,
                description=_described(cls, description, aliases),
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_one_line(said.getvalue())) from None
    if positional is not None and words:
        config = replace(config, {positional: tuple(words)})
    return config


def _read(
    argv: Sequence[str], types_of: Mapping[str, Any], aliases: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Options by dotted name (the last one wins), and the words that are no option's value."""
    given: dict[str, list[str]] = {}
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if not word.startswith("--"):
            if word != "-h":
                words.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if name == "help":
            continue
        shown = name.replace("-", "_")
        dotted = aliases.get(shown, shown)
        if dotted not in types_of:
            raise unknown_name(shown, [*types_of, *aliases])
        if equals:
            values = [value]
        else:
            values, rest = _take(rest, types_of[dotted], shown)
        given[dotted] = [_checked(shown, item, types_of[dotted]) for item in values]
    return given, words


def _take(rest: list[str], hint: Any, name: str) -> tuple[list[str], list[str]]:
    """The words that belong to an option of this type, and what remains."""
    kinds = options(hint)
    until = next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))
    none = bool(until) and type(None) in kinds and rest[0].lower() == "none"
    for kind in kinds:
        if typing.get_origin(kind) is tuple and until and not none:
            sizes = typing.get_args(kind)
            count = until if Ellipsis in sizes else min(len(sizes), until)
            return rest[:count], rest[count:]
    if bool in kinds and (not until or not _is_choice(rest[0], kinds)):
        return ["true"], rest
    if not until:
        if any(typing.get_origin(kind) is tuple for kind in kinds):
            return [], rest
        raise UsageError(name, "", problem="missing its value", valid=_expected(hint))
    return rest[:1], rest[1:]


def _is_choice(word: str, kinds: Sequence[Any]) -> bool:
    names = [item for kind in kinds for item in typing.get_args(kind)]
    return word.lower() in (*TRUE, *FALSE) or word in names or word.lower() == "none"


def _checked(name: str, word: str, hint: Any) -> str:
    """The word as tyro spells it; a `UsageError` when it cannot be of this type."""
    kinds = options(hint)
    low = word.lower()
    if type(None) in kinds and low in ("none", "null"):
        return "None"
    for kind in kinds:
        if kind is bool and low in (*TRUE, *FALSE):
            return str(low in TRUE)
        if typing.get_origin(kind) is Literal and word in map(str, typing.get_args(kind)):
            return word
        element = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind
        if element is str or (element not in (int, float, bool) and _is_open(element)):
            return word
        if element in (int, float):
            with contextlib.suppress(ValueError):
                # "1e4" and "2000.0" are whole numbers too
                number = float(word)
                if element is float:
                    return word
                if number.is_integer():
                    return str(int(word)) if word.lstrip("+-").isdigit() else str(int(number))
    raise UsageError(name, word, problem="not understood", valid=_expected(hint))


def _is_open(kind: Any) -> bool:
    """Whether only tyro knows how to read a type."""
    return kind is not type(None) and typing.get_origin(kind) is not Literal


def _expected(hint: Any) -> str:
    """The type in words."""
    words = {int: "an integer", float: "a number", bool: "0, 1, true, false", str: "text"}
    said = []
    for kind in options(hint):
        if typing.get_origin(kind) is Literal:
            said += [str(item) for item in typing.get_args(kind)]
        elif typing.get_origin(kind) is tuple:
            said.append(f"{words.get(typing.get_args(kind)[0], 'value')}, one or more")
        else:
            said.append("none" if kind is type(None) else words.get(kind, str(kind)))
    return ", ".join(said)


def unknown_name(name: str, known: Sequence[str] | Mapping[str, Any]) -> UsageError:
    """The error for a setting that does not exist, with the nearest that do."""
    tail = name.rpartition(".")[2]
    near = [full for full in known if full.rpartition(".")[2] == tail]
    near += [full for full in known if full.startswith(name)]
    near += difflib.get_close_matches(name, list(known), n=4, cutoff=0.5)
    inside = [full for full in known if full.startswith(name.partition(".")[0] + ".")]
    valid = list(dict.fromkeys(near)) or inside or [full for full in known if "." not in full]
    return UsageError("setting", name, valid=valid)


def _described(cls: type, description: str | None, aliases: Mapping[str, str]) -> str:
    text = description or (cls.__doc__ or "").strip()
    if aliases:
        short = ", ".join(f"--{name} = --{dotted}" for name, dotted in aliases.items())
        text += f"\n\nShort names: {short}."
    return text


def _one_line(box: str) -> str:
    """The message inside tyro's error box."""
    body = []
    for line in box.splitlines():
        line = line.strip("│ ").strip()
        if line.startswith(("╭", "╰")):
            continue
        if line.startswith("─"):
            break
        body.append(line)
    text = " ".join(body)
    if text.startswith("Error parsing ") and not text.startswith("Error parsing --"):
        # a dataclass refused its values: its own message says everything
        text = text.partition(": ")[2]
    return text
