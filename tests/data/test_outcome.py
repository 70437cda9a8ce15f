"""The vocabulary of ends: closed, explained, and clear about what is worth another try."""

import pytest

from pinxit.data.outcome import (
    STATUSES,
    Outcome,
    can_heal,
    http_code,
    http_status,
    is_status,
    meaning,
)


def test_every_status_has_a_meaning_and_is_a_word() -> None:
    assert "ok" in STATUSES and not can_heal("ok")
    for status, words in STATUSES.items():
        assert status.replace("_", "").isalpha() and status == status.lower()
        assert words and meaning(status) == words
        assert Outcome("k", status).status == status


@pytest.mark.parametrize("code", [100, 301, 404, 410, 429, 503, 999])
def test_http_codes_are_statuses(code: int) -> None:
    status = http_status(code)
    assert status == f"http_{code}" and http_code(status) == code
    assert is_status(status) and str(code) in meaning(status)


@pytest.mark.parametrize("status", ["", "OK", "http_", "http_40", "http_4o4", "http_099", "lost"])
def test_other_words_are_refused(status: str) -> None:
    assert not is_status(status)
    with pytest.raises(ValueError, match="unknown; valid: ok"):
        Outcome("k", status)
    with pytest.raises(ValueError, match="unknown"):
        meaning(status)
    with pytest.raises(ValueError, match="100 to 999"):
        http_status(99)


def test_what_is_worth_another_try() -> None:
    healing = ["timeout", "dns", "connect", "tls", "http_408", "http_429", "http_500", "http_503"]
    final = ["ok", "http_404", "http_410", "http_403", "blocked", "opt_out", "too_big", "not_image"]
    final += [status for status in STATUSES if status.startswith("filtered_")]
    assert all(can_heal(status) for status in healing)
    assert not any(can_heal(status) for status in final)
