"""What became of a row: one word of `STATUSES` or ``http_<code>`` for every row of a source.

Nothing is lost silently: every row of a source ends in exactly one `Outcome`. Some outcomes are
final (the server says 404, the image is too small). Others may heal by themselves (a time-out, an
overloaded server), and `can_heal` tells them apart, so that a second attempt costs only what can
still be won.
"""

from __future__ import annotations

from dataclasses import dataclass


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


def is_dropped(status: str) -> bool:
    """Returns whether a row with this status was dropped before its image was asked for."""
    return status.startswith("filtered_") or status in ("no_url", "no_caption")
