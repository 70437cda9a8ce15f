"""Parses ``--name value`` arguments of the command line into a config dataclass.

Tyro converts the values and prints the help. Before that, this module resolves short names and `-`
for `_`, separates the words that belong to no option, and rejects wrong values with a `UsageError`
that states the field, the value and the valid values.
"""

from __future__ import annotations

import contextlib
import io
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pinxit import garbage_collection
from pinxit.cli.habits import Habits, advice_for
from pinxit.config import (
    T,
    UsageError,
    as_kind,
    kinds_of,
    leaves,
    options,
    replace,
    unknown_name,
)

TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off")


def parse(
    cls: type[T],
    argv: Sequence[str],
    *,
    default: T | None = None,
    aliases: Mapping[str, str] | None = None,
    prog: str = "pinxit",
    description: str | None = None,
    positional: str | None = None,
    habits: Habits | None = None,
) -> T:
    """Returns `default` with the settings changed that `--name value` arguments name.

    Names may be dotted or aliases, with `-` or `_`. Booleans take 0, 1, true, false or no value.
    Words that belong to no option go to the field `positional`, before the words of its option.
    `--help` prints help and exits. `habits` names our settings for names of other programs, in the
    error for an unknown name.
    """
    import tyro

    aliases = dict(aliases or {})
    if default is not None:
        default, argv = _with_kinds(default, argv)
    types_of = leaves(cls, default)
    values_of, words = _read(argv, types_of, aliases, habits or {})
    if words and positional is None:
        problem = "not an option (options start with --)"
        raise UsageError("argument", words[0], problem=problem)
    arguments = [part for name, values in values_of.items() for part in (f"--{name}", *values)]
    if any(word in ("-h", "--help") for word in argv):
        arguments = ["--help"]
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            config = tyro.cli(
                cls,
                args=arguments,
                default=default,
                prog=prog,
                description=_described(default or cls, description, aliases),
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise _refusal(_one_line(box.getvalue()), types_of, values_of) from None
    if positional is not None and words:
        words += values_of.get(positional, [])
        config = replace(config, {positional: tuple(words)})
    garbage_collection.resume()  # most modules are imported by now
    return config


def typed_names(
    cls: type[T],
    argv: Sequence[str],
    *,
    default: T,
    aliases: Mapping[str, str] | None = None,
) -> set[str]:
    """Returns the dotted names of the settings that arguments name, which `parse` has accepted."""
    default, rest = _with_kinds(default, argv)
    return set(_read(rest, leaves(cls, default), dict(aliases or {}), {})[0])


def _with_kinds(default: T, argv: Sequence[str]) -> tuple[T, list[str]]:
    """Applies the words that choose a kind (``--objective huber``) to the default.

    Returns the changed default and the other words.
    """
    kinds = kinds_of(default)
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return default, [*rest, word, *words]
        name, equals, value = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not word.startswith("--") or name not in kinds:
            rest.append(word)
            continue
        default = as_kind(default, name, value if equals else next(words, ""))
    return default, rest


def _read(
    argv: Sequence[str],
    types_of: Mapping[str, Any],
    aliases: Mapping[str, str],
    habits: Habits,
) -> tuple[dict[str, list[str]], list[str]]:
    """Splits arguments into options and words that belong to no option.

    Returns the options' values by dotted name, of which the last occurrence counts, and the words.
    """
    values_of: dict[str, list[str]] = {}
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
        written = name.replace("-", "_")
        dotted = aliases.get(written, written)
        if dotted not in types_of:
            typed = value if equals or not rest or rest[0].startswith("--") else rest[0]
            instead = advice_for(habits, written, typed)
            raise unknown_name(written, [*types_of, *aliases], instead=instead)
        if equals:
            values = [value]
        else:
            values, rest = _take(rest, types_of[dotted], written)
        values_of[dotted] = [_checked(written, item, types_of[dotted]) for item in values]
    return values_of, words


def _take(rest: list[str], hint: Any, name: str) -> tuple[list[str], list[str]]:
    """Splits `rest` into the values of the option `name`, whose type is `hint`, and the others."""
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
    """Returns the word in tyro's spelling, or raises `UsageError` if it is not of this type."""
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
                # "1e4" and "2000.0" are integers too
                number = float(word)
                if element is float:
                    return word
                if number.is_integer():
                    return str(int(word)) if word.lstrip("+-").isdigit() else str(int(number))
    raise UsageError(name, word, problem="not understood", valid=_expected(hint))


def _is_open(kind: Any) -> bool:
    """Returns whether tyro alone can parse a type."""
    return kind is not type(None) and typing.get_origin(kind) is not Literal


def _expected(hint: Any) -> str:
    """Describes a type in words, for error messages."""
    words = {int: "an integer", float: "a number", bool: "0, 1, true, false", str: "text"}
    choices = []
    for kind in options(hint):
        if typing.get_origin(kind) is Literal:
            choices += [str(item) for item in typing.get_args(kind)]
        elif typing.get_origin(kind) is tuple:
            choices.append(_expected_of_tuple(typing.get_args(kind), words))
        else:
            choices.append("none" if kind is type(None) else words.get(kind, str(kind)))
    return ", ".join(choices)


def _expected_of_tuple(elements: tuple[Any, ...], words: Mapping[Any, str]) -> str:
    """Describes the values of an option that takes several."""
    first, several = elements[0], elements[-1] is Ellipsis
    if typing.get_origin(first) is tuple:
        count = len(typing.get_args(first))
        return f"{count} values, or a multiple of {count}"
    kind = words.get(first, "value")
    return f"{kind}, one or more" if several else f"{kind}, {len(elements)} times"


def _described(cls: Any, description: str | None, aliases: Mapping[str, str]) -> str:
    text = description or (cls.__doc__ or "").strip()
    for name, field in kinds_of(cls).items():
        text += f"\n\nKinds of {name}: --{name} {'|'.join(field.metadata['kinds'])}."
    if aliases:
        short = ", ".join(f"--{name} = --{dotted}" for name, dotted in aliases.items())
        text += f"\n\nShort names: {short}."
    return text


def _refusal(
    line: str, types_of: Mapping[str, Any], values_of: Mapping[str, list[str]]
) -> UsageError:
    """Returns tyro's message as an error. Says in our words that an option has too few or too many
    values."""
    match = re.search(r"(?:^Error parsing |argument ')--([\w.]+)", line)
    name = match[1] if match else ""
    if name not in types_of:
        return UsageError(line)
    value = tuple(values_of.get(name, ()))
    return UsageError(name, value, problem="not understood", valid=_expected(types_of[name]))


def _one_line(box: str) -> str:
    """Returns the message inside tyro's error box, which has ASCII borders for ASCII output."""
    lines = [line.strip("│ ") for line in box.splitlines()]
    sections: list[list[str]] = [[]]
    for line in lines:
        if line and set(line) <= set("─-"):
            sections.append([])
        elif line and not line.startswith(("╭", "╰")):
            sections[-1].append(line)
    titled = "╭" not in box and len(sections) > 1  # in ASCII the title is a separate section
    text = " ".join(sections[1 if titled else 0])
    if text.startswith("Error parsing ") and not text.startswith("Error parsing --"):
        # A dataclass rejected its values: prefix its message with the path of the dataclass.
        where, _, text = text.removeprefix("Error parsing ").partition(": ")
        if re.match(r"[a-z_]+: ", text) and re.fullmatch(r"[a-z_.]+", where):
            text = f"{where}.{text}"
    return text
