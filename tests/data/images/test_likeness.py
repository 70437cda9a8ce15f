"""What makes a picture one of a single colour."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pinxit.data.images.likeness import FLAT, one_colour


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 255 - FLAT),
    st.integers(0, 2),
    st.integers(0, FLAT + 1),
    st.data(),
)
def test_one_pixel_decides_wherever_it_is(size, level, channel, more, data):
    image = np.full((*size, 3), level, np.uint8)
    at = tuple(data.draw(st.integers(0, length - 1)) for length in size)
    image[*at, channel] = min(255, level + more)
    spread = int(image[..., channel].max()) - int(image[..., channel].min())
    assert (one_colour(image) is None) == (spread > FLAT)


def test_the_colour_is_in_the_middle():
    image = np.zeros((2, 3, 3), np.uint8)
    image[..., 1] = 250
    image[0, 0] = (FLAT, 250 - FLAT, 1)
    assert one_colour(image) == "#04f600"
