"""Formats beyond the usual ones: read where a reader is installed, named where none is."""

import io
import sys
import types

import numpy as np
import pytest
from pictures import encoded, scene
from PIL import Image, ImageFile

from pinxit.data.images import formats
from pinxit.data.images.decode import SUFFIXES, ImageConfig, decode
from pinxit.data.images.formats import OWN, WEB, reader_of, sniff

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
JXL = b"\xff\x0a" + (1 | 3 << 1 | 1 << 6).to_bytes(18, "little")
"""The header of a JPEG XL of 32 x 32 pixels."""
HEADS = {
    b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf": "AVIF",
    b"\0\0\0\x20ftypavis\0\0\0\0avismsf1miaf": "AVIF",
    b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf": "AVIF",
    b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic": "HEIF",
    HEIC: "HEIF",
    b"\0\0\0\x18ftyphevc\0\0\0\0": "HEIF",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JXL",
    b"\xff\x0a\x00": "JXL",
    b"\0\0\0\x18ftypisom\0\0\0\0": "",
    b"II*\0": "TIFF",
}


def test_the_first_bytes_name_the_format():
    assert {head: sniff(head) for head in HEADS} == HEADS


def test_suffixes_are_those_of_one_format():
    known = [suffix for suffixes in SUFFIXES.values() for suffix in suffixes]
    assert len(known) == len(set(known))
    assert all(suffix == suffix.lower() and "." not in suffix for suffix in known)
    wanted = "jpg jpeg jpe jfif jif png webp gif bmp tif tiff heic heif avif jxl"
    assert set(wanted.split()) <= set(known)
    assert set(WEB) == set(OWN) - {"TIFF"} == set(ImageConfig().accepted)


def test_avif_is_read_by_default():
    image = scene(80, 40)
    decoded = decode(encoded(image, "AVIF", quality=100, subsampling="4:4:4"), ImageConfig(size=32))
    expected = decode(encoded(image), ImageConfig(size=32))
    assert (decoded.status, decoded.original) == ("ok", (80, 40))
    assert decoded.image is not None and expected.image is not None
    assert np.abs(decoded.image.astype(int) - expected.image).mean() < 1
    refused = decode(encoded(image, "AVIF"), ImageConfig(max_pixels=3199))
    assert (refused.status, refused.detail) == ("too_many_pixels", "80 x 40")
    assert decode(encoded(image, "AVIF"), ImageConfig(formats=("PNG",))).status == "not_image"


@pytest.fixture
def no_readers():
    """Forgets the readers that were imported, before and after."""
    reader_of.cache_clear()
    yield
    reader_of.cache_clear()


@pytest.mark.parametrize(("data", "name"), [(HEIC, "HEIF"), (JXL, "JXL")])
def test_a_format_without_its_reader_is_unsupported(data, name, monkeypatch, no_readers):
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    decoded = decode(data, ImageConfig())
    assert decoded.status == "unsupported"
    assert decoded.detail == f'{name} needs pip install "pinxit[formats]"'


def test_a_pillow_without_avif_says_so(monkeypatch, no_readers):
    monkeypatch.setattr(formats.features, "check", lambda name: False)
    decoded = decode(encoded(scene(), "AVIF"), ImageConfig())
    assert (decoded.status, decoded.detail) == (
        "unsupported",
        "AVIF needs a Pillow with support for AVIF",
    )


class Reader(ImageFile.ImageFile):
    """A stand-in for the reader of an extra, which finds a PNG behind the first bytes."""

    format = "stand-in"

    def _open(self) -> None:
        Reader.opened += 1
        whole = self.fp.read()
        with Image.open(io.BytesIO(whole[whole.index(b"\x89PNG") :])) as image:
            self._whole = image.convert("RGB")
        self._size, self._mode, self.tile = self._whole.size, "RGB", []

    def load(self):
        self.im = self._whole.im
        return super().load()

    opened = 0


@pytest.mark.parametrize(("head", "name"), [(HEIC, "HEIF"), (JXL, "JXL")])
def test_a_reader_that_is_installed_is_used(head, name, monkeypatch, no_readers):
    one = formats.FORMATS[name]
    package = one.module.partition(".")[0]
    module = types.ModuleType(one.module)
    setattr(module, one.reader, Reader)
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, one.module, module)
    options = types.ModuleType(f"{package}.options")
    monkeypatch.setitem(sys.modules, f"{package}.options", options)
    image = scene(32, 32)
    decoded = decode(head + encoded(image), ImageConfig(size=32))
    assert decoded.status == "ok", decoded.detail
    np.testing.assert_array_equal(decoded.image, image)
    threads = options.DECODE_THREADS if name == "HEIF" else module.DECODE_THREADS
    assert threads == (1 if name == "HEIF" else 0)
    before = Reader.opened
    assert decode(head + encoded(image), ImageConfig(max_pixels=1000)).status == "too_many_pixels"
    # the reader of JPEG XL decodes on opening, so it must not even be asked
    assert Reader.opened - before == (1 if name == "HEIF" else 0)
