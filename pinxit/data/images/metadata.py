"""Removes metadata from encoded images, so that no fault or limit of it costs the pixels.

Pillow refuses a whole image for a text of more than a megabyte, a wrong checksum of a comment, or a
colour profile that does not expand. Of all metadata, decoding needs the orientation alone. So the
parts that can hold it (EXIF and XMP) are kept if they are whole and not too large, and all others
are left out before the reader sees them. Pixels, palettes and transparency stay as they are.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

LARGEST = 2**20
"""Most bytes of one piece of metadata that is kept, compressed or not."""
PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
"""The chunks of a PNG that its first frame is decoded from. Only the first frame is read."""
WEBP_METADATA = frozenset({b"EXIF", b"XMP ", b"ICCP"})


def without_metadata(data: bytes, image_format: str) -> bytes:
    """Returns the image without the metadata that decoding does not need.

    Images in other formats than PNG, JPEG and WebP are returned as they are.
    """
    match image_format:
        case "PNG":
            return b"".join((data[:8], *_png_chunks(data)))
        case "JPEG":
            return _jpeg(data)
        case "WEBP":
            return _webp(data)
        case _:
            return data


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """Yields the chunks of a PNG that are kept."""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        is_needed = kind in PNG_PIXELS or not kind[0] & 0x20  # lower case: the chunk is optional
        if is_needed or _turns_png(kind, data, at + 8, length):
            yield data[at:end]
        if kind == b"IEND":
            return
        at = end


def _turns_png(kind: bytes, data: bytes, start: int, length: int) -> bool:
    """Returns whether a chunk is whole and can hold the orientation."""
    end = start + length
    if length > LARGEST or kind not in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
        return False
    if end + 4 > len(data):
        return False
    body = data[start:end]
    if zlib.crc32(kind + body) != int.from_bytes(data[end : end + 4], "big"):
        return False
    match kind:
        case b"eXIf":
            return True
        case b"iTXt":
            return body.startswith(b"XML:com.adobe.xmp\0\0")
        case b"tEXt":
            return body.startswith(b"Raw profile type exif\0")
        case _:
            name, _, text = body.partition(b"\0")
            return name == b"Raw profile type exif" and text[:1] == b"\0" and _expands(text[1:])


def _expands(data: bytes) -> bool:
    """Returns whether compressed text is valid and not too large."""
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(data, LARGEST - 1)
    except zlib.error:
        return False
    return not inflater.unconsumed_tail


def _jpeg(data: bytes) -> bytes:
    """Returns a JPEG without comments, and without the application segments not needed."""
    parts, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (0x00, 0x01, 0xD8, 0xD9, 0xDA) or 0xD0 <= marker <= 0xD7:
            break  # the pixels begin, or the file is damaged, which the reader tells
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or _is_needed(marker, data[at + 4 : end]):
            parts.append(data[at:end])
        at = end
    return b"".join((*parts, data[at:]))


def _is_needed(marker: int, body: bytes) -> bool:
    """Returns whether a segment holds the orientation, or decides what the colours mean."""
    match marker:
        case 0xE0:
            return body.startswith(b"JFIF\0") and len(body) >= 14
        case 0xE1:
            return body.startswith((b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"))
        case 0xEE:
            return body.startswith(b"Adobe") and len(body) >= 12
        case _:
            return False


def _webp(data: bytes) -> bytes:
    """Returns a WebP image without its colour profile, and without other metadata that is cut off
    or too large."""
    if data[12:16] != b"VP8X":
        return data
    parts, at, dropped = [], 12, False
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length + (length & 1)
        if kind in WEBP_METADATA and (kind == b"ICCP" or length > LARGEST or end > len(data)):
            dropped = True
        else:
            parts.append(data[at:end])
        at = end
    if not dropped:
        return data
    body = b"".join((b"WEBP", *parts))
    return b"RIFF" + struct.pack("<I", len(body)) + body


# --- sizes that readers do not check before they decode ---------------------------------------


def webp_size(data: bytes) -> tuple[int, int]:
    """Returns the canvas size in a WebP header, which its reader would allocate on opening."""
    kind, head = data[12:16], data[16:30]
    if kind == b"VP8X":
        return int.from_bytes(head[8:11], "little") + 1, int.from_bytes(head[11:14], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[5:9], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = head[10:12], head[12:14]
    return int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF


JXL_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
"""The width and height of the aspect ratios that a JPEG XL header has numbers for."""
JXL_BITS = (9, 13, 18, 30)


def jxl_size(data: bytes) -> tuple[int, int]:
    """Returns the size in a JPEG XL header, whose reader decodes the image on opening.

    Raises ValueError if there is no header.
    """
    bits, used = int.from_bytes(_jxl_codestream(data)[2:20], "little"), 0

    def take(count: int) -> int:
        nonlocal used
        value = bits >> used & ((1 << count) - 1)
        used += count
        return value

    def side(*, small: bool) -> int:
        return 8 * (1 + take(5)) if small else 1 + take(JXL_BITS[take(2)])

    small = bool(take(1))
    height = side(small=small)
    ratio = take(3)
    if not ratio:
        return side(small=small), height
    across, down = JXL_RATIOS[ratio]
    return height * across // down, height


def _jxl_codestream(data: bytes) -> bytes:
    """Returns the beginning of the codestream of a JPEG XL image, which may be in a container."""
    if data.startswith(b"\xff\x0a"):
        return data[:20]
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1 and at + 16 <= len(data):
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            start = at + head + (4 if kind == b"jxlp" else 0)
            if data[start : start + 2] == b"\xff\x0a":
                return data[start : start + 20]
            break
        if length < head:
            break
        at += length
    raise ValueError("the JPEG XL image has no header")


def without_exif_item(data: bytes) -> bytes:
    """Returns an AVIF image whose EXIF item has an unknown type, so that it is not read."""
    return re.sub(rb"(infe.{4}.{2}.{2})Exif", rb"\1Skip", data, count=1, flags=re.DOTALL)
