"""Notices in a stream that a host serves one picture for many URLs, such as "not found".

A stream sees its rows one by one, so the first few rows with such a picture are trained on, and the
following ones are placeholders. The memory is bounded: pictures that were not seen for long are
forgotten, and so is everything when a run is resumed.
"""

from __future__ import annotations

from collections import OrderedDict

from pinxit.data.row import Row
from pinxit.data.url_host import host_of

PICTURES = 50_000
"""Number of pictures that are remembered, each with at most `most` URLs and captions."""


class RepeatedPictures:
    """Counts the URLs and captions with which each host served a picture."""

    def __init__(self, most: int) -> None:
        """Accepts a picture from `most` URLs of one host with different captions; 0 accepts all."""
        self.most = most
        self._seen: OrderedDict[tuple[str, str], tuple[set[int], set[int]]] = OrderedDict()

    def is_placeholder(self, row: Row, body: str) -> bool:
        """Returns whether too many other URLs of the row's host led to the same bytes before."""
        url = row.url or row.origin
        host = host_of(url) if url else ""
        if not self.most or not host:
            return False
        urls, captions = self._seen.setdefault((host, body), (set(), set()))
        self._seen.move_to_end((host, body))
        if len(self._seen) > PICTURES:
            self._seen.popitem(last=False)
        for values, value in ((urls, url), (captions, row.caption)):
            if len(values) <= self.most:
                values.add(hash(value))
        return min(len(urls), len(captions)) > self.most
