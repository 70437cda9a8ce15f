r"""Captions cleaned of what web pages leave in them: links, file names, article numbers, mojibake.

A stock diffusers PRX pipeline cleans every prompt before it reads it. A model trained on captions
that went through `clean_caption` sees the same text at both ends: the result equals the pipeline's
for every string. Cleaning is a list of steps, each applied once to what the step before left. It
is not idempotent: ``100%2525`` becomes ``100%25``, and that ``100%``.

Captions come from strangers, so every pattern here reads a caption once, whatever it is made of:
a hundred kilobytes of dots or digits are no trap. The one exception is ftfy, which undoes nested
full-width entities one level at a time.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_plus

from pinxit.config import choice

FILE_TYPES = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
DASHES = (
    r"\-\u058A\u05BE\u1400\u1806\u2010-\u2015\u2E17\u2E1A\u2E3A\u2E3B\u2E40"
    r"\u301C\u3030\u30A0\uFE31\uFE32\uFE58\uFE63\uFF0D"
)
"""Unicode's dash punctuation as of version 12, inside a character class."""
SCHEME = r"(?:https?|www):"
HOST = r"[a-z0-9.-]"
LINK = (
    rf"\b(?:{SCHEME}(?:/{{1,3}}|[a-z0-9%])"
    rf"|{HOST}+\.(?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
    # No link begins in the rest of this run of host characters, except by a scheme: step over it.
    rf"|({HOST}+?(?={SCHEME}|(?!{HOST}))))"
)
"""The scheme of a link, or a host of a common domain with its path; else group 1, to be kept."""


@dataclass(frozen=True)
class Rule:
    """Replaces every match of a pattern."""

    what: str
    """What the pattern finds, and why it should not reach the text encoder as it is."""
    pattern: str
    replacement: str = ""

    def __call__(self, text: str) -> str:
        return re.sub(self.pattern, self.replacement, text)


def clean_caption(text: str) -> str:
    """The caption as a stock PRX pipeline reads it, possibly empty; see `STEPS`."""
    for step in STEPS:
        text = step(text)
    return text


def light_clean(text: str) -> str:
    """Mojibake repaired, HTML entities decoded (twice encoded ones too), stripped.

    This is what a stock PRX pipeline does with its cleaning switched off.
    """
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def keep(text: str) -> str:
    """The caption as it is."""
    return text


def split_slug(text: str) -> str:
    """A space for each hyphen and underscore where there are four or more: names of files."""
    words, joints = re.subn("[-_]", " ", text)
    return words if joints > 3 else text


STEPS: tuple[Callable[[str], str], ...] = (
    # As a web page wrote it.
    unquote_plus,  # "red%20car", "red+car"
    str.strip,
    str.lower,
    Rule("a placeholder for names, an ordinary word without its brackets", "<person>", "person"),
    Rule("links; they say nothing of the picture", LINK, r"\1"),
    Rule("user names", r"@\w+"),
    Rule("Chinese characters and the squared symbols before them", r"[\u31c0-\u9fff]+"),
    Rule("dashes; one kind is enough", f"[{DASHES}]+", "-"),
    Rule("marks that stand for quotes", "[`\u00b4«»¨]", '"'),
    Rule("a quote mark left encoded", "&quot;?"),
    Rule("an ampersand left encoded; its semicolon stays", "&amp"),
    Rule("addresses of machines", r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),
    Rule("a time of day or a page number at the end, before white space", r"\d:\d\d\s+$"),
    Rule("a line break that somebody escaped", r"\\n", " "),
    Rule("numbers of pictures and articles, but not four digits: a year", r"#(?:\d{1,3}|\d{5,})\b"),
    Rule("long numbers", r"\b\d{6,}\b"),
    Rule("file names, up to the last ending in the word", rf"(?<!\S)\S+\.(?:{FILE_TYPES})"),
    Rule("quotes in a row", "[\"']{2,}", '"'),
    Rule("dots in a row", r"\.{2,}", " "),
    Rule("marks of decoration, brackets and slashes", r"[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+", " "),
    Rule("a dot alone", r"(?<!\s)\s+\.\s+", " "),
    split_slug,
    # As it was meant.
    light_clean,
    Rule("article codes: ab1234", r"\b[a-zA-Z]{1,3}\d{3,15}\b"),
    Rule("article codes: ab12cd", r"\b[a-zA-Z]+\d+[a-zA-Z]+\b"),
    Rule("article codes: 12ab34", r"\b\d+[a-zA-Z]+\d+\b"),
    Rule("a shop's promise", r"(?:worldwide\s+)?(?:free\s+)?shipping"),
    Rule("a shop's offer", r"(?:free\s)?download(?:\sfree)?"),
    Rule("a page's request", r"\bclick\s(?:for|on)\s\w+"),
    Rule("file types, wherever a word begins with one", rf"\b(?:{FILE_TYPES})(?:\simages?)?"),
    Rule("page numbers", r"\bpage\s+\d+\b"),
    Rule("longer codes: a1b2c", r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d[a-zA-Z\d]*\b", " "),
    # x, its Cyrillic twin and the sign of multiplication.
    Rule("sizes: 1920x1080, 1.5x2", r"\b\d+(?:\.\d*)?[x\u0445\u00d7]\d+(?:\.\d*)?\b"),
    Rule("a colon with space before it", r"\b\s+:\s+", ": "),
    Rule("no space after a comma or a dot", r"(\D[,./])\b", r"\1 "),
    Rule("white space of every kind", r"\s+", " "),
    # The text is not stripped here: a space at an end shields the mark behind it.
    Rule("quotes around everything", r"(?s)^[\"'](.+)[\"']$", r"\1"),
    Rule("a mark that opens the caption", "^['_,:;-]"),
    Rule("a mark that ends the caption", "['_,:+-]$"),
    Rule("a dot and one word, and nothing else", r"^\.\S+$"),
    str.strip,
)
"""What `clean_caption` does, in order; the order is part of the result."""

CLEANERS: dict[str, Callable[[str], str]] = {
    "stock": clean_caption,
    "light": light_clean,
    "none": keep,
}
"""Ways to treat a caption before it is tokenized, by name."""


def get_cleaner(name: str) -> Callable[[str], str]:
    """The cleaner of that name; an unknown one raises `UsageError` with the known ones."""
    choice("caption_cleaning", name, CLEANERS)
    return CLEANERS[name]
