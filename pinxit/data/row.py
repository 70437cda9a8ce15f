"""The records of the data path: a row before anything is spent on it, and what became of it.

A `Source` is a list of units of work, each a run of rows: the unit is what a worker takes, what is
done again after a crash, and what a row's key begins with. Nothing is lost silently: every row of
a source ends in exactly one `Outcome`, whose status is a word of `STATUSES` or ``http_<code>``.
Some ends are final (the server says 404, the image is too small); others may heal by themselves (a
time-out, an overloaded server), and `can_heal` tells them apart, so that a second attempt costs
only what can still be won.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

SCORES = ("watermark", "nsfw", "aesthetic", "clip_similarity")
"""The scores a row may bear, by name: watermark and nsfw are probabilities in [0, 1] (nsfw: the
larger where a source has several), aesthetic is the LAION predictor's figure, about 1 to 10 (its
versions 1 and 2 are not comparable), clip_similarity a cosine."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, before anything is spent on it."""

    key: str
    """Unique in the source and stable from run to run: "<unit id>/<row number, 8 digits>"."""
    url: str | None
    """Where the image is; None where the source bears it."""
    caption: str
    width: int | None = None
    """In pixels, as the source states it: not to be trusted."""
    height: int | None = None
    phash: str | None = None
    """64-bit perceptual hash of the image, 16 lower-case hex digits."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Any of `SCORES`."""
    image: bytes | None = None
    """The encoded image, where the source bears it."""
    origin: str | None = None
    """Where an image that the source bears came from: for filters and reports, never fetched."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A run of rows of one source: what one worker takes, and what a crash costs at most."""

    id: str
    """Unique in the source, stable from run to run, and safe as a file name: "00012-003"."""
    path: str
    """The file or folder that holds the rows, as the source opens it."""
    part: int = 0
    """Which part of it: a run of row groups or of lines; 0 where the unit is the whole file."""
    rows: int | None = None
    """How many, where that is known before reading."""
    offset: int = 0
    """Where the part begins, in bytes (sources of lines only)."""


@runtime_checkable
class Source(Protocol):
    """Rows by units. Small, and the same after pickling: workers get a copy."""

    @property
    def name(self) -> str:
        """The source's name in `SOURCES`."""
        ...

    @property
    def revision(self) -> str | None:
        """What is read, exactly: a commit of the hub, or a fingerprint of the files."""
        ...

    @property
    def bears_images(self) -> bool:
        """Whether the rows bear encoded images; then none has a URL to fetch."""
        ...

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Every unit, in an order that never changes; only the first `limit`, where given."""
        ...

    def read(self, unit: Unit) -> Iterator[Row]:
        """The rows of a unit, every one of them, always in the same order."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row. Refuses a status that is not a word of `STATUSES`."""

    key: str
    """The row's."""
    status: str
    detail: str = ""
    """One line for people: which limit, which address, what the decoder said."""

    def __post_init__(self) -> None:
        if not is_status(self.status):
            known = ", ".join((*STATUSES, "http_<code>"))
            raise ValueError(f"status: {self.status!r} is unknown; valid: {known}")


STATUSES: dict[str, str] = {
    "ok": "kept",
    # filters, on what the source says of the row
    "filtered_side": "the shorter side is below the minimum",
    "filtered_aspect": "the longer side is too many times the shorter",
    "filtered_watermark": "probably watermarked",
    "filtered_nsfw": "probably not safe for work",
    "filtered_aesthetic": "the aesthetic score is below the minimum",
    "filtered_clip_similarity": "caption and image agree too little",
    "filtered_words": "the caption has too few words",
    "filtered_characters": "the caption is too long",
    "filtered_phash": "an image with this perceptual hash was seen before",
    "filtered_url": "this URL was seen before",
    "filtered_domain": "the URL's domain is blocked",
    "filtered_missing": "the row lacks a figure that a filter needs",
    # the source
    "no_url": "the row has neither an image nor a URL, or is unreadable",
    "no_caption": "the row has no caption",
    # fetching
    "timeout": "the whole attempt took too long",
    "dns": "the host's name does not resolve",
    "connect": "no connection, or it broke",
    "tls": "the server's certificate or the TLS handshake failed",
    "protocol": "the answer is not understandable HTTP",
    "blocked": "the address or the domain is refused (private network, block list)",
    "scheme": "neither http nor https, or no URL at all",
    "redirects": "redirected too often, or to nowhere",
    "too_big": "the body is longer than the limit",
    "encoded": "the body has a Content-Encoding",
    "empty": "the body is empty",
    "opt_out": "the owner asked not to be used for training (X-Robots-Tag)",
    # decoding
    "not_image": "the bytes are no image of an accepted format",
    "too_many_pixels": "the header announces more pixels than the limit",
    "too_small": "the image itself is smaller than the minimum",
    "decode_error": "the decoder gave up (corrupt, truncated, out of memory)",
    "decode_timeout": "the decoder took too long",
}
"""Status to its meaning. An HTTP answer other than 200 is ``http_<code>``, such as http_404."""

HEALABLE = frozenset({"timeout", "dns", "connect", "tls", "protocol"})
"""Ends of a fetch that may be different another day."""
HEALABLE_CODES = frozenset({408, 425, 429})
"""As `HEALABLE`, for HTTP codes; all of 500 to 599 besides."""


def http_status(code: int) -> str:
    """The status of an HTTP answer with this code (100 to 999, as the web sends them)."""
    if not 100 <= code <= 999:
        raise ValueError(f"code: {code} is no HTTP status code; valid: 100 to 999")
    return f"http_{code}"


def http_code(status: str) -> int | None:
    """The code of an ``http_<code>`` status; None for every other word."""
    digits = status.removeprefix("http_")
    if digits == status or len(digits) != 3 or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) if digits[0] != "0" else None


def is_status(status: str) -> bool:
    """Whether this is a word of `STATUSES` or an ``http_<code>``."""
    return status in STATUSES or http_code(status) is not None


def meaning(status: str) -> str:
    """A status in words."""
    code = http_code(status)
    if code is not None:
        return f"the server answered {code}"
    if status not in STATUSES:
        known = ", ".join((*STATUSES, "http_<code>"))
        raise ValueError(f"status: {status!r} is unknown; valid: {known}")
    return STATUSES[status]


def can_heal(status: str) -> bool:
    """Whether another attempt may end differently: what a retry of the failed rows takes."""
    code = http_code(status)
    if code is not None:
        return code in HEALABLE_CODES or 500 <= code <= 599
    return status in HEALABLE
