"""Records the outcome of each row of a source: a word of `STATUSES`, or ``http_<code>``.

No row is lost silently: every row of a source gets exactly one `Outcome`. Some outcomes are final
(the server answers 404, the image is too small). Others are temporary (a timeout, an overloaded
server). `can_heal` separates the two, so that a retry covers only rows that may still succeed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one row. A status outside `STATUSES` and ``http_<code>`` is refused."""

    key: str
    """The key of the row."""
    status: str
    """A word of `STATUSES`, or ``http_<code>``."""
    detail: str = ""
    """One line of explanation, such as the limit, the address or the decoder's error."""

    def __post_init__(self) -> None:
        if not is_status(self.status):
            known = ", ".join((*STATUSES, "http_<code>"))
            raise ValueError(f"status: {self.status!r} is unknown; valid: {known}")


STATUSES: dict[str, str] = {
    "ok": "kept",
    # filters, which see only the values that the source states
    "filtered_side": "the shorter side is below the minimum",
    "filtered_aspect": "the aspect ratio is too extreme",
    "filtered_watermark": "probably watermarked",
    "filtered_nsfw": "probably not safe for work",
    "filtered_aesthetic": "the aesthetic score is below the minimum",
    "filtered_clip_similarity": "the caption matches the image too poorly",
    "filtered_words": "the caption has too few words",
    "filtered_characters": "the caption is too long",
    "filtered_phash": "an image with this perceptual hash was seen before",
    "filtered_url": "this URL was seen before",
    "filtered_domain": "the URL's domain is blocked",
    "filtered_missing": "the row lacks a value that a filter needs",
    # the source
    "no_url": "the row has neither an image nor a URL",
    "no_caption": "the row has no caption",
    "no_image": "a caption without an image",
    "missing_image": "the metadata names an image that does not exist",
    "extra_image": "another image of the same sample, such as a mask",
    "extra_caption": "another caption of the same image",
    "bad_record": "the record is damaged, or does not fit the header",
    "bad_text": "the caption is not text in a known encoding",
    "unreadable": "the file cannot be read (permission, or a fault of the disk)",
    "large_file": "the image file or archive member is larger than the limit",
    # fetching
    "timeout": "the whole attempt took too long",
    "dns": "the host's name does not resolve",
    "connect": "the connection failed or broke off",
    "tls": "the server's certificate or the TLS handshake failed",
    "protocol": "the response is not valid HTTP",
    "blocked": "the address or the domain is refused (private network, block list)",
    "scheme": "not an http or https URL, or no URL at all",
    "redirects": "too many redirects, or a redirect without a valid target",
    "too_big": "the body is longer than the limit",
    "encoded": "the body has a Content-Encoding",
    "empty": "the body is empty",
    "opt_out": "the owner asked not to be used for training (X-Robots-Tag)",
    "fetch_error": "an unexpected error while fetching",
    # decoding
    "not_image": "the bytes are not an image in an accepted format",
    "unsupported": 'a format that needs pip install "pinxit[formats]", and then --retry_failed 1',
    "too_many_pixels": "the image header states more pixels than the limit",
    "too_small": "the image itself is smaller than the minimum",
    "too_narrow": "the image itself has a more extreme aspect ratio than the limit",
    "blank": "the whole image has one colour",
    "placeholder": "the same picture came from many URLs of one host",
    "decode_error": "decoding failed (corrupt, truncated, out of memory)",
    "decode_timeout": "the decoder took too long",
}
"""Maps each status to its meaning. HTTP responses other than 200 are ``http_<code>``: http_404."""
UNUSABLE = frozenset(
    {
        *("no_url", "no_caption", "no_image", "missing_image", "extra_image"),
        *("extra_caption", "bad_record", "bad_text", "unreadable", "large_file"),
    }
)
"""The statuses of rows that a source cannot turn into a training example."""
HEALABLE = frozenset({"timeout", "dns", "connect", "tls", "protocol", "unreadable", "unsupported"})
"""The statuses of failed fetches and reads that may succeed later."""
HEALABLE_CODES = frozenset({408, 425, 429})
"""The HTTP codes of responses that may succeed later, in addition to 500 to 599."""


def http_status(code: int) -> str:
    """Returns the status of an HTTP response. Real servers send codes from 100 to 999."""
    if not 100 <= code <= 999:
        raise ValueError(f"code: {code} is not an HTTP status code; valid: 100 to 999")
    return f"http_{code}"


def http_code(status: str) -> int | None:
    """Returns the code of an ``http_<code>`` status, or None for all other statuses."""
    digits = status.removeprefix("http_")
    if digits == status or len(digits) != 3 or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) if digits[0] != "0" else None


def is_status(status: str) -> bool:
    """Returns whether this is a word of `STATUSES` or an ``http_<code>``."""
    return status in STATUSES or http_code(status) is not None


def meaning(status: str) -> str:
    """Returns the meaning of a status in words."""
    code = http_code(status)
    if code is not None:
        return f"the server answered {code}"
    if status not in STATUSES:
        known = ", ".join((*STATUSES, "http_<code>"))
        raise ValueError(f"status: {status!r} is unknown; valid: {known}")
    return STATUSES[status]


def can_heal(status: str) -> bool:
    """Returns whether another attempt may succeed. Retries cover exactly these rows."""
    code = http_code(status)
    if code is not None:
        return code in HEALABLE_CODES or 500 <= code <= 599
    return status in HEALABLE


def is_dropped(status: str) -> bool:
    """Returns whether a row with this status was dropped before its image was requested."""
    return status.startswith("filtered_") or status in UNUSABLE


@dataclass(frozen=True)
class OutcomeFigures:
    """The rows of one status."""

    status: str
    meaning: str
    rows: int
    share: float
    """The fraction of all rows."""
    heals: bool
    """Whether another attempt may succeed."""
    kind: str
    """One of kept, dropped (before its picture was asked for), temporary and failed."""


def outcome_figures(counts: Mapping[str, int]) -> list[OutcomeFigures]:
    """Returns the rows by status, the most frequent status first."""
    total = sum(counts.values())
    return [
        OutcomeFigures(
            status=status,
            meaning=meaning(status) if is_status(status) else "unknown to this version",
            rows=count,
            share=count / total if total else 0.0,
            heals=can_heal(status),
            kind=_kind(status),
        )
        for status, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count
    ]


def _kind(status: str) -> str:
    """Returns the kind of an outcome."""
    if status == "ok":
        return "kept"
    if can_heal(status):
        return "temporary"
    return "dropped" if is_dropped(status) else "failed"
