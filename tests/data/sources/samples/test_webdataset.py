"""Tars of strangers: samples as img2dataset writes them, and nothing an archive can do to us."""

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest
from tar_files import JPEG, sample, write_tar  # pyrefly: ignore

from pinxit.data.row import Row, Source, unusable
from pinxit.data.sources.catalogue import open_source
from pinxit.data.sources.samples.sample_rows import LARGEST
from pinxit.data.sources.samples.tar_stream import LARGEST_HEADER, is_safe, members


def every(source: Source) -> list[Row]:
    """All rows, read by a copy of the source, as workers do."""
    copy = pickle.loads(pickle.dumps(source))
    return [row for unit in source.units() for row in copy.read(unit)]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_img2dataset_s_output(tmp_path: Path, format: int):
    keys = [f"{i:09d}" for i in range(5)]
    write_tar(tmp_path / "00000.tar", [m for key in keys[:3] for m in sample(key)], format)
    write_tar(tmp_path / "00001.tar", [m for key in keys[3:] for m in sample(key, punsafe=0.2)])
    (tmp_path / "00000.parquet").write_bytes(b"img2dataset's own table, not wanted")
    (tmp_path / "00000_stats.json").write_text("{}")
    source = open_source("webdataset", path=str(tmp_path))
    assert isinstance(source, Source) and source.has_images
    assert [unit.id for unit in source.units()] == ["00000-000", "00001-000"]
    rows = every(source)
    assert [row.image for row in rows] == [JPEG + key.encode() for key in keys]
    assert [row.caption for row in rows] == [f"text {key}" for key in keys]
    assert [row.origin for row in rows] == [f"http://a/{key}" for key in keys]
    assert rows[0].url is None and (rows[0].width, rows[0].height) == (256, 384)
    assert rows[3].scores == {"nsfw": 0.2} and rows[3].key == "00001-000/00000000"
    by_json = open_source("webdataset", path=str(tmp_path), columns={"caption": "caption"})
    assert every(by_json)[1].caption == f"json {keys[1]}"


def test_long_names_in_every_format(tmp_path: Path):
    name = "folder/" * 30 + "ünïcode" * 10 + "/0"
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = write_tar(tmp_path / "a.tar", [(f"{name}.png", JPEG), (f"{name}.txt", b"x")], format)
        (row,) = every(open_source("webdataset", path=str(path)))
        assert row.caption == "x"
        with open(path, "rb") as file:
            assert [member.name for member in members(file, "a.tar")] == [
                f"{name}.png",
                f"{name}.txt",
            ]


def test_samples_without_captions_json_or_image(tmp_path: Path):
    files = [
        ("0.webp", JPEG),
        ("1.JPG", JPEG),
        ("1.json", b'{"caption": "from json", "image": "not this"}'),
        ("2.txt", b"an orphan"),
        ("3.png", JPEG),
        ("3.json", b"{ broken"),
        ("3.txt", b" \xff caf\xc3\xa9 "),
        ("4.mask.png", b"a mask"),
        ("4.png", JPEG),
        ("5.cls", b"7"),
        ("6.v2.jpg", JPEG),
        ("7/8.jpg", JPEG),
        ("7/8.txt", b"in a folder"),
    ]
    rows = every(open_source("webdataset", path=str(write_tar(tmp_path / "a.tar", files))))
    assert [row.image for row in rows] == [JPEG, JPEG, None, None, JPEG, JPEG, JPEG, None]
    assert [row.caption for row in rows] == ["", "from json", "", "", "", "", "in a folder", ""]
    assert [(row.name, unusable(row)) for row in rows] == [
        *[("0.webp", "no_caption"), ("1.JPG", None), ("2.txt", "no_image"), ("3.png", "bad_text")],
        *[("4.png", "no_caption"), ("6.v2.jpg", "no_caption"), ("7/8.jpg", None)],
        ("4.mask.png", "extra_image"),
    ]
    assert rows[3].detail == "3.txt is not UTF-8 text (byte 0xff at position 1)"
    assert rows[7].detail == "the picture of this sample is 4.png"
    assert [int(row.key[-8:]) for row in rows] == list(range(8))


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_pickles_are_never_opened(tmp_path: Path):
    bomb = pickle.dumps(Bomb(tmp_path / "canary"))
    files = [(f"0.{suffix}", bomb) for suffix in ("pkl", "pyd", "pickle", "pth", "pt", "npy")]
    files += [*sample("0"), ("1.pyd", bomb), ("2.jpg", bomb), ("2.json", bomb), ("2.txt", b"two")]
    rows = every(open_source("webdataset", path=str(write_tar(tmp_path / "a.tar", files))))
    assert len(rows) == 2 and rows[0].image is not None and rows[1].image == bomb
    assert not (tmp_path / "canary").exists()
    pickle.loads(bomb)
    assert (tmp_path / "canary").exists()  # the bomb was live


def test_commands_are_refused(tmp_path: Path):
    canary = tmp_path / "canary"
    for path in (f"pipe:touch {canary}", "pipe::file:///x", "simplecache::http://a/b.tar"):
        with pytest.raises(ValueError, match="names a command or a chain"):
            open_source("webdataset", path=path)
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    ["../0.jpg", "/etc/0.jpg", "a/../../0.jpg", "..\\0.jpg", "C:\\0.jpg", "\\0.jpg", "C:/0.jpg"],
)
def test_names_that_climb_are_rows_without_content(tmp_path: Path, name: str):
    assert not is_safe(name)
    path = write_tar(tmp_path / "a.tar", [(name, JPEG), *sample("1")])
    row, extra = every(open_source("webdataset", path=str(path)))
    assert row.caption == "text 1" and extra.image is None
    assert (extra.name, extra.fault) == (name, "bad_record")
    assert extra.detail == "its name leads out of the archive"


def test_links_and_devices_are_rows_without_content(tmp_path: Path):
    path = tmp_path / "a.tar"
    types = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
    with tarfile.open(path, "w") as tar:
        for number, kind in enumerate(types):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name, data in sample("9"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    row, *extras = every(open_source("webdataset", path=str(path)))
    assert row.caption == "text 9" and not any(extra.image for extra in extras)
    assert [(extra.name, extra.fault, extra.detail) for extra in extras] == [
        ("0.jpg", "bad_record", "a link in the archive"),
        ("1.jpg", "bad_record", "a link in the archive"),
        ("2.jpg", "bad_record", "not a regular file in the archive"),
        ("3.jpg", "bad_record", "not a regular file in the archive"),
    ]


def test_sparse_members_are_refused(tmp_path: Path):
    """A sparse member of 4 KB on disk may claim terabytes."""
    path = write_tar(tmp_path / "a.tar", sample("0"), tarfile.GNU_FORMAT)
    data = bytearray(path.read_bytes())
    data[156:157] = tarfile.GNUTYPE_SPARSE
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"refused: it has a sparse member \('0\.jpg'\)"):
        every(open_source("webdataset", path=str(path)))


def test_large_members_do_not_enter_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(LARGEST, "image", 1000)
    monkeypatch.setitem(LARGEST, "text", 100)
    files = [
        ("0.jpg", bytes(1001)),
        ("0.txt", b"large image"),
        ("1.jpg", JPEG),
        ("1.txt", b"x" * 101),
    ]
    rows = every(open_source("webdataset", path=str(write_tar(tmp_path / "a.tar", files))))
    assert [(row.image, row.fault, row.name, row.detail) for row in rows] == [
        (None, "large_file", "0.jpg", "0.jpg has 1001 bytes; the limit is 1000"),
        (None, "large_file", "1.jpg", "1.txt has 101 bytes; the limit is 100"),
    ]


def test_a_huge_header_is_refused(tmp_path: Path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("a" * (LARGEST_HEADER + 1) + ".jpg"))
    with pytest.raises(ValueError, match="is refused: it has a header of 65542 bytes"):
        every(open_source("webdataset", path=str(path)))


def test_every_cut_is_noticed(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", [m for key in ("0", "1") for m in sample(key)])
    data = path.read_bytes()
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512  # where the end mark begins
    source = open_source("webdataset", path=str(path))
    for size in [0, 1, 511, 512, 513, 700, 1024, 2048, end - 512, end - 1, end, end + 511]:
        path.write_bytes(data[:size])
        with pytest.raises(
            ValueError, match=r"a\.tar is damaged: it ends before its end-of-archive"
        ):
            list(source.read(source.units()[0]))
    path.write_bytes(data[: end + 512])
    assert len(list(source.read(source.units()[0]))) == 2
    path.write_bytes(data[:1024] + b"X" * 512 + data[1536:])
    with pytest.raises(ValueError, match=r"a\.tar is damaged: (bad checksum|invalid header)"):
        list(source.read(source.units()[0]))


def test_monet_reads_its_newest_version(tmp_path: Path):
    for version, key in [("v1.9.0", "0"), ("v1.10.0", "1")]:
        folder = tmp_path / version / "synthetic"
        folder.mkdir(parents=True)
        about = json.dumps({"caption_original": f"words {key}", "nsfw": 0.1}).encode()
        latent = ("0.embedding_vae-x.pth", b"a pickle")
        write_tar(folder / "0000.tar", [("0.jpg", JPEG), ("0.json", about), latent])
    source = open_source("monet", path=str(tmp_path))
    (row,) = every(source)
    assert row.caption == "words 1" and row.image == JPEG
    assert source.unused == (
        "1 file is not read, since the newest version is (the first: v1.9.0/synthetic/0000.tar)",
    )


def test_cc12m_with_images(tmp_path: Path):
    write_tar(tmp_path / "cc12m-train-0000.tar", sample("0"))
    (tmp_path / "info.parquet").write_bytes(b"")
    (tmp_path / "more.tar.gz").write_bytes(b"")
    source = open_source("cc12m", path=str(tmp_path))
    (row,) = every(source)
    assert row.caption == "text 0" and row.image is not None
    assert source.unused == (
        "1 archive is not read; unpack it first (the first: more.tar.gz)",
        "1 file is not read, since the .tar files are (the first: info.parquet)",
    )
