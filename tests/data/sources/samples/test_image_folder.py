"""Folders of images: each usual layout, each row once, no way out of the folder."""

import json
import pickle
from pathlib import Path

import pytest

from pinxit.data.row import Row, Source
from pinxit.data.sources.catalogue import open_source

PNG = b"\x89PNG not a real picture"


def every(source: Source) -> list[Row]:
    """All rows, read by a copy of the source, as workers do."""
    copy = pickle.loads(pickle.dumps(source))
    return [row for unit in source.units() for row in copy.read(unit)]


def fill(root: Path, files: dict[str, bytes | str]) -> str:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return str(root)


def test_texts_beside_the_images(tmp_path: Path):
    files = {
        "b/2.JPG": PNG + b"2", "b/2.caption": " two ",
        "a/1.png": PNG + b"1", "a/1.txt": "one\n",
        "3.webp": PNG + b"3", "notes.txt": "of nothing", "a/.hidden.png": PNG, "a/table.pdf": "x",
    }  # fmt: skip
    source = open_source("folder", path=fill(tmp_path, files), unit_rows=2)
    assert isinstance(source, Source) and source.has_images
    assert [(unit.id, unit.rows) for unit in source.units()] == [("00000-000", 2), ("00000-001", 1)]
    rows = every(source)
    assert [row.caption for row in rows] == ["", "one", "two"]
    assert [row.image for row in rows] == [PNG + b"3", PNG + b"1", PNG + b"2"]
    assert [row.key for row in rows] == [
        *("00000-000/00000000", "00000-000/00000001", "00000-001/00000002")
    ]
    assert source.units(limit=1) == source.units()[:1]


def test_metadata_of_the_hub_s_imagefolder(tmp_path: Path):
    lines = [
        {"file_name": "0.png", "text": "zero", "aesthetic": 5.0},
        {"file_name": "sub/1.png", "text": "one"},
        {"file_name": "absent.png", "text": "no image"},
        {"file_name": "../outside.png", "text": "climbs"},
        {"file_name": str(tmp_path / "outside.png"), "text": "absolute"},
    ]
    fill(tmp_path, {"outside.png": b"secret"})
    data = "\n".join(json.dumps(line) for line in lines)
    files = {"metadata.jsonl": data, "0.png": PNG, "sub/1.png": PNG, "unnamed.png": PNG}
    rows = every(open_source("folder", path=fill(tmp_path / "set", files)))
    readable = {row.caption for row in rows if row.image == PNG}
    assert readable == {"zero", "one", ""}
    lost = [row for row in rows if row.image is None]
    assert len(rows) == 6 and len(lost) == 3  # what cannot be read still has its row
    assert [row.scores for row in rows if row.caption == "zero"] == [{"aesthetic": 5.0}]


def test_metadata_as_csv_in_folders_below(tmp_path: Path):
    files = {
        "train/metadata.csv": 'file_name,caption\n0.png,"a, b"\n1.png,c\n',
        "train/0.png": PNG, "train/1.png": PNG, "test/9.png": PNG,
        "test/metadata.csv": "file_name,caption\n9.png,held out\n",
    }  # fmt: skip
    source = open_source("folder", path=fill(tmp_path, files))
    assert [row.caption for row in every(source)] == ["a, b", "c"]
    other = open_source("folder", path=str(tmp_path), columns={"caption": "caption"})
    assert [row.caption for row in every(other)] == ["a, b", "c"]


def test_folders_of_classes(tmp_path: Path):
    files = {"tabby_cat/0.png": PNG, "dog/1.png": PNG, "2.png": PNG}
    rows = every(open_source("folder", path=fill(tmp_path, files)))
    assert [row.caption for row in rows] == ["", "dog", "tabby cat"]


def test_a_folder_that_changes_is_noticed(tmp_path: Path):
    source = open_source("folder", path=fill(tmp_path, {"0.png": PNG, "1.png": PNG}))
    (unit,) = source.units()
    fill(tmp_path, {"0a.png": PNG})
    from pinxit.data.sources.samples.image_folder import read_folder

    read_folder.cache_clear()  # as in another process
    with pytest.raises(ValueError, match="has changed since it was opened"):
        list(source.read(unit))


def test_what_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds no .*\.png.* file .*it holds a\.pdf, b\.pdf"):
        open_source("folder", path=fill(tmp_path, {"a.pdf": "", "b.pdf": ""}))
    with pytest.raises(
        ValueError, match="dataset_path: none is missing; valid: the path of the folder data"
    ):
        open_source("folder")
    with pytest.raises(ValueError, match=r"columns: .* valid: caption, for a folder"):
        open_source("folder", path=fill(tmp_path, {"0.png": PNG}), columns={"url": "x"})
    with pytest.raises(
        ValueError, match=r"has a record without file_name or filename.*: name, text"
    ):
        fill(tmp_path, {"metadata.csv": "name,text\n0.png,x\n"})
        open_source("folder", path=str(tmp_path)).units()
    with pytest.raises(ValueError, match=r"metadata\.jsonl does not hold one JSON object per line"):
        fill(tmp_path, {"metadata.csv": "file_name,text\n", "metadata.jsonl": "[1]\n"})
        open_source("folder", path=str(tmp_path)).units()
