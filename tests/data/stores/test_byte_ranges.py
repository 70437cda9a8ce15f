"""Ranges of bytes: merged, cut, and put together again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pinxit.data.stores.byte_ranges import cut_out, merged

FILES = {"a": bytes(range(200)), "b": bytes(range(50, 120)), "empty": b""}
RANGES = st.lists(
    st.tuples(st.sampled_from(sorted(FILES)), st.integers(0, 220), st.integers(0, 60)).map(
        lambda drawn: (drawn[0], drawn[1], drawn[1] + drawn[2])
    ),
    max_size=20,
)


@given(RANGES, st.integers(1, 50))
def test_each_range_gets_its_bytes_from_the_fewest_requests(ranges, longest: int):
    requests = merged(ranges, longest=longest)
    answers = [FILES[name][start:stop] for name, start, stop in requests]
    expected = [FILES[name][start:stop] for name, start, stop in ranges]
    assert cut_out(ranges, requests, answers) == expected
    asked = [(name, at) for name, start, stop in requests for at in range(start, stop)]
    needed = {(name, at) for name, start, stop in ranges for at in range(start, stop)}
    assert len(asked) == len(set(asked)) and set(asked) == needed
    assert all(0 < stop - start <= longest for _, start, stop in requests)


def test_ranges_that_touch_are_one_request_and_others_are_not():
    assert merged([("a", 10, 20), ("a", 0, 10), ("a", 15, 25)]) == [("a", 0, 25)]
    assert merged([("a", 0, 10), ("a", 11, 20), ("b", 20, 30)]) == [
        ("a", 0, 10),
        ("a", 11, 20),
        ("b", 20, 30),
    ]
    assert merged([("a", 0, 25)], longest=10) == [("a", 0, 10), ("a", 10, 20), ("a", 20, 25)]
