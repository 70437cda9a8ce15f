"""Limits on the picture that was served: too narrow, too small, of one colour; and its hashes."""

import numpy as np
import pytest
from pictures import encoded, scene
from PIL import Image

from pinxit.data.images.decode import ImageConfig, decode

WEB = ImageConfig(size=32, min_side=32, max_aspect=2.0, blank="drop")


@pytest.mark.parametrize(
    ("image", "status", "detail"),
    [
        (scene(64, 32), "ok", ""),
        (scene(32, 64), "ok", ""),
        (scene(65, 32), "too_narrow", "65 x 32, an aspect ratio above 2"),
        (scene(33, 400), "too_narrow", "33 x 400, an aspect ratio above 2"),
        (scene(1, 400), "too_small", "1 x 400, below 32"),
        (scene(31, 64), "too_small", "31 x 64, below 32"),
        (np.full((40, 40, 3), 200, np.uint8), "blank", "all of it is #c8c8c8"),
    ],
)
def test_the_picture_itself_is_checked(image, status, detail):
    decoded = decode(encoded(image), WEB)
    assert (decoded.status, decoded.detail) == (status, detail)
    assert (decoded.image is None) == (status != "ok")


def test_a_picture_of_one_colour_is_blank_whatever_its_format():
    flat = Image.new("RGB", (50, 50), (10, 200, 30))
    clear = Image.new("RGBA", (50, 50), (10, 200, 30, 0))
    clear.putpixel((3, 3), (255, 0, 0, 0))
    for data in (
        *(encoded(flat, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")),
        encoded(Image.new("1", (40, 40)), "PNG"),
        encoded(clear, "PNG"),  # all of it is transparent
    ):
        assert decode(data, WEB).status == "blank"
        assert decode(data, ImageConfig(size=32)).status == "ok"
        assert decode(data, ImageConfig(size=32, blank="keep")).status == "ok"
    # a difference that nobody sees is none, and one that can be seen is
    for step, status in ((8, "blank"), (9, "ok")):
        image = np.full((32, 32, 3), 100, np.uint8)
        image[:16] += step
        assert decode(encoded(image), WEB).status == status


def test_the_hash_of_a_picture_survives_encoding_it_again():
    card = Image.new("RGB", (200, 150), "white")
    card.paste((160, 30, 20), (40, 50, 120, 90))
    found = [
        decode(encoded(card, "JPEG", quality=quality), ImageConfig(size=64)) for quality in (80, 95)
    ]
    assert found[0].body != found[1].body and found[0].look == found[1].look
    same = decode(encoded(card, "JPEG", quality=80), ImageConfig(size=64, crop="random"), key="b")
    assert (same.body, same.look) == (found[0].body, found[0].look)
    looks = {decode(encoded(scene(200, 150, n)), ImageConfig(size=64)).look for n in range(50)}
    assert len(looks) == 50
    smaller = decode(encoded(card.resize((100, 75))), ImageConfig(size=64))
    assert smaller.look != found[0].look
