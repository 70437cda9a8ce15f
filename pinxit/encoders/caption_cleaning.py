r"""Removes the residue of web pages from captions: links, file names, article numbers, mojibake.

A stock diffusers PRX pipeline cleans every prompt before it encodes it. `clean_caption` returns the
same string as that pipeline for every input, so a model trained on its output sees the same kind of
text in training and in sampling. Cleaning is a list of steps, each applied once to the output of
the step before. It is not idempotent: ``100%2525`` becomes ``100%25``, which would become ``100%``.

Captions are untrusted input, so every pattern here runs in time linear in the caption's length: a
hundred kilobytes of dots or digits do not slow it down. The one exception is ftfy, which undoes
nested full-width entities one level at a time.
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
"""The dash punctuation of Unicode 12, as the inside of a character class."""
SCHEME = r"(?:https?|www):"
HOST = r"[a-z0-9.-]"
LINK = (
    rf"\b(?:{SCHEME}(?:/{{1,3}}|[a-z0-9%])"
    rf"|{HOST}+\.(?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
    # In the rest of this run of host characters only a scheme can begin a link, so skip to one.
    rf"|({HOST}+?(?={SCHEME}|(?!{HOST}))))"
)
"""Matches the scheme of a link, or a host of a common domain with its path. Any other run of host
characters matches as group 1, which stays in the caption."""


@dataclass(frozen=True)
class Rule:
    """Replaces every match of a pattern."""

    what: str
    """The text that the pattern matches, and a reason for the replacement where it needs one."""
    pattern: str
    replacement: str = ""

    def __call__(self, text: str) -> str:
        return re.sub(self.pattern, self.replacement, text)


PLAIN = re.compile(r"[a-z]+(?:,? [a-z]+)*\.?")
"""Matches words of lower-case letters with single spaces, commas, and a dot at the end."""
NOT_PLAIN = re.compile(rf"shipping|download|\bclick\b|\b(?:{FILE_TYPES})")
"""Matches the words that `STEPS` may remove from such a text."""


def clean_caption(text: str) -> str:
    """Returns the caption as a stock PRX pipeline cleans it (see `STEPS`); it may be empty.

    The steps change nothing in a plain text but its case and the space around it, which is found
    out in a twentieth of their time.
    """
    plain = text.strip().lower()
    if PLAIN.fullmatch(plain) and not NOT_PLAIN.search(plain):
        return plain
    for step in STEPS:
        text = step(text)
    return text


def light_clean(text: str) -> str:
    """Repairs mojibake, decodes HTML entities (also doubly encoded ones), and strips white space.

    A stock PRX pipeline does the same when its cleaning is switched off. Nothing of it changes
    printable ASCII without entities, so ftfy and its tables are not imported for that.
    """
    if text.isascii() and text.isprintable() and "&" not in text:
        return text.strip()
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def keep(text: str) -> str:
    """Returns the caption as it is."""
    return text


def split_slug(text: str) -> str:
    """Replaces hyphens and underscores by spaces if there are four or more, as in file names."""
    words, joints = re.subn("[-_]", " ", text)
    return words if joints > 3 else text


STEPS: tuple[Callable[[str], str], ...] = (
    # The first steps see the text as the web page has it, with its encodings.
    unquote_plus,  # "red%20car", "red+car"
    str.strip,
    str.lower,
    Rule("a placeholder for names, an ordinary word without its brackets", "<person>", "person"),
    Rule("links, which do not describe the picture", LINK, r"\1"),
    Rule("user names", r"@\w+"),
    Rule("Chinese characters and the squared symbols before them", r"[\u31c0-\u9fff]+"),
    Rule("dashes of every kind, which become hyphens", f"[{DASHES}]+", "-"),
    Rule("characters used as quotation marks", "[`\u00b4«»¨]", '"'),
    Rule("a quotation mark that is still encoded", "&quot;?"),
    Rule("an ampersand that is still encoded (its semicolon stays)", "&amp"),
    Rule("IP addresses", r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),
    Rule("a time of day or a page number at the end, before white space", r"\d:\d\d\s+$"),
    Rule("an escaped line break", r"\\n", " "),
    Rule("picture and article numbers, but no years of four digits", r"#(?:\d{1,3}|\d{5,})\b"),
    Rule("long numbers", r"\b\d{6,}\b"),
    Rule("file names, up to the last extension in the word", rf"(?<!\S)\S+\.(?:{FILE_TYPES})"),
    Rule("consecutive quotation marks", "[\"']{2,}", '"'),
    Rule("consecutive dots", r"\.{2,}", " "),
    Rule("decorative symbols, brackets and slashes", r"[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+", " "),
    Rule("a dot alone", r"(?<!\s)\s+\.\s+", " "),
    split_slug,
    # The remaining steps see the text with its encodings repaired.
    light_clean,
    Rule("article codes: ab1234", r"\b[a-zA-Z]{1,3}\d{3,15}\b"),
    Rule("article codes: ab12cd", r"\b[a-zA-Z]+\d+[a-zA-Z]+\b"),
    Rule("article codes: 12ab34", r"\b\d+[a-zA-Z]+\d+\b"),
    Rule("offers of free shipping", r"(?:worldwide\s+)?(?:free\s+)?shipping"),
    Rule("offers of a download", r"(?:free\s)?download(?:\sfree)?"),
    Rule("requests to click", r"\bclick\s(?:for|on)\s\w+"),
    Rule("file types at the beginning of a word", rf"\b(?:{FILE_TYPES})(?:\simages?)?"),
    Rule("page numbers", r"\bpage\s+\d+\b"),
    Rule("longer codes: a1b2c", r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d[a-zA-Z\d]*\b", " "),
    # The separators are x, the Cyrillic letter that looks like it, and the multiplication sign.
    Rule("sizes: 1920x1080, 1.5x2", r"\b\d+(?:\.\d*)?[x\u0445\u00d7]\d+(?:\.\d*)?\b"),
    Rule("a colon with space before it", r"\b\s+:\s+", ": "),
    Rule("no space after a comma or a dot", r"(\D[,./])\b", r"\1 "),
    Rule("white space of every kind", r"\s+", " "),
    # The text is not stripped before these steps: a mark next to a space at an end stays.
    Rule("quotation marks around the whole caption", r"(?s)^[\"'](.+)[\"']$", r"\1"),
    Rule("a punctuation mark that begins the caption", "^['_,:;-]"),
    Rule("a punctuation mark that ends the caption", "['_,:+-]$"),
    Rule("a caption of one dot and one word", r"^\.\S+$"),
    str.strip,
)
"""The steps of `clean_caption`, in order. Another order would give other results."""

CLEANERS: dict[str, Callable[[str], str]] = {
    "stock": clean_caption,
    "light": light_clean,
    "none": keep,
}
"""The ways to clean a caption before it is tokenised, by name."""


def get_cleaner(name: str) -> Callable[[str], str]:
    """Returns the cleaner of that name; raises a `UsageError` that lists the known names."""
    choice("caption_cleaning", name, CLEANERS)
    return CLEANERS[name]
