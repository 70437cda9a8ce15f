"""Folders as people have them: every picture and every caption is in a row or in a line."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinxit.config import UsageError
from pinxit.data.row import Row, Source, unusable
from pinxit.data.sources.catalogue import open_source
from pinxit.data.sources.samples import image_folder
from pinxit.data.sources.samples.sample_names import parse_name

PNG = b"\x89PNG not a real picture"


def fill(root: Path, files: dict[str, bytes | str]) -> str:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return str(root)


def every(source: Source) -> list[Row]:
    rows = [row for unit in source.units() for row in source.read(unit)]
    assert len(rows) == sum(source.count(unit) for unit in source.units())
    return rows


def outcomes(source: Source) -> list[tuple[str | None, str]]:
    return [(row.name, unusable(row) or row.caption) for row in every(source)]


def opened(root: Path, files: dict[str, bytes | str], **options) -> Source:
    return open_source("folder", path=fill(root, files), **options)


def test_the_revision_of_an_ordinary_folder_is_that_of_version_1(tmp_path: Path):
    """Prepared sets continue: the value is the one that releases before gave."""
    files = {
        "a/1.png": "1", "a/1.txt": "one", "b/2.JPG": "22", "b/2.caption": "two", "3.webp": "333",
        "metadata.jsonl": '{"file_name":"3.webp","text":"three"}',
        "a/.hidden.png": "x", "readme.md": "about",
    }  # fmt: skip
    source = opened(tmp_path, files)
    assert source.revision == "files-a9c3307a4a3b8af3"
    assert [row.key for row in every(source)] == [f"00000-000/{i:08d}" for i in range(3)]
    assert outcomes(source) == [("3.webp", "three"), ("a/1.png", "one"), ("b/2.JPG", "two")]


def test_captions_of_every_name(tmp_path: Path):
    files = {
        "0.jpg": PNG, "0.TXT": "zero", "1.jpg": PNG, "1.text": "one", "2.JPG": PNG, "2.cap": "two",
        "3.png": PNG, "3.png.txt": "three", "4.jpg": PNG, "4.caption.txt": "four",
        "5.jfif": PNG, "5.caption": "five", "6.jpe": PNG, "6.txt": "six", "6.caption": "spare",
        "7.heic": PNG, "7.txt": "", "8.jpg": PNG, "8.mask.png": PNG, "8.txt": "eight",
        "shot 1.5s.jpg": PNG, "shot 1.5s.txt": "early", "shot 1.7s.jpg": PNG,
        "shot 1.7s.txt": "late", "z.txt": "of no image",
    }  # fmt: skip
    source = opened(tmp_path, files)
    assert outcomes(source) == [
        *[("0.jpg", "zero"), ("1.jpg", "one"), ("2.JPG", "two"), ("3.png", "three")],
        *[("4.jpg", "four"), ("5.jfif", "five"), ("6.jpe", "six"), ("7.heic", "no_caption")],
        *[("8.jpg", "eight"), ("8.mask.png", "extra_image")],
        *[("shot 1.5s.jpg", "early"), ("shot 1.7s.jpg", "late")],
    ]
    assert source.unused == (
        "1 caption file belongs to no image (the first: z.txt)",
        "1 caption file is not used, since its image has another one (the first: 6.caption)",
    )
    assert len(source.units(limit=1)) == 1


def test_two_files_of_one_name_share_its_caption(tmp_path: Path):
    source = opened(tmp_path, {"x.jpg": PNG, "x.png": PNG, "x.txt": "both"})
    assert outcomes(source) == [("x.jpg", "both"), ("x.png", "both")]


def test_a_mask_never_takes_the_caption(tmp_path: Path):
    source = opened(tmp_path, {"x.mask.png": PNG, "x.txt": "of x", "y.png": PNG, "y.txt": "of y"})
    assert outcomes(source) == [("x.mask.png", "extra_image"), ("y.png", "of y")]
    assert source.unused == ("1 caption file belongs to no image (the first: x.txt)",)


def test_unpacked_output_of_img2dataset(tmp_path: Path):
    about = {"caption": "json", "url": "http://a/0", "width": 5, "punsafe": 0.25}
    files = {
        "0.jpg": PNG, "0.txt": "text", "0.json": json.dumps(about),
        "1.jpg": PNG, "1.json": json.dumps(about), "2.jpg": PNG, "2.json": "{",
        "stats.json": "{}",
    }  # fmt: skip
    source = opened(tmp_path, files)
    assert outcomes(source) == [("0.jpg", "text"), ("1.jpg", "json"), ("2.jpg", "bad_record")]
    row = every(source)[0]
    assert (row.width, row.origin, row.scores) == (5, "http://a/0", {"nsfw": 0.25})
    assert source.unused == ("1 JSON file belongs to no image (the first: stats.json)",)
    by_hand = open_source("folder", path=str(tmp_path), columns={"caption": "caption"})
    assert outcomes(by_hand)[0] == ("0.jpg", "json")


def test_texts_in_other_encodings(tmp_path: Path):
    files = {
        "0.jpg": PNG, "0.txt": "größer".encode("utf-16"), "1.jpg": PNG, "1.txt": b"\xef\xbb\xbfone",
        "2.jpg": PNG, "2.txt": "café".encode("cp1252"), "3.jpg": PNG, "3.txt": "a\0 b",
        "4.jpg": PNG, "4.txt": "x" * (2**20 + 1), "5.jpg": b"", "5.txt": "five",
    }  # fmt: skip
    source = opened(tmp_path, files)
    assert outcomes(source) == [
        *[("0.jpg", "größer"), ("1.jpg", "one"), ("2.jpg", "bad_text"), ("3.jpg", "a b")],
        *[("4.jpg", "large_file"), ("5.jpg", "bad_record")],
    ]
    declared = open_source("folder", path=str(tmp_path), text_encoding="cp1252")
    assert outcomes(declared)[2] == ("2.jpg", "café")


def test_a_stray_text_leaves_the_classes_on(tmp_path: Path):
    files = {
        "pets/cat/1.png": PNG, "pets/tabby_cat/2.png": PNG, "dog/3.png": PNG, "dog/3.mask.png": PNG,
        "dog/3.edited.png": PNG, "readme.txt": "about", "dog/notes.txt": "of nothing", "4.png": PNG,
    }  # fmt: skip
    source = opened(tmp_path, files)
    assert outcomes(source) == [
        *[("4.png", "no_caption"), ("dog/3.edited.png", "dog"), ("dog/3.mask.png", "extra_image")],
        *[("dog/3.png", "dog"), ("pets/cat/1.png", "cat"), ("pets/tabby_cat/2.png", "tabby cat")],
    ]
    assert source.unused == (
        "2 caption files belong to no image (the first: dog/notes.txt)",
    )  # fmt: skip
    mixed = opened(tmp_path, {"dog/3.txt": "a dog"})
    assert outcomes(mixed)[3:] == [
        *[("dog/3.png", "a dog"), ("pets/cat/1.png", "no_caption")],
        ("pets/tabby_cat/2.png", "no_caption"),
    ]


def test_classes_that_are_called_like_splits(tmp_path: Path):
    files = {"train/0.png": PNG, "car/0.png": PNG, "test/0.png": PNG}
    source = opened(tmp_path / "vehicles", files)
    assert [row.caption for row in every(source)] == ["car", "test", "train"]
    splits = opened(tmp_path / "splits", {"train/cat/0.png": PNG, "val/cat/1.png": PNG})
    assert outcomes(splits) == [("train/cat/0.png", "cat")]
    assert splits.unused == (
        "1 file of the split val is not read (the first: val/cat/1.png); name them in "
        "--dataset_path to read them",
    )


def test_everything_else_is_in_a_line(tmp_path: Path):
    files = {
        "0.png": PNG, "0.txt": "zero", "a.svg": "", "b.NEF": "", "b.psd": "", "notes.csv": "",
        "labels.csv": "", "more.zip": "", "IMG_0001": PNG, "table.docx": "", "README.md": "",
        ".ipynb_checkpoints/0-checkpoint.png": PNG, "__MACOSX/._0.png": PNG, "._0.png": PNG,
        ".DS_Store": "", "Thumbs.db": "",
    }  # fmt: skip
    source = opened(tmp_path, files)
    assert outcomes(source) == [("0.png", "zero")]
    assert source.unused == (
        "3 pictures or films are in formats that are not read (the first: a.svg)",
        "2 tables are not read (the first: labels.csv)",
        "1 archive is not read; unpack it first (the first: more.zip)",
        "1 file has no suffix and is not read (the first: IMG_0001)",
        "2 other files are not read (the first: Thumbs.db)",
        "3 hidden files are not read (the first: ._0.png)",
    )


def test_linked_folders_are_followed_once(tmp_path: Path):
    fill(tmp_path / "elsewhere", {"1.png": PNG, "1.txt": "one"})
    root = tmp_path / "set"
    fill(root, {"0.png": PNG, "0.txt": "zero", "z/2.png": PNG, "z/2.txt": "two"})
    (root / "a").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root / "z")
    (root / "up").symlink_to(tmp_path)
    (root / "z" / "ring").symlink_to(root)
    (tmp_path / "elsewhere" / "back").symlink_to(root / "z")
    (root / "3.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (root / "3.txt").write_text("three")
    (root / "4.png").symlink_to(tmp_path / "nowhere")
    source = open_source("folder", path=str(root))
    assert outcomes(source) == [
        *[("0.png", "zero"), ("3.png", "three"), ("a/1.png", "one"), ("z/2.png", "two")],
    ]
    assert source.unused == (
        "1 link that leads nowhere or special file is not read (the first: 4.png)",
        "2 linked folders are not read, since they contain this folder (the first: up)",
    )


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch):
    path = fill(tmp_path, {"0.png": PNG, "closed/1.png": PNG})
    scandir = os.scandir

    def refused(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UsageError, match=r"the folder .*closed cannot be listed \(Permission"):
        open_source("folder", path=path)


def test_names_that_are_not_utf8(tmp_path: Path):
    folder = os.fsencode(tmp_path)
    for name, data in [(b"caf\xe9.png", PNG), (b"caf\xe9.txt", b"coffee"), (b"tea.png", PNG)]:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    source = open_source("folder", path=str(tmp_path))
    assert outcomes(source) == [("caf\\xe9.png", "coffee"), ("tea.png", "no_caption")]
    os.mkdir(os.path.join(folder, b"caf\xe9"))
    os.rename(os.path.join(folder, b"tea.png"), os.path.join(folder, b"caf\xe9/1.png"))
    os.remove(os.path.join(folder, b"caf\xe9.txt"))
    source = open_source("folder", path=str(tmp_path))
    assert outcomes(source) == [("caf\\xe9.png", "no_caption"), ("caf\\xe9/1.png", "bad_text")]
    assert every(source)[1].detail.startswith("the folder's name is not UTF-8 text (byte 0xe9")
    declared = open_source("folder", path=str(tmp_path), text_encoding="latin-1")
    assert outcomes(declared)[1] == ("caf\\xe9/1.png", "café")


STEMS = ("1", "2", "1.5s", "1.mask", "2.image", "2.caption", "a/1", "train/2", "1.jpg", ".1")
SUFFIXES = ("jpg", "PNG", "txt", "caption", "json", "svg", "csv")
NAMES = st.tuples(st.sampled_from(STEMS), st.sampled_from(SUFFIXES)).map(".".join)


@settings(max_examples=150, deadline=None)
@given(st.sets(NAMES, max_size=12))
def test_every_file_is_in_a_row_or_in_a_line(tmp_path_factory, names: set[str]):
    files: dict[str, bytes | str] = dict.fromkeys(names, PNG)
    files |= {name: f"words of {name}" for name in names if name.endswith(("txt", "caption"))}
    files |= {name: "{}" for name in names if name.endswith("json")}
    files["always.png"] = PNG
    source = opened(tmp_path_factory.mktemp("folder"), files)
    image_folder.read_folder.cache_clear()
    rows = every(source)
    images = [name for name in files if _kind(name) == "image"]
    assert [row.name for row in rows] == sorted(images)
    counted = sum(int(line.split()[0]) for line in source.unused)
    used = {row.caption for row in rows if row.caption.startswith("words of ")}
    about = [name for name in names if _kind(name) == "about"]
    others = {name for name in names if name not in images and name not in about}
    others -= {".1.svg", ".1.csv"}  # hidden, and no pictures or captions
    json_lines = [int(line.split()[0]) for line in source.unused if "JSON" in line]
    assert counted - sum(json_lines) + len(used) == len(others)
    assert sum(json_lines) <= len(about)


def _kind(name: str) -> str | None:
    parsed = parse_name(name)
    return parsed.kind if parsed else None


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOENT])
def test_one_file_that_cannot_be_read_costs_its_row(tmp_path: Path, monkeypatch, number: int):
    files = {f"{i}.{kind}": "words" for i in range(4) for kind in ("png", "txt")}
    source = opened(tmp_path, files)
    refuse(monkeypatch, number, "1.png", "2.txt")
    rows = every(source)
    assert [row.fault for row in rows] == [None, "unreadable", "unreadable", None]
    assert rows[1].name == "1.png" and errno.errorcode[number] in rows[2].detail
    assert rows[2].detail.startswith("2.txt: ")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_a_fault_of_this_machine_costs_no_row(tmp_path: Path, monkeypatch, number: int):
    source = opened(tmp_path, {"1.png": "x", "1.txt": "words"})
    refuse(monkeypatch, number, "1.png")
    with pytest.raises(OSError) as error:
        every(source)
    assert error.value.errno == number


def refuse(monkeypatch, number: int, *names: str) -> None:
    """Makes opening of these files fail with this error."""
    real = image_folder.open_file

    def open_file(path: str, **options):
        if os.path.basename(path) in names:
            raise OSError(number, os.strerror(number), path)
        return real(path, **options)

    monkeypatch.setattr(image_folder, "open_file", open_file)
