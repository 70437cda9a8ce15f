"""A row is a key, a URL and a caption; all else may be absent."""

import dataclasses

import pytest

from pinxit.data.row import Row


def test_a_row_needs_a_key_a_url_and_a_caption_only() -> None:
    row = Row("00000/00000001", "http://a/b.jpg", "a cat")
    assert row.image is None and row.scores == {} and row.width is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.caption = "a dog"  # type: ignore[misc]
