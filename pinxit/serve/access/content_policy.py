"""The security headers of answers, the Content-Security-Policy above all."""

from __future__ import annotations

import base64
import hashlib

POLICY = "pinxit.content_policy"
"""The key of a request's scope under which a layer asks for another policy."""

_NOTHING = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    f"{_NOTHING}; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""The policy of pages and their modules: own files only, no inline code, no strings as code."""
FILE_POLICY = f"{_NOTHING}; form-action 'none'; sandbox"
"""The policy of all other answers: opened by itself, a file cannot do anything."""

FIXED = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": (
        b"camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
    ),
}
"""Headers that every answer has. The referrer is sent within the studio, because a browser calls
the origin of a form null without it."""


def style_policy(style: str) -> str:
    """Returns the policy of a page that has only this style and a form."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"{_NOTHING}; style-src 'sha256-{digest}'; img-src data:; form-action 'self'"


def policy_for(media_type: str) -> str:
    """Returns the policy for an answer of this media type."""
    kind = media_type.partition(";")[0].strip().lower()
    return PAGE_POLICY if kind in ("text/html", "text/javascript") else FILE_POLICY
