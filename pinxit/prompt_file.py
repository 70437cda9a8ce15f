"""Reads files of prompts, one on each line, with kohya's options after a prompt.

::

    # comments begin with a hash
    a red house --w 512 --h 384 --d 7 --s 20 --l 7.5 --n low quality
    a blue tent

An option is two hyphens and one of the names in `LINE_OPTIONS`, in any case, with white space
before and after it. Its value extends to the next option or the end of the line. Two hyphens before
anything else belong to the text ("a house -- red"), except that names of options of kohya's scripts
and of `pinxit generate` that do not work in a line are errors (`OTHER_OPTIONS`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.config import UsageError, positive
from pinxit.picture_size import parse_size
from pinxit.sampling import check_seed
from pinxit.text_decoding import (
    UnknownEncoding,
    announced_encoding,
    decode_text,
    known_encoding,
    split_lines,
)

COMMENT = "#"
"""The first character of a line that is a comment."""
LINE_OPTIONS = {
    "w": "width",
    "h": "height",
    "size": "size",
    "d": "seed",
    "s": "steps",
    "l": "guidance_scale",
    "n": "negative_prompt",
}
"""The options of a line, with our names of the settings."""
OTHER_OPTIONS = {
    "width": "--w",
    "height": "--h",
    "seed": "--d",
    **dict.fromkeys(("steps", "num_inference_steps"), "--s"),
    **dict.fromkeys(("guidance_scale", "cfg_scale", "scale", "cfg"), "--l"),
    **dict.fromkeys(("negative_prompt", "negative", "neg"), "--n"),
    **dict.fromkeys(("g", "guidance"), "--l, the scale of classifier-free guidance"),
    **dict.fromkeys(("ss", "solver", "sampler"), "--solver on the command line"),
    **dict.fromkeys(("fs", "shift"), "--shift on the command line"),
    **dict.fromkeys(("i", "image"), "--image on the command line"),
    **dict.fromkeys(("t", "strength"), "--strength on the command line"),
    **dict.fromkeys(("f", "cn", "ctr", "rcfg", "am", "nl", "te", "ow", "oh", "nw", "nh"), ""),
    **dict.fromkeys(("ct", "cl", "c", "r", "glt", "glr", "gls", "gle", "dsd1", "dsd2", "dsr"), ""),
}
"""Options of other programs and of the command line that a line does not take, with what to use
instead."""
OPTION = re.compile(r"(?<!\S)--([A-Za-z][A-Za-z0-9_]*)(?=\s|$)")


@dataclass(frozen=True)
class PromptLine:
    """A prompt with the settings of its line; None means that the line does not set it."""

    prompt: str
    """The text that the picture shows."""
    where: str = ""
    """The file and the number of the line, for messages."""
    negative_prompt: str | None = None
    """The text that guidance steers away from."""
    width: int | None = None
    """The width of the pictures, in pixels."""
    height: int | None = None
    """The height of the pictures, in pixels."""
    seed: int | None = None
    """The seed of the first picture; the next is drawn from seed + 1."""
    steps: int | None = None
    """The number of solver steps."""
    guidance_scale: float | None = None
    """Strength of classifier-free guidance; 1 turns it off."""

    def size(self, default: tuple[int, int]) -> tuple[int, int]:
        """Returns (width, height), with the sides of `default` where the line has none."""
        return self.width or default[0], self.height or default[1]

    def sampling(self) -> dict[str, Any]:
        """Returns the sampling settings of the line, by the names of `Sampling`."""
        values = {"steps": self.steps, "guidance_scale": self.guidance_scale}
        return {name: value for name, value in values.items() if value is not None}


def read_prompt_file(file: str | Path, encoding: str | None = None) -> list[PromptLine]:
    """Returns the prompts of a text file, without its blank lines and comments.

    The file is UTF-8 or UTF-16, or else in the given `encoding`. Raises `UsageError`, which names
    the file and the line, for bytes that are neither, for wrong options, and for a file without
    prompts.
    """
    encoding = known_encoding("text_encoding", encoding)
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError("prompts_file", str(file), problem="not a file", valid="a text file")
    data = path.read_bytes()
    try:
        text = decode_text(data, fallback=encoding)
    except UnknownEncoding as error:
        place = f"{file}, line {_faulty_line(data, encoding)}" if _has_lines(data) else file
        advice = "" if encoding else "; name its encoding with --text_encoding, such as cp1252"
        raise UsageError(f"prompts_file: {place}: {error}{advice}") from error
    lines = parse_prompt_lines(text, name=str(file))
    if not lines:
        problem = "empty" if not data else "without prompts: all lines are blank or comments"
        raise UsageError(
            "prompts_file", str(file), problem=problem, valid="one prompt on each line"
        )
    return lines


def parse_prompt_lines(text: str, *, name: str = "prompts") -> list[PromptLine]:
    """Returns the prompts in a text, which messages call `name`. Raises the errors of a file."""
    lines = enumerate((line.strip() for line in split_lines(text)), start=1)
    return [
        parse_prompt_line(line, where=f"{name}, line {number}")
        for number, line in lines
        if line and not line.startswith(COMMENT)
    ]


def parse_prompt_line(line: str, *, where: str = "") -> PromptLine:
    """Returns one prompt with its settings. Messages of a `UsageError` begin with `where`."""
    try:
        prompt, values = _split_options(line)
        return PromptLine(prompt, where, **_settings(values))
    except UsageError as error:
        raise UsageError(f"{where}: {error}" if where else str(error)) from error


def _split_options(line: str) -> tuple[str, dict[str, str]]:
    """Returns the prompt of a line and the texts of its options, by name."""
    names = {*LINE_OPTIONS, *OTHER_OPTIONS}
    matches = [match for match in OPTION.finditer(line) if match[1].lower() in names]
    known = ", ".join(f"--{name}" for name in LINE_OPTIONS)
    starts = [*(match.start() for match in matches), len(line)]
    values: dict[str, str] = {}
    for match, end in zip(matches, starts[1:], strict=True):
        name = match[1].lower()  # kohya's scripts ignore case
        if name in OTHER_OPTIONS:
            instead = OTHER_OPTIONS[name]
            valid = f"{instead}; the options of a line are {known}" if instead else known
            raise UsageError("option", f"--{name}", problem="not one of a line", valid=valid)
        if name in values:
            raise UsageError("option", f"--{name}", problem="there twice", valid="once")
        values[name] = line[match.end() : end].strip()
        if not values[name]:
            raise UsageError(f"--{name}", "", problem="missing its value")
    prompt = line[: starts[0]].strip()
    if not prompt:
        problem = "without a prompt"
        raise UsageError("line", line, problem=problem, valid="a prompt, then its options")
    return prompt, values


def _settings(values: Mapping[str, str]) -> dict[str, Any]:
    """Returns the checked settings of a line from the texts of its options."""
    settings: dict[str, Any] = {}
    for name, text in values.items():
        field = f"--{name}"
        if name in ("w", "h", "s"):
            settings[LINE_OPTIONS[name]] = number = _parsed(int, field, text, "a whole number")
            positive(field, number)
        elif name == "d":
            settings["seed"] = _parsed(int, field, text, "a whole number")
            check_seed(field, settings["seed"])
        elif name == "l":
            settings["guidance_scale"] = scale = _parsed(float, field, text, "a number")
            if not (math.isfinite(scale) and scale >= 0):
                raise UsageError(field, text, problem="out of range", valid="at least 0")
        elif name == "n":
            settings["negative_prompt"] = text
        else:
            size = parse_size(text, field=field)
            both = (size, size) if isinstance(size, int) else size
            if other := [f"--{side}" for side in "wh" if side in values]:
                problem = f"beside {other[0]}"
                raise UsageError(field, text, problem=problem, valid="one of the two")
            settings["width"], settings["height"] = both
    return settings


def _parsed(kind: Callable[[str], Any], field: str, text: str, valid: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise UsageError(field, text, problem="not understood", valid=valid) from None


def _has_lines(data: bytes) -> bool:
    """Returns whether lines can be told apart in the bytes, as in every encoding but UTF-16."""
    return announced_encoding(data)[0] in (None, "utf-8")


def _faulty_line(data: bytes, encoding: str | None) -> int:
    """Returns the number of the first line that cannot be decoded, counted from 1."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            line.decode(encoding or "utf-8")
        except UnicodeDecodeError:
            return number
    return len(lines)
