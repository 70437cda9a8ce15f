"""Reads prompts from a text file, one on each line."""

from __future__ import annotations

from pathlib import Path

from pinxit.config import UsageError
from pinxit.text_decoding import (
    UnknownEncoding,
    announced_encoding,
    decode_text,
    known_encoding,
    split_lines,
)


def read_prompts(file: str, encoding: str | None = None) -> list[str]:
    """Returns the lines of a text file that are not blank, without white space around them.

    The file is UTF-8 or UTF-16, or else in the given `encoding`. Raises `UsageError`, which names
    the file and the line, for bytes that are neither, and for a file without prompts.
    """
    encoding = known_encoding("text_encoding", encoding)
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError("prompts_file", file, problem="not a file", valid="a text file")
    data = path.read_bytes()
    try:
        text = decode_text(data, fallback=encoding)
    except UnknownEncoding as error:
        place = f"{file}, line {_faulty_line(data, encoding)}" if _has_lines(data) else file
        advice = "" if encoding else "; name its encoding with --text_encoding, such as cp1252"
        raise UsageError(f"prompts_file: {place}: {error}{advice}") from error
    prompts = [line.strip() for line in split_lines(text)]
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        problem = "empty" if not data else "without prompts: all lines are blank"
        raise UsageError("prompts_file", file, problem=problem, valid="one prompt on each line")
    return prompts


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
