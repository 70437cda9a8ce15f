"""Whether a batch's images are latents or pixels."""

from __future__ import annotations

import pytest

from pinxit.data.image_column import IMAGE_COLUMNS, image_column, images_in, text_in


@pytest.mark.parametrize("encoded", [True, False])
def test_the_reader_finds_what_the_writer_made(encoded: bool):
    columns = {"token_ids": 1, image_column(encoded): 2, "index": 3}
    assert images_in(columns) == (image_column(encoded), 2)
    assert text_in(columns) == {"token_ids": 1, "index": 3}
    assert image_column(encoded) in IMAGE_COLUMNS
