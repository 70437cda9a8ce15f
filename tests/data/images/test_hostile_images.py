"""Whatever the bytes, decoding ends in a status."""

import io
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from pictures import chunk, encoded, png, scene
from PIL import Image

from pinxit.data.images import decode as images
from pinxit.data.images.decode import FORMATS, ImageConfig, decode
from pinxit.data.outcome import STATUSES

ALL = tuple(name for name in FORMATS if name not in ("HEIF", "JXL"))
SMALL = ImageConfig(size=32, formats=ALL)


def vp8x(width: int, height: int) -> bytes:
    body = b"\x10\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = b"WEBPVP8X" + struct.pack("<I", 10) + body
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


HUGE = {
    "png": png(50_000, 50_000, rows=b"\0" * 1000),
    "gif": b"GIF87a" + struct.pack("<HH", 65_535, 65_535) + encoded(scene(8, 8), "GIF")[10:],
    "gif frame": encoded(scene(8, 8), "GIF").replace(
        b",\0\0\0\0\x08\0\x08\0", b",\0\0\0\0" + struct.pack("<HH", 65_535, 60_000)
    ),
    "bmp": b"BM"
    + struct.pack("<IIIIiiHHIIIIII", 58, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 4, 0, 0, 0, 0)
    + bytes(4),
    "webp": vp8x(16_384, 16_384),
    "webp lossless": b"RIFF\0\1\0\0WEBPVP8L\0\1\0\0\x2f\xff\xff\xff\x0f" + bytes(250),
    "webp lossy": b"RIFF\0\1\0\0WEBPVP8 \0\1\0\0\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(250),
    "jpeg": encoded(scene(16, 16), "JPEG").replace(
        b"\xff\xc0\0\x11\x08\0\x10\0\x10", b"\xff\xc0\0\x11\x08\xff\xff\xff\xff"
    ),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_header_that_announces_too_much_is_not_followed(name: str):
    decoded = decode(HUGE[name], SMALL)
    assert decoded.status == "too_many_pixels", decoded.detail
    assert decoded.image is None


def test_the_limit_of_pixels_is_exact_and_the_settings_own():
    data = encoded(scene(40, 30))
    assert decode(data, ImageConfig(size=8, max_pixels=1200)).status == "ok"
    refused = decode(data, ImageConfig(size=8, max_pixels=1199))
    assert (refused.status, refused.detail) == ("too_many_pixels", "40 x 30")
    # beyond the limit at which Pillow itself warns
    wide = decode(png(100_000, 900, rows=b""), ImageConfig(max_pixels=2**27))
    assert wide.status == "decode_error" and "truncated" in wide.detail


def test_ten_thousand_frames_cost_one():
    gif = encoded(scene(16, 16), "GIF")
    frame = gif[gif.index(b",\0\0\0\0") : -1]
    assert decode(gif[:-1] + frame * 10_000 + b";", SMALL).status == "ok"


def test_compressed_metadata_does_not_expand():
    bomb = zlib.compress(bytes(16 * 2**20), 9)
    for name, body in ((b"zTXt", b"k\0\0" + bomb), (b"iCCP", b"k\0\0" + bomb)):
        data = png(8, 8, rows=b"\0" * 25 * 8, more=chunk(name, body))
        assert decode(data, SMALL).status == "ok"  # the metadata is not read


EXIFS = {
    "noise": b"Exif\0\0" + random.Random(1).randbytes(200),
    "cut": b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01",
    "points beyond": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\xff\xff\0\0\xff\xff\xff\x7f",
    "itself": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0",
    "turn 0": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0\0\0\0\0",
    "turn 9": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0",
    "turn text": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0\x36\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("name", EXIFS)
def test_nonsense_in_exif_leaves_the_picture_as_it_is(name: str):
    image = scene(40, 24)
    for kind in ("JPEG", "PNG", "WEBP"):
        plain, odd = (encoded(image, kind, exif=exif) for exif in (b"", EXIFS[name]))
        found, expected = decode(odd, SMALL), decode(plain, SMALL)
        assert found.status == "ok", found.detail
        assert found.original == (40, 24)
        np.testing.assert_array_equal(found.image, expected.image)


def test_warnings_of_the_decoder_stay_inside():
    data = encoded(scene(), "JPEG", exif=EXIFS["points beyond"])
    with pytest.warns(UserWarning), Image.open(io.BytesIO(data)) as picture:
        picture.getexif()
    before = list(warnings.filters)
    assert decode(data, SMALL).status == "ok"
    assert warnings.filters == before


@pytest.mark.parametrize("kind", ALL)
def test_a_truncated_image_is_an_error(kind: str):
    data = encoded(scene(200, 150), kind)
    for part in (0.2, 0.5, 0.9):
        decoded = decode(data[: int(len(data) * part)], SMALL)
        assert (decoded.status, decoded.image) == ("decode_error", None), part
        assert decoded.detail and "0x" not in decoded.detail


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\n<HTML>", "HTML"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b'{"error": 1}', "JSON"),
        (b"\0\0\0\x1cftypisom\0\0", "video"),
        (b"\x89PNG\r\n\x1a", "89 50 4e 47"),
        (b"pixels", "70 69 78"),
        (encoded(np.zeros((4, 4, 3), np.uint8), "TIFF"), "TIFF"),
        (encoded(np.zeros((4, 4, 3), np.uint8), "PPM"), "50 36"),
        (encoded(np.zeros((16, 16, 3), np.uint8), "ICO"), "icon"),
    ],
)
def test_what_is_no_accepted_image_is_named(data: bytes, said: str):
    decoded = decode(data, ImageConfig())
    assert decoded.status == "not_image"
    assert said in decoded.detail


def test_the_first_bytes_decide_the_reader():
    for kind in ALL:
        for other in ALL:
            if kind != other:
                mixed = encoded(scene(), kind)[:16] + encoded(scene(), other)[16:]
                assert decode(mixed, SMALL).status in ("decode_error", "too_many_pixels")
    assert decode(encoded(scene()), ImageConfig(formats=("JPEG",))).status == "not_image"


def corrupted(data: bytes, rng: random.Random) -> bytes:
    broken = bytearray(data)
    how = rng.randrange(4)
    if how == 0:
        del broken[rng.randrange(len(broken)) :]
    elif how == 1:
        for _ in range(rng.randrange(1, 20)):
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    else:
        at, count = rng.randrange(len(broken)), rng.randrange(1, 60)
        broken[at : at + count] = rng.randbytes(count) if how == 2 else b""
    return bytes(broken)


def test_corrupted_files_never_raise():
    rng = random.Random(7)
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    options = {
        "JPEG": {"exif": exif, "progressive": True},
        "PNG": {"exif": exif},
        "WEBP": {"exif": exif},
    }
    statuses = []
    for kind in ALL:
        data = encoded(scene(64, 48), kind, **options.get(kind, {}))
        for _ in range(50):
            broken = corrupted(data, rng)
            decoded = decode(broken, SMALL)
            assert decoded.status in STATUSES
            assert (decoded.image is not None) == (decoded.status == "ok")
            if decoded.image is not None:
                assert decoded.image.shape == (32, 32, 3)
            assert decode(broken, SMALL).detail == decoded.detail
            assert len(decoded.detail) <= 200 and "\n" not in decoded.detail
            statuses.append(decoded.status)
    assert len(statuses) == 350
    assert statuses.count("ok") > 20 and statuses.count("decode_error") > 100
