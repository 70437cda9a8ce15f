"""The commands and code of the documentation, read from the Markdown text itself.

The line before every fenced block is a comment that says how the tests treat the block::

    <!-- run: KIND -->    or    <!-- run: KIND: REASON -->

CONTRIBUTING.md lists the kinds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
)
KINDS = ("default", "slow", "needs-network", "needs-device", "no")
FENCE = re.compile(r"^( *)(`{3,}|~{3,})(.*)$")
TAG = re.compile(r"^<!-- run: ([\w-]+)(?:: (.+?))? -->$")
INLINE = re.compile(r"(?<!`)`((?:pinxit|python) [^`]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language and text, and how it is run."""

    page: str
    line: int
    """Number of the line of the opening fence, from 1."""
    language: str
    text: str
    kind: str
    reason: str | None
    """Why it is not run by default; of kind `default`, the file that runs it, if another does."""

    @property
    def name(self) -> str:
        """Where the block is, as `docs/coyo.md:23`."""
        return f"{self.page}:{self.line}"


class TagError(ValueError):
    """A block without a tag, or with one that means nothing."""


def read_tag(line: str, where: str) -> tuple[str, str | None]:
    """Kind and reason of a tag; raises `TagError` unless the line is a whole and known one."""
    match = TAG.match(line)
    if match is None:
        raise TagError(f"{where}: the line before the block is {line!r}, not <!-- run: KIND -->")
    kind, reason = match.groups()
    if kind not in KINDS:
        raise TagError(f"{where}: the kind {kind!r} is unknown; valid: {', '.join(KINDS)}")
    if kind != "default" and reason is None:
        raise TagError(f"{where}: {kind} needs a reason: <!-- run: {kind}: REASON -->")
    return kind, reason


def blocks_of(text: str, page: str) -> list[Block]:
    """All fenced blocks of a page, in order; raises `TagError` for the first wrong tag."""
    blocks: list[Block] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        where = f"{page}:{number + 1}"
        indent, fence, language = opening.groups()
        if indent:
            raise TagError(f"{where}: the block is indented; fences begin their line")
        kind, reason = read_tag(lines[number - 1] if number else "", where)
        end = next((i for i in range(number + 1, len(lines)) if lines[i] == fence), None)
        if end is None:
            raise TagError(f"{where}: the block has no end")
        code = "\n".join(lines[number + 1 : end]) + "\n"
        blocks.append(Block(page, number + 1, language.strip(), code, kind, reason))
        number = end + 1
    return blocks


def read_blocks() -> list[Block]:
    """The blocks of README.md, CONTRIBUTING.md and docs/*.md."""
    return [block for page in PAGES for block in blocks_of((ROOT / page).read_text("utf-8"), page)]


def inline_commands() -> list[tuple[str, str]]:
    """(page, command) for every command that a page shows in backticks within its prose."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        prose = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
        found += [(page, " ".join(command.split())) for command in INLINE.findall(prose)]
    return found
