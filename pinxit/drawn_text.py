"""Draws text of any script into pictures, with the fonts that the system has.

DejaVu Sans comes with matplotlib and covers Latin, Greek, Cyrillic, Arabic and more, but not
Chinese, Japanese, Korean, Thai and Indian scripts. For characters that it lacks, the first
installed font that has them is used. Characters that no font has are never drawn as boxes: a note
in brackets says how many there are and of which script.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont
MISSING = re.compile(r"\?(?:[? ]*\?)?")
"""A run of characters that no font has, with the spaces between them, where they are marked ?."""


def draw_text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, *, size: int, fill: str
) -> None:
    """Draws one line of text whose upper left corner is `at`."""
    left, top = float(at[0]), at[1] + size  # all fonts share the base line
    for font, run in _runs(drawable(text), size):
        draw.text((left, top), run, fill=fill, font=font, anchor="ls")
        left += font.getlength(run)


def text_width(text: str, size: int) -> float:
    """Returns the width of one line of text, in pixels."""
    return sum(font.getlength(run) for font, run in _runs(drawable(text), size))


def wrapped(text: str, *, width: int, size: int, lines: int | None = None) -> list[str]:
    """Splits a text into lines of at most `width` pixels, at white space where there is any.

    Of a text that needs more than `lines` lines, the rest is cut off, which an ellipsis shows.
    """
    result, line = [], ""
    for part in _parts(drawable(text), width=width, size=size):
        if line and text_width((line + part).rstrip(), size) > width:
            result.append(line.rstrip())
            line = ""
        line += part if line else part.lstrip()
    result.append(line.rstrip())
    if lines is not None and len(result) > lines:
        last = result[lines - 1]
        while last and text_width(f"{last}…", size) > width:
            last = last[:-1]
        result = [*result[: lines - 1], f"{last.rstrip()}…"]
    return result


def drawable(text: str) -> str:
    """Returns the text with each run of characters that no font has replaced by a note, with spaces
    for control characters, and without invisible ones."""
    text = "".join(_visible(character) for character in text)
    pieces, end = [], 0
    marks = "".join("?" if font_file(c) is None else " " if c == " " else "." for c in text)
    for match in MISSING.finditer(marks):
        pieces += [text[end : match.start()], _note(text[match.start() : match.end()])]
        end = match.end()
    return "".join([*pieces, text[end:]])


def _visible(character: str) -> str:
    """Returns a character as it is drawn."""
    category = unicodedata.category(character)
    if category in ("Cc", "Zl", "Zp", "Zs"):
        return " "
    return "" if category == "Cf" else character


def _note(run: str) -> str:
    """Describes characters that no font has: "[14 CJK characters]"."""
    characters = [c for c in run if c != " "]
    if all(unicodedata.category(c).startswith("S") for c in characters):
        return f"[{len(characters)} {'symbol' if len(characters) == 1 else 'symbols'}]"
    letters = [c for c in characters if c.isalpha()] or characters
    names = [unicodedata.name(c, "UNKNOWN").partition(" ")[0] for c in letters]
    scripts = [name if len(name) < 4 else name.capitalize() for name in dict.fromkeys(names)]
    noun = "character" if len(characters) == 1 else "characters"
    return f"[{len(characters)} {'/'.join(scripts[:3])} {noun}]"


def _parts(text: str, *, width: int, size: int) -> Iterator[str]:
    """Yields words with the white space after them; words that are too long, by character."""
    for is_space, group in itertools.groupby(text, key=str.isspace):
        run = "".join(group)
        if is_space:
            yield " "
        elif text_width(run, size) <= width:
            yield run
        else:
            yield from run


@lru_cache(maxsize=4096)
def font_file(character: str) -> str | None:
    """Returns the path of the first font that has a character, or None if no font has it."""
    point = ord(character)
    if point in _characters(str(_default())):
        return str(_default())
    return next((path for path in _installed() if point in _characters(path)), None)


def _default() -> Path:
    """Returns the path of DejaVu Sans, which comes with matplotlib."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@lru_cache(maxsize=1)
def _installed() -> Sequence[str]:
    """Returns the paths of the installed fonts: upright ones of regular weight first."""
    from matplotlib import font_manager

    def rank(path: str) -> tuple[bool, str]:
        name = Path(path).stem.lower()
        return ("regular" not in name and "-" in name, path)

    return sorted(font_manager.findSystemFonts(), key=rank)


@lru_cache(maxsize=512)
def _characters(path: str) -> frozenset[int]:
    """Returns the code points that a font has. A font that cannot be drawn in any size has none."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        ImageFont.truetype(path, 12)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):  # not a font that these libraries read
        return frozenset()


@lru_cache(maxsize=64)
def _font(path: str, size: int) -> Font:
    return ImageFont.truetype(path, size)


def _runs(text: str, size: int) -> Iterator[tuple[Font, str]]:
    """Yields the parts of a text that one font can draw."""
    for path, group in itertools.groupby(text, key=font_file):
        yield _font(path or str(_default()), size), "".join(group)
