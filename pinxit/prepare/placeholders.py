"""Finds placeholders: pictures that a host serves instead of many others, such as "not found".

A picture counts as one if more than a few URLs of its host, with as many different captions, led to
the same bytes, or to the same look in the same size, within a unit. All rows of such a group are
dropped, whichever came first. The same picture from many hosts is kept, and so is one that was
linked a few times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pinxit.data.row import Row
from pinxit.data.url_host import host_of


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The hashes by which two decoded images count as the same picture."""

    body: str
    """A hash of the encoded image."""
    look: str
    """A perceptual hash, with the size of the image."""


@dataclass(frozen=True)
class Placeholder:
    """A picture that many URLs of one host led to."""

    host: str
    """The host that served it."""
    keys: tuple[str, ...]
    """The keys of its rows, in their order."""

    @property
    def detail(self) -> str:
        """The reason why the rows are dropped."""
        return f"{len(self.keys)} rows of {self.host} have this picture"


def find_placeholders(
    rows: Mapping[str, Row], prints: Mapping[str, Fingerprint], most: int
) -> list[Placeholder]:
    """Returns the pictures that more than `most` URLs of one host with other captions led to.

    `rows` are the rows of a unit in their order, and `prints` the fingerprints of those that were
    decoded. Rows without a URL take no part. 0 finds none.
    """
    if not most:
        return []
    groups: dict[tuple[str, str], list[str]] = {}
    for key, row in rows.items():
        url = row.url or row.origin
        if key in prints and url and (host := host_of(url)):
            for picture in (prints[key].body, prints[key].look):
                groups.setdefault((host, picture), []).append(key)
    placeholders: list[Placeholder] = []
    grouped: set[str] = set()
    for (host, _), keys in groups.items():
        urls = {rows[key].url or rows[key].origin for key in keys}
        captions = {rows[key].caption for key in keys}
        if min(len(urls), len(captions)) > most and not grouped.issuperset(keys):
            grouped.update(keys)
            placeholders.append(Placeholder(host, tuple(keys)))
    return placeholders
