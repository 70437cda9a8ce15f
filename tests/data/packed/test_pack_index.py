"""The index of a pack: what is written is read, and damage is refused."""

import zlib

import numpy as np
import pytest

from pinxit.data.packed.pack_index import DamagedPack, PackIndex, index_name

RECORDS = [b"first", b"", b"the third one"]


def index_of(records: list[bytes]) -> PackIndex:
    offsets = np.cumsum([0, *map(len, records)]).astype(np.uint32)
    checksums = np.array([zlib.crc32(record) for record in records], np.uint32)
    return PackIndex("ab" * 32, offsets, checksums)


def test_an_index_is_read_as_it_was_written():
    index = index_of(RECORDS)
    content = index.to_bytes()
    assert len(content) == 48 + 4 * (2 * len(RECORDS) + 1)
    again = PackIndex.from_bytes(content, "x.index")
    assert len(again) == 3 and again.sha256 == "ab" * 32 and again.size == 18
    np.testing.assert_array_equal(again.offsets, index.offsets)
    assert [again.place(i) for i in range(3)] == [(0, 5), (5, 5), (5, 18)]
    assert index_name("packs/latents-8x8x4-00001.pack") == "packs/latents-8x8x4-00001.index"


def test_a_record_fits_only_its_own_bytes():
    index = index_of(RECORDS)
    assert all(index.fits(i, record) for i, record in enumerate(RECORDS))
    assert not index.fits(0, b"firsT") and not index.fits(0, b"fir") and not index.fits(2, b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not the index"),
        (b"PXPACK0\n" + bytes(60), "not the index"),
        (index_of(RECORDS).to_bytes()[:-1], "do not fit 3 records"),
        (index_of(RECORDS).to_bytes() + b"\0", "do not fit 3 records"),
        (index_of(RECORDS[:1]).to_bytes()[:48] + b"\1\0\0\0" * 3, "do not ascend from 0"),
    ],
)
def test_what_is_no_index_is_refused(content: bytes, reason: str):
    with pytest.raises(DamagedPack, match=reason):
        PackIndex.from_bytes(content, "x.index")
