"""Judges the names of files: hidden ones, and ones that cannot be printed as they are."""

from __future__ import annotations

UNREAD_PICTURES = frozenset(
    {
        *("svg", "psd", "ai", "eps", "pdf", "ico", "exr", "hdr", "tga", "jp2", "j2k", "ppm", "pgm"),
        *("raw", "cr2", "cr3", "nef", "arw", "dng", "orf", "rw2", "raf", "pef", "srw"),
        *("mp4", "mov", "avi", "mkv", "webm", "m4v"),
    }
)
"""The suffixes of pictures and films for people, which are not read."""


def is_hidden(path: str) -> bool:
    """Returns whether a file or one of its folders is hidden, or belongs to an archiver."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def printable(path: str) -> str:
    """Returns a name that can be printed and stored: bytes that are not UTF-8 become ``\\xe9``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
