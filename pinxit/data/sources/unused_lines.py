"""Writes the lines that say which files, records or columns a source does not read."""

from __future__ import annotations

from collections.abc import Sequence

from pinxit.data.sources.file_names import UNREAD_PICTURES, printable

TABLES = frozenset({"csv", "tsv", "jsonl", "ndjson", "json", "parquet", "xlsx", "xls", "arrow"})
ARCHIVES = frozenset({"zip", "tar", "gz", "tgz", "xz", "bz2", "zst", "7z", "rar"})
DOCUMENTS = ("readme", "license", "licence")
"""The beginnings of the names of files about a dataset, which no line mentions."""
KINDS = {
    "picture": (
        "picture or film is in a format that is not read",
        "pictures or films are in formats that are not read",
    ),
    "table": ("table is not read", "tables are not read"),
    "archive": (
        "archive is not read; unpack it first",
        "archives are not read; unpack them first",
    ),
    "plain": ("file has no suffix and is not read", "files have no suffix and are not read"),
    "other": ("other file is not read", "other files are not read"),
}
"""The continuation of a line for each kind of file: for one file, and for several."""


def unused_line(names: Sequence[str], one: str, many: str, *, advice: str = "") -> tuple[str, ...]:
    """Returns one line such as "2 files are hidden (the first: .a.jpg)", or nothing for no names.

    `one` and `many` continue the number of names.
    """
    if not names:
        return ()
    what = one if len(names) == 1 else many
    return (f"{len(names)} {what} (the first: {printable(names[0])}){advice}",)


def other_files_lines(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the lines about files of other kinds: pictures, tables, archives, and the rest."""
    kinds: dict[str, list[str]] = {}
    for name in sorted(names):
        base = name.rpartition("/")[2].lower()
        if not base.startswith(DOCUMENTS):
            kinds.setdefault(_kind(base), []).append(name)
    return tuple(line for kind in KINDS for line in unused_line(kinds.get(kind, ()), *KINDS[kind]))


def _kind(base: str) -> str:
    """Returns the kind of a file among `KINDS`."""
    stem, dot, suffix = base.rpartition(".")
    if not dot:
        return "plain"
    if suffix in UNREAD_PICTURES:
        return "picture"
    if suffix in TABLES or stem.rpartition(".")[2] in TABLES:
        return "table"
    return "archive" if suffix in ARCHIVES else "other"
