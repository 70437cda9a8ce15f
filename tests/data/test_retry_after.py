"""The ``Retry-After`` header."""

from pinxit.data.retry_after import seconds_of


def test_retry_after_as_seconds_or_date():
    assert seconds_of("120") == 120.0 and seconds_of(" 0 ") == 0.0
    assert seconds_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert 1e8 < seconds_of("Fri, 21 Oct 2101 07:28:00 GMT") < 1e10
    for text in ("", "soon", "-5", "1.5", "٣", "Wed, 99 Foo"):
        assert seconds_of(text) is None
    assert seconds_of("9" * 400) == 999999999.0
