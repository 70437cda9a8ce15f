"""One damaged file among many is one unit that fails, and changes nothing for the others."""

import gzip
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coyo_files import write_coyo
from prepare_work import picture

from pinxit.cli.main import main
from pinxit.config import UsageError
from pinxit.data.filters.duplicate_list import open_duplicates
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.prepared.manifest import Manifest
from pinxit.data.row import Source
from pinxit.data.sources.catalogue import open_source
from pinxit.data.sources.damage import DamagedFile
from pinxit.prepare.row_limit import units_for
from pinxit.train.input.attempt_order import Attempts

FORMS = ("csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "parquet")


def write(path: Path, form: str, first: int, rows: int = 6) -> Path:
    """Writes a table of `rows` rows, numbered from `first` on."""
    records = [
        {"url": f"http://a/{i}", "caption": f"number {i}"} for i in range(first, first + rows)
    ]
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
        return path
    if form.startswith("jsonl"):
        lines = [json.dumps(record) for record in records]
    else:
        comma = "," if form.startswith("csv") else "\t"
        lines = [comma.join(row) for row in (["url", "caption"], *(r.values() for r in records))]
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if form.endswith(".gz") else data)
    return path


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def of_another_kind(path: Path) -> None:
    path.write_bytes(b"<html>404 not found</html>\n")


def without_captions(path: Path) -> None:
    form = path.name.partition(".")[2]
    if form == "parquet":
        pq.write_table(pq.read_table(path).drop_columns(["caption"]), path)
        return
    data = gzip.decompress(path.read_bytes()) if form.endswith(".gz") else path.read_bytes()
    data = data.replace(b"caption", b"comment")
    path.write_bytes(gzip.compress(data) if form.endswith(".gz") else data)


def lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")


DAMAGE = (empty, cut, of_another_kind, without_captions, lfs_pointer)


def damages(form: str) -> list[Callable[[Path], None]]:
    """Returns the kinds of damage that make a file of this form unreadable as a whole."""
    return [fn for fn in DAMAGE if fn is not cut or form in ("parquet", "csv.gz", "jsonl.gz")]


def read(source: Source) -> tuple[list[str], dict[str, str]]:
    """Returns the captions of all units, and the error of each one that fails."""
    captions, errors = [], {}
    for unit in source.units():
        try:
            captions += [row.caption for row in source.read(unit)]
        except ValueError as error:
            errors[unit.id] = str(error)
    return captions, errors


@pytest.mark.parametrize(
    ("form", "damage"), [(form, damage) for form in FORMS for damage in damages(form)]
)
@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_damaged_file_is_one_unit(tmp_path: Path, form: str, damage, where: int):
    for number in range(3):
        write(tmp_path / f"{number}.{form}", form, 6 * number)
    damage(tmp_path / f"{where}.{form}")
    name = form.removesuffix(".gz")
    if where == 0 and damage is without_captions:
        with pytest.raises(UsageError, match=rf"0\.{form}"):  # its columns may be the user's choice
            open_source(name, path=str(tmp_path), unit_rows=4)
        return
    source = open_source(name, path=str(tmp_path), unit_rows=4)
    captions, errors = read(source)
    assert captions == [f"number {i}" for i in range(18) if i // 6 != where]
    unit = f"{where:05d}-000"
    assert list(errors) == [unit] and f"{where}.{form}" in errors[unit] and "\n" not in errors[unit]
    units = source.units()
    (failing,) = [one for one in units if one.rows is None]
    assert failing.id == unit and units == source.units()
    assert source.units(limit=2) == units[:2]
    with pytest.raises(ValueError, match=rf"{where}\.{form}"):
        source.count(failing)
    # a limit of rows counts nothing for it
    assert units_for(source, 12) == len(units) - (where == 2)
    assert units_for(source, 1) == (2 if where == 0 else 1)


def test_all_files_are_damaged(tmp_path: Path):
    for number in range(5):
        empty(tmp_path / f"{number}.parquet")
    with pytest.raises(DamagedFile) as error:
        open_source("coyo", path=str(tmp_path))
    message = str(error.value)
    assert message.startswith("coyo: none of the 5 files can be read: ")
    assert "0.parquet is not a readable" in message and "2.parquet is not" in message
    assert "3.parquet" not in message and message.endswith("; and 2 more")
    with pytest.raises(DamagedFile, match=r"^\S+4\.parquet is not a readable parquet file"):
        open_source("coyo", path=str(tmp_path / "4.parquet"))


def test_a_gzipped_table_is_read_up_to_its_damage(tmp_path: Path):
    random.seed(0)
    words = ["".join(random.choices("abcdefghij", k=40)) for _ in range(1000)]
    lines = [f'{{"url": "http://a/{i}", "caption": "{word}"}}' for i, word in enumerate(words)]
    data = gzip.compress("\n".join(lines).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    write(tmp_path / "b.jsonl.gz", "jsonl.gz", 0)
    source = open_source("jsonl", path=str(tmp_path), unit_rows=100)
    units = source.units()
    intact = [unit for unit in units if unit.rows == 100]
    assert 3 <= len(intact) < 7 and [unit.rows for unit in units[len(intact) :]] == [None, 6]
    captions, errors = read(source)
    count = 100 * len(intact)
    assert captions[:count] == words[:count] and captions[-6:] == [f"number {i}" for i in range(6)]
    assert list(errors) == [f"00000-{len(intact):03d}"]
    assert "a.jsonl.gz is damaged: Compressed file ended" in errors[f"00000-{len(intact):03d}"]


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_file_that_was_mended_since_is_listed_again(tmp_path: Path, form: str):
    """The unit of the whole file would hold rows of other units of the next listing."""
    write(tmp_path / f"0.{form}", form, 0)
    empty(tmp_path / f"1.{form}")
    source = open_source(form, path=str(tmp_path), unit_rows=4)
    failing = source.units()[-1]
    write(tmp_path / f"1.{form}", form, 6)
    with pytest.raises(UsageError, match=r"can be read now; run the same command again"):
        list(source.read(failing))
    assert [unit.rows for unit in source.units()][-2:] != [None]


def test_files_with_images_among_files_with_urls(tmp_path: Path):
    write(tmp_path / "0.parquet", "parquet", 0)
    table = pa.table({"image": [b"\x89PNG"], "caption": ["one"]})
    pq.write_table(table, tmp_path / "1.parquet")
    source = open_source("parquet", path=str(tmp_path))
    captions, errors = read(source)
    assert len(captions) == 6 and list(errors) == ["00001-000"]
    assert "holds images, but the first file holds URLs" in errors["00001-000"]


def test_an_unreachable_file_is_no_damage(tmp_path: Path, monkeypatch):
    for number in range(2):
        write(tmp_path / f"{number}.parquet", "parquet", 6 * number)
    source = open_source("parquet", path=str(tmp_path))

    def unreachable(path: str, **more):
        raise ConnectionResetError(104, "Connection reset by peer", path)

    monkeypatch.setattr("pinxit.data.sources.tables.open_parquet.open_file", unreachable)
    with pytest.raises(OSError, match="reset by peer"):
        source.units()
    with pytest.raises(OSError, match="reset by peer"):
        open_source("parquet", path=str(tmp_path))


def test_streamed_training_goes_on_without_it(tmp_path: Path):
    for number in range(3):
        write_coyo(tmp_path / f"{number}.parquet", 8)
    cut(tmp_path / "1.parquet")
    lines: list[str] = []
    attempts = Attempts(
        open_source("coyo", path=str(tmp_path)), FilterConfig(unique_url=False), say=lines.append
    )
    stream = iter(attempts)
    keys = [next(stream).row.key for _ in range(16)]
    assert {key.partition("-")[0] for key in keys} == {"00000", "00002"} and len(set(keys)) == 16
    next(stream)  # of the next epoch
    assert list(attempts.unreadable) == ["00001-000"]
    (line,) = lines
    assert "unit 00001-000, which cannot be read" in line and "1.parquet is not a readable" in line


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Four tables of three pictures each."""
    folder = tmp_path / "tables"
    folder.mkdir()
    for number in range(4):
        images = [picture(3 * number + row) for row in range(3)]
        captions = [f"a thing here, number {3 * number + row}" for row in range(3)]
        pq.write_table(
            pa.table({"image": images, "caption": captions}), folder / f"{number}.parquet"
        )
    return folder


def prepared(tables: Path, out: Path, *more: str) -> int:
    given = [
        "prepare",
        "parquet",
        "--dataset_path",
        str(tables),
        "--out",
        str(out),
        "--vae",
        "none",
    ]
    given += ["--image_size", "16", "--images.workers", "1", "--workers", "1"]
    return main([*given, "--engine", "inline", *more])


@pytest.mark.parametrize("damage", [empty, cut, without_captions])
@pytest.mark.parametrize("where", [1, 3])
def test_prepare_leaves_it_out_if_asked(tables: Path, tmp_path: Path, capsys, damage, where: int):
    out, intact = tmp_path / "set", tmp_path / "whole"
    copy = shutil.copytree(tables, tmp_path / "copy")
    damage(tables / f"{where}.parquet")
    assert prepared(tables, out) == 1
    said = capsys.readouterr().err
    assert f"0000{where}-000 failed: " in said and f"{where}.parquet" in said
    assert "--skip_failed 1 to leave them out" in said and not (out / "manifest.json").exists()
    assert prepared(tables, out, "--skip_failed", "1") == 0
    assert f"0000{where}-000 left out: " in capsys.readouterr().err
    manifest = Manifest.read(out)
    assert set(manifest.skipped) == {f"0000{where}-000"} and dict(manifest.counts) == {"ok": 9}
    # the other units are the bytes that they are in the intact dataset
    assert prepared(copy, intact) == 0
    for unit in set(range(4)) - {where}:
        shards = [
            (root / "images" / f"0000{unit}-000.array_record").read_bytes()
            for root in (out, intact)
        ]
        assert shards[0] == shards[1]


def test_prepare_ends_if_the_first_file_of_all_is_damaged(tables: Path, tmp_path: Path, capsys):
    empty(tables / "0.parquet")
    assert prepared(tables, tmp_path / "set", "--skip_failed", "1") == 0
    assert set(Manifest.read(tmp_path / "set").skipped) == {"00000-000"}
    capsys.readouterr()
    for path in tables.iterdir():
        empty(path)
    assert prepared(tables, tmp_path / "none", "--skip_failed", "1") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "none of the 4 files can be read" in said and "Traceback" not in said


def test_find_duplicates_leaves_it_out_if_asked(tmp_path: Path, capsys):
    folder, path = tmp_path / "tables", tmp_path / "list"
    for number in range(3):
        write_coyo(folder / f"{number}.parquet", 8)
    whole = (folder / "1.parquet").read_bytes()
    (folder / "1.parquet").write_bytes(bytes(len(whole)))  # its fingerprint stays the same
    given = ["prepare", "coyo", "--dataset_path", str(folder), "--engine", "inline"]
    given += ["--find_duplicates", str(path)]
    assert main(given) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "1.parquet is not a readable parquet file" in said and "Traceback" not in said
    assert "again to continue, with --skip_failed 1 to leave out units" in said
    assert main([*given, "--skip_failed", "1"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "00001-000 left out: " in said and "8 of 16 rows remain; 8 by URL" in said
    source = open_source("coyo", path=str(folder))
    duplicates = open_duplicates(source, FilterConfig(duplicates=str(path)))
    assert duplicates.get("00000-000/00000007") is None
    assert duplicates.get("00002-000/00000000") == "filtered_url"
    for row in (0, 7, 8, 100):
        with pytest.raises(UsageError, match="does not cover unit 00001-000, which could not be"):
            duplicates.get(f"00001-000/{row:08d}")
