"""Settings from the command line: ``--name value`` arguments become a config dataclass.

Tyro reads the values and prints the help. This module comes first: it resolves short names and `-`
for `_`, separates the words that belong to no option, and refuses wrong values with a `UsageError`
that names the field, the value and what is valid.
"""

from __future__ import annotations

import contextlib
import io
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

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
) -> T:
    """A config from `--name value` arguments over `default`.

    Names may be dotted or aliases, with `-` or `_`; booleans take 0, 1, true, false or nothing.
    Words that belong to no option go to the field `positional`. Prints help and exits on `--help`.
    """
    import tyro

    aliases = dict(aliases or {})
    if default is not None:
        default, argv = _with_kinds(default, argv)
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
                description=_described(default or cls, description, aliases),
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_one_line(said.getvalue())) from None
    if positional is not None and words:
        config = replace(config, {positional: tuple(words)})
    return config


def _with_kinds(default: T, argv: Sequence[str]) -> tuple[T, list[str]]:
    """The default with the kinds that the words name (``--objective huber``), and the others."""
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


def _described(cls: Any, description: str | None, aliases: Mapping[str, str]) -> str:
    text = description or (cls.__doc__ or "").strip()
    for name, field in kinds_of(cls).items():
        text += f"\n\nKinds of {name}: --{name} {'|'.join(field.metadata['kinds'])}."
    if aliases:
        short = ", ".join(f"--{name} = --{dotted}" for name, dotted in aliases.items())
        text += f"\n\nShort names: {short}."
    return text


def _one_line(box: str) -> str:
    """The message inside tyro's error box, which is drawn in ASCII where the output is."""
    lines = [line.strip("│ ") for line in box.splitlines()]
    sections: list[list[str]] = [[]]
    for line in lines:
        if line and set(line) <= set("─-"):
            sections.append([])
        elif line and not line.startswith(("╭", "╰")):
            sections[-1].append(line)
    titled = "╭" not in box and len(sections) > 1  # in ASCII the title has a section of its own
    text = " ".join(sections[1 if titled else 0])
    if text.startswith("Error parsing ") and not text.startswith("Error parsing --"):
        # A dataclass refused its values, and its own message says everything but where it stands.
        where, _, text = text.removeprefix("Error parsing ").partition(": ")
        if re.match(r"[a-z_]+: ", text) and re.fullmatch(r"[a-z_.]+", where):
            text = f"{where}.{text}"
    return text
