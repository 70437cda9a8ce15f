"""The token that opens the studio: where it comes from, and what a request may show for it.

A program sends the token itself (``Authorization: Bearer``). A browser gets a cookie that is signed
with the token, so a cookie that leaks does not reveal the token and stops working after a while.
A link for this computer's browser carries a code that works once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping

from pinxit.config import UsageError

ENVIRONMENT = "PINXIT_TOKEN"
"""The environment variable that holds the token."""
NEW = "new"
"""The value of ``--token`` that asks for a new token."""
SHORTEST = 16
"""The fewest characters of a token. Guessing is hopeless from about here on."""
LONGEST = 512
"""The most characters of a token."""
COOKIE_SECONDS = 30 * 24 * 3600
"""Seconds for which a cookie is valid."""
CODE_SECONDS = 120
"""Seconds for which a code that works once is valid."""


def chosen_token(option: str | None, environment: Mapping[str, str]) -> str | None:
    """Returns the token of the option, else that of the environment, else None.

    Raises `UsageError` for a token that is too short, too long, or has characters that a header
    cannot carry. The message does not show the token.
    """
    if option == NEW:
        return secrets.token_urlsafe(32)
    field, token = ("token", option) if option else (ENVIRONMENT, environment.get(ENVIRONMENT))
    if not token:
        return None
    valid = f"{SHORTEST} to {LONGEST} letters, digits and signs without blanks, or {NEW}"
    if not SHORTEST <= len(token) <= LONGEST:
        raise UsageError(f"{field}: a token of {len(token)} characters", valid=valid)
    if not all("!" <= character <= "~" for character in token) or ";" in token:
        raise UsageError(f"{field}: the token has blanks or special characters", valid=valid)
    return token


class AccessToken:
    """Checks what a request shows for the token, in a time that does not depend on it."""

    def __init__(self, token: str) -> None:
        self._secret = token.encode()
        self._digest = hashlib.sha256(self._secret).digest()
        self._codes: dict[bytes, float] = {}

    def matches(self, candidate: bytes) -> bool:
        """Returns whether the candidate is the token. Digests of equal length are compared."""
        return hmac.compare_digest(hashlib.sha256(candidate).digest(), self._digest)

    def cookie(self, *, now: float | None = None) -> str:
        """Returns a new cookie's value: when it ends, and a signature of that."""
        ends = int((time.time() if now is None else now) + COOKIE_SECONDS)
        return f"{ends}.{self._signature(str(ends))}"

    def accepts_cookie(self, value: str, *, now: float | None = None) -> bool:
        """Returns whether a cookie was signed with this token and has not ended."""
        ends, _, signature = value.partition(".")
        genuine = hmac.compare_digest(
            hashlib.sha256(signature.encode()).digest(),
            hashlib.sha256(self._signature(ends).encode()).digest(),
        )
        if not genuine:
            return False
        return int(ends) > (time.time() if now is None else now)

    def new_code(self, *, now: float | None = None) -> str:
        """Returns a code for one visit of a browser, which other users may see on its command line
        but cannot use again."""
        code = secrets.token_urlsafe(32)
        ends = (time.monotonic() if now is None else now) + CODE_SECONDS
        self._codes[hashlib.sha256(code.encode()).digest()] = ends
        return code

    def takes_code(self, candidate: bytes, *, now: float | None = None) -> bool:
        """Returns whether the candidate is an unused code. It does not work a second time."""
        digest = hashlib.sha256(candidate).digest()
        moment = time.monotonic() if now is None else now
        for code, ends in list(self._codes.items()):
            if hmac.compare_digest(code, digest):
                del self._codes[code]
                return moment < ends
        return False

    def _signature(self, ends: str) -> str:
        message = b"pinxit cookie " + ends.encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()
