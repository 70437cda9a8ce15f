"""No fault or limit of metadata costs the pixels, and the orientation still counts."""

import io
import struct
import zlib

import numpy as np
import pytest
from pictures import chunk, encoded, scene
from PIL import Image

from pinxit.data.images.decode import ImageConfig, decode
from pinxit.data.images.metadata import jxl_size, without_metadata

IMAGE = scene(40, 24)
SMALL = ImageConfig(size=16, formats=("JPEG", "PNG", "WEBP", "TIFF", "AVIF"))
WORKFLOW = bytes(range(32, 127)) * 16_000
"""A text of 1.5 MB, which Pillow refuses to expand."""


def with_chunk(data: bytes, kind: bytes, body: bytes, *, crc: bytes = b"") -> bytes:
    """Returns a PNG with one more chunk after its header."""
    whole = chunk(kind, body)
    return data[:33] + (whole[:-4] + crc if crc else whole) + data[33:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def with_segment(data: bytes, *segments: bytes) -> bytes:
    """Returns a JPEG with more segments after its first bytes."""
    return data[:2] + b"".join(segments) + data[2:]


PNG, JPEG = encoded(IMAGE), encoded(IMAGE, "JPEG", quality=95)
ICC = b"ICC_PROFILE\0"
FAULTY = {
    "zTXt of 1.5 MB": with_chunk(PNG, b"zTXt", b"workflow\0\0" + zlib.compress(WORKFLOW)),
    "iTXt of 1.5 MB": with_chunk(PNG, b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(WORKFLOW)),
    "tEXt of 70 MB": with_chunk(PNG, b"tEXt", b"prompt\0" + bytes([65]) * (70 * 2**20)),
    "iCCP that expands": with_chunk(PNG, b"iCCP", b"p\0\0" + zlib.compress(bytes(2**24), 9)),
    "iCCP of another method": with_chunk(PNG, b"iCCP", b"p\0\7" + bytes(20)),
    "iCCP of nothing": with_chunk(PNG, b"iCCP", b""),
    "text with a wrong checksum": with_chunk(PNG, b"tEXt", b"a\0b", crc=b"abcd"),
    "zTXt of another method": with_chunk(PNG, b"zTXt", b"a\0\7b"),
    "gAMA cut": with_chunk(PNG, b"gAMA", b"\0"),
    "cHRM cut": with_chunk(PNG, b"cHRM", b"\0"),
    "pHYs cut": with_chunk(PNG, b"pHYs", b"\0"),
    "acTL cut": with_chunk(PNG, b"acTL", b"\0"),
    "EXIF with a wrong checksum": with_chunk(PNG, b"eXIf", b"MM\0*", crc=b"abcd"),
    "JFIF cut": with_segment(JPEG, segment(0xE0, b"JFIF")),
    "Adobe cut": with_segment(JPEG, segment(0xEE, b"Adobe")),
    "Photoshop cut": with_segment(JPEG, segment(0xED, b"Photoshop 3.0\0" + b"8BIM\0\0")),
    "comment": with_segment(JPEG, segment(0xFE, b"\xff\xd9 no end")),
    "profile of 10 MB": with_segment(JPEG, *[segment(0xE2, ICC + bytes(65_000))] * 150),
    "XMP of 10 MB": with_segment(
        JPEG, *[segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bytes(65_000))] * 150
    ),
    "WebP, XMP of 5 MB": encoded(IMAGE, "WEBP", lossless=True, xmp=bytes(5 * 2**20)),
    "WebP, profile of noise": encoded(IMAGE, "WEBP", lossless=True, icc_profile=b"noise"),
    "WebP, XMP cut": encoded(IMAGE, "WEBP", lossless=True, xmp=bytes(3000))[:-1000],
    "AVIF, XMP of 2 MB": encoded(IMAGE, "AVIF", quality=100, subsampling="4:4:4", xmp=bytes(2**21)),
    "TIFF, profile of 2 MB": encoded(IMAGE, "TIFF", icc_profile=bytes(2**21)),
}


@pytest.mark.parametrize("name", FAULTY)
def test_faults_of_metadata_leave_the_picture(name: str):
    decoded = decode(FAULTY[name], SMALL)
    assert decoded.status == "ok", decoded.detail
    assert decoded.image is not None and decoded.original == (40, 24)
    expected = decode(JPEG if FAULTY[name][:2] == b"\xff\xd8" else PNG, SMALL).image
    assert expected is not None
    assert np.abs(decoded.image.astype(int) - expected).max() <= (12 if "AVIF" in name else 0)


def test_pillow_alone_refuses_a_long_text():
    with pytest.raises(ValueError, match="MAX_TEXT_CHUNK"):
        Image.open(io.BytesIO(FAULTY["zTXt of 1.5 MB"]), formats=("PNG",))


def test_broken_exif_in_an_avif_leaves_the_picture():
    exif = Image.Exif()
    exif[0x0110] = "camera"
    data = encoded(IMAGE, "AVIF", quality=100, exif=exif)
    at = data.index(b"MM\0*" if b"MM\0*" in data else b"II*\0")
    broken = data[:at] + b"nope" + data[at + 4 :]
    assert decode(broken, SMALL).original == (40, 24)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_still_counts(kind: str, turn: int):
    exif = Image.Exif()
    exif[0x0112] = turn
    more = {"JPEG": {}, "PNG": {}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}[kind]
    assert decode(encoded(IMAGE, kind, exif=exif, **more), SMALL).original == (
        (24, 40) if turn >= 5 else (40, 24)
    )


def test_the_orientation_of_text_and_xmp_in_a_png_still_counts():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    lines = f"\nexif\n{len(exif):8d}\n{exif.hex()}\n".encode()
    name = b"Raw profile type exif\0"
    xmp = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    for kind, body in (
        (b"tEXt", name + lines),
        (b"zTXt", name + b"\0" + zlib.compress(lines)),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
    ):
        assert decode(with_chunk(PNG, kind, body), SMALL).original == (24, 40), kind
    # a text that does not expand cannot turn anything, and costs nothing
    body = name + b"\0" + zlib.compress(bytes(2**24))
    assert decode(with_chunk(PNG, b"zTXt", body), SMALL).original == (40, 24)


def test_an_image_without_metadata_stays_as_it_is():
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encoded(IMAGE, kind)
        if kind != "JPEG":
            assert without_metadata(data, kind) == data
        assert without_metadata(without_metadata(data, kind), kind) == without_metadata(data, kind)


def jxl_header(*fields: tuple[int, int]) -> bytes:
    """Returns a JPEG XL codestream that begins with these (value, bits)."""
    bits = used = 0
    for value, count in fields:
        bits, used = bits | value << used, used + count
    return b"\xff\x0a" + bits.to_bytes(18, "little")


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        (((1, 1), (31, 5), (1, 3)), (256, 256)),
        (((1, 1), (0, 5), (0, 3), (2, 5)), (24, 8)),
        (((0, 1), (0, 2), (299, 9), (0, 3), (0, 2), (256, 9)), (257, 300)),
        (((0, 1), (1, 2), (1079, 13), (5, 3)), (1920, 1080)),
        (((0, 1), (3, 2), (2**30 - 1, 30), (7, 3)), (2**31, 2**30)),
    ],
)
def test_the_size_of_a_jpeg_xl_is_read_from_its_header(fields, size):
    data = jxl_header(*fields)
    assert jxl_size(data) == size
    signature = b"\0\0\0\x0cJXL \r\n\x87\n"
    boxed = signature + struct.pack(">I", 8 + len(data)) + b"jxlc" + data
    part = signature + struct.pack(">I", 12 + len(data)) + b"jxlp" + bytes(4) + data
    assert jxl_size(boxed) == jxl_size(part) == size
    for broken in (signature, signature + bytes(8), signature + b"\0\0\0\x09jxlc\0"):
        with pytest.raises(ValueError, match="header"):
            jxl_size(broken)
