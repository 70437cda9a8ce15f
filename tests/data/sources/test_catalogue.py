"""The seam: every source by name, from any place, with one contract and one kind of error."""

import csv
import io
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import fsspec
import pytest
from coyo_files import write_coyo

from pinxit.data.row import Row, Source, Unit
from pinxit.data.sources.catalogue import SOURCES, open_source
from pinxit.data.sources.files import (
    File,
    Listing,
    files_fingerprint,
    list_files,
    open_file,
    without_held_out,
)

PNG = b"\x89PNG"


def every(source: Source) -> list[Row]:
    """All rows, read by a copy of the source, as workers do."""
    copy = pickle.loads(pickle.dumps(source))
    return [row for unit in source.units() for row in copy.read(unit)]


def make(name: str, root: Path) -> str:
    """Five rows in the form that a source reads; where they are."""
    records = [{"url": f"http://a/{i}", "caption": f"number {i}"} for i in range(5)]
    if name == "jsonl":
        (root / "a.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    elif name in ("csv", "tsv", "cc12m"):
        comma = "," if name == "csv" else "\t"
        out = io.StringIO()
        if name != "cc12m":
            out.write(f"url{comma}caption\n")
        csv.writer(out, delimiter=comma).writerows(list(record.values()) for record in records)
        (root / f"a.{'csv' if name == 'csv' else 'tsv'}").write_text(out.getvalue())
    elif name == "folder":
        for i in range(5):
            (root / f"{i}.png").write_bytes(PNG)
            (root / f"{i}.txt").write_text(f"number {i}")
    elif name in ("webdataset", "hf", "monet"):
        with tarfile.open(root / "0.tar", "w") as tar:
            for i in range(5):
                for suffix, data in (("png", PNG), ("txt", f"number {i}".encode())):
                    info = tarfile.TarInfo(f"{i}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    else:
        texts = [f"number {i}" for i in range(5)]
        write_coyo(root / "a.parquet", 5, text=texts)
    return str(root)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_one_contract_for_all(name: str, tmp_path: Path):
    source = open_source(name, path=make(name, tmp_path), unit_rows=2)
    assert isinstance(source, Source) and source.name == name and source.revision
    units = source.units()
    assert len({unit.id for unit in units}) == len(units) and units == source.units()
    assert all(Path(unit.id).name == unit.id and isinstance(unit, Unit) for unit in units)
    assert source.units(limit=1) == units[:1] and source.units(limit=99) == units
    rows = every(source)
    assert rows == every(source)
    assert [row.caption for row in rows] == [f"number {i}" for i in range(5)]
    assert len({row.key for row in rows}) == 5
    for unit in units:
        read = list(source.read(unit))
        assert unit.rows in (None, len(read))
        assert all(row.key.startswith(f"{unit.id}/") and len(row.key.rpartition("/")[2]) == 8
                   for row in read)  # fmt: skip
        assert all((row.image is not None) == source.has_images for row in read)
        assert all((row.url is not None) != source.has_images for row in read)
    assert len(pickle.dumps(source)) < 3000


@pytest.mark.parametrize("name", ["coyo", "jsonl", "webdataset", "folder"])
def test_any_file_system_of_fsspec(name: str, tmp_path: Path):
    make(name, tmp_path)
    memory = fsspec.filesystem("memory")
    for path in tmp_path.iterdir():
        memory.pipe(f"/{name}-set/{path.name}", path.read_bytes())
    source = open_source(name, path=f"memory://{name}-set")
    assert [row.caption for row in every(source)] == [f"number {i}" for i in range(5)]
    local = open_source(name, path=str(tmp_path))
    assert source.revision == local.revision  # the same names and sizes
    if name != "folder":
        pattern = open_source(name, path=f"memory://{name}-set/*")
        assert [unit.id for unit in pattern.units()] == [unit.id for unit in source.units()]
        (file,) = tmp_path.iterdir()
        assert len(every(open_source(name, path=f"memory://{name}-set/{file.name}"))) == 5


def test_relative_paths_survive_a_change_of_folder(tmp_path: Path, monkeypatch):
    make("coyo", tmp_path)
    monkeypatch.chdir(tmp_path)
    source = open_source("coyo", path="a.parquet")
    monkeypatch.chdir("/")
    assert len(every(source)) == 5


def test_wrong_input_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="dataset_name: 'koyo' is unknown; valid: coyo, laion2b"):
        open_source("koyo")
    with pytest.raises(ValueError, match="unit_rows: 0 is too small"):
        open_source("coyo", unit_rows=0)
    for name in ("parquet", "csv", "tsv", "jsonl", "folder", "webdataset", "hf"):
        with pytest.raises(ValueError, match="dataset_path: none is missing"):
            open_source(name)
    for path in (tmp_path / "no.parquet", tmp_path / "no" / "*.parquet", "no/such.parquet"):
        with pytest.raises(ValueError, match=r"'.*parquet' does not exist; valid: COYO-format"):
            open_source("coyo", path=str(path))
    with pytest.raises(ValueError, match="revision: 'v1' applies to datasets on the hub"):
        open_source("coyo", path=make("coyo", tmp_path), revision="v1")
    with pytest.raises(ValueError, match=r"holds no \.tar file .*it holds a\.parquet"):
        open_source("webdataset", path=str(tmp_path))
    for url in ("nosuch://bucket/a.parquet", "memory://nowhere/a.parquet"):
        with pytest.raises(ValueError, match=r"path: .*(cannot be listed|does not exist)"):
            open_source("coyo", path=url)


def test_fingerprint_is_of_names_and_sizes():
    files = [File("a", "/x/a", 1), File("b", "/x/b", None)]
    moved = [File("a", "s3://y/a", 1), File("b", "s3://y/b", None)]
    assert (
        files_fingerprint(files) == files_fingerprint(moved) and len(files_fingerprint(files)) == 22
    )
    assert files_fingerprint(files) != files_fingerprint([File("a", "/x/a", 2), files[1]])
    assert files_fingerprint(files) != files_fingerprint(files[:1])


def test_listing_follows_names(tmp_path: Path):
    for name in ("b/2.x", "a/10.x", "a/2.X", ".git/0.x", "c/.0.x", "skip.y"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    listing = list_files(str(tmp_path), suffixes=(".x",), form="x files")
    assert [file.name for file in listing.files] == ["a/10.x", "a/2.X", "b/2.x"]
    with open_file(listing.files[0].path) as file:
        assert file.read() == b"a/10.x"


def test_held_out_splits():
    lines: list[str] = []

    def kept(*names: str, folders: bool = False) -> list[str]:
        files = [File(name, name, 1) for name in names]
        listing = without_held_out(Listing(tuple(files), "files-0"), folders=folders)
        lines.extend(listing.unused)
        return [file.name for file in listing.files]

    assert kept("data/train-0.parquet", "data/test-0.parquet") == ["data/train-0.parquet"]
    assert kept("train/0.tar", "val/0.tar", "extra/0.tar") == ["train/0.tar", "extra/0.tar"]
    assert kept("test/0.tar", "validation/0.tar") == ["test/0.tar", "validation/0.tar"]
    assert kept("contest.tar", "trainer.tar") == ["contest.tar", "trainer.tar"]
    assert kept("train/test-drive.png", "test/0.png", folders=True) == ["train/test-drive.png"]
    advice = "; name them in --dataset_path to read them"
    assert lines == [
        f"1 file of the split test is not read (the first: data/test-0.parquet){advice}",
        f"1 file of the split val is not read (the first: val/0.tar){advice}",
        f"1 file of the split test is not read (the first: test/0.png){advice}",
    ]
    lines.clear()
    assert kept("train-0.tar", "dev-0.tar", "test-0.tar", "test-1.tar") == ["train-0.tar"]
    assert lines == [f"3 files of the splits dev, test are not read (the first: dev-0.tar){advice}"]
    lines.clear()
    classes = ("bus/0.png", "car/0.png", "dev/0.png", "train/0.png")
    assert kept(*classes, folders=True) == list(classes)  # a train is a vehicle
    assert kept("train.png", "dev.jpg", "test shot.jpg", folders=True) == [
        *("train.png", "dev.jpg", "test shot.jpg"),
    ]
    assert lines == []


def test_files_that_a_table_leaves_out_are_named(tmp_path: Path):
    for name in ("train.csv", "test.csv", "test2.jpg", "more.parquet", "README.md", ".x.csv"):
        (tmp_path / name).write_text("url,caption\nhttp://a/0.jpg,a cat\n")
    assert open_source("csv", path=str(tmp_path)).unused == (
        "1 table is not read (the first: more.parquet)",
        "1 other file is not read (the first: test2.jpg)",
        "1 hidden file is not read (the first: .x.csv)",
        "1 file of the split test is not read (the first: test.csv); name them in --dataset_path "
        "to read them",
    )


def test_opening_needs_no_jax():
    """Workers that fetch and decode start fast and small."""
    code = (
        "import sys, pinxit.data.sources.catalogue, pinxit.data.filters.row_filter; "
        "print([m for m in ('jax', 'pyarrow', 'huggingface_hub', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
