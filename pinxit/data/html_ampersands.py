"""Undoes the ampersands of HTML in URLs that were copied out of a page's source."""

from __future__ import annotations

import re

AMPERSANDS = re.compile(r"&(?:amp;)+")


def without_entities(url: str) -> str:
    """Returns the URL with "&" in place of each ``&amp;``, if it has a query.

    ``&amp;amp;``, which was escaped twice, becomes "&" too. In a query, ``&amp;`` would separate a
    parameter whose name begins with "amp;", which no server means. URLs without a query, ``&amp``
    without its semicolon, ``&AMP;`` and all other entities stay, since they may be meant.
    """
    return AMPERSANDS.sub("&", url) if "?" in url else url
