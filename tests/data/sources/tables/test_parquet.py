"""Parquet by row groups: every row once, numbered as in its file, wherever units are cut."""

import io
import pickle
from decimal import Decimal
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coyo_files import write_coyo
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from pinxit.config import UsageError
from pinxit.data.row import Row, Source
from pinxit.data.sources.catalogue import open_source
from pinxit.data.sources.tables import row_groups
from pinxit.data.sources.tables.parquet import ParquetSource
from pinxit.data.sources.tables.row_groups import units_of


def every(source: Source) -> list[Row]:
    """All rows, read by a copy of the source, as workers do."""
    copy = pickle.loads(pickle.dumps(source))
    return [row for unit in source.units() for row in copy.read(unit)]


def test_coyo_rows(tmp_path: Path):
    source = open_source("coyo", path=str(write_coyo(tmp_path / "part.parquet", 25)), unit_rows=10)
    assert isinstance(source, Source) and not source.has_images
    units = source.units()
    assert [(unit.id, unit.rows) for unit in units] == [
        ("00000-000", 8), ("00000-001", 8), ("00000-002", 9),
    ]  # fmt: skip
    rows = every(source)
    assert [row.url for row in rows] == [f"http://images.test/{i}.jpg" for i in range(25)]
    assert rows[0].key == "00000-000/00000000" and rows[24].key == "00000-002/00000024"
    row = rows[3]
    assert (row.caption, row.width, row.height) == ("a picture of thing number 3", 515, 403)
    assert row.phash == f"{3 * 2654435761:016x}" and row.image is None
    assert row.scores == pytest.approx(
        {"watermark": 0.1, "nsfw": 0.02, "aesthetic": 5.5, "clip_similarity": 0.25}
    )


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 20))
def test_units_cover_all_rows_and_follow_row_groups(groups, unit_rows):
    units = units_of(groups, unit_rows=unit_rows)
    assert [row for start, stop in units for row in range(start, stop)] == list(range(sum(groups)))
    assert all(0 < stop - start <= unit_rows for start, stop in units)
    edges = {sum(groups[:i]) for i in range(len(groups) + 1)}
    large = [(sum(groups[:i]), sum(groups[: i + 1])) for i in range(len(groups))]
    large = [(a, b) for a, b in large if b - a > unit_rows]
    for start, _ in units:  # a unit begins at a row group, or inside one that is too long for it
        assert start in edges or any(a < start < b for a, b in large)


@pytest.mark.parametrize("group", [1, 3, 7, 10, 100])
def test_row_groups_of_any_size_give_the_same_rows(tmp_path: Path, group: int):
    path = write_coyo(tmp_path / "part.parquet", 40, group=group)
    urls = [row.url for row in every(open_source("coyo", path=str(path), unit_rows=10))]
    assert urls == [f"http://images.test/{i}.jpg" for i in range(40)]


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path):
    for name, first in [("b/0.parquet", 1), ("a/1.PARQUET", 2), ("a/0.parquet", 3)]:
        write_coyo(tmp_path / name, 1, text=[f"file {first}"])
    (tmp_path / "a" / ".cache.parquet").write_bytes(b"not one")
    (tmp_path / "README.md").write_text("about")
    source = open_source("coyo", path=str(tmp_path))
    assert [row.caption for row in every(source)] == ["file 3", "file 2", "file 1"]
    assert [unit.id for unit in source.units()] == ["00000-000", "00001-000", "00002-000"]
    assert source.units(limit=2) == source.units()[:2]
    pattern = open_source("coyo", path=str(tmp_path / "a" / "*.parquet"))
    assert [row.caption for row in every(pattern)] == ["file 3"]


def test_the_revision_is_that_of_names_and_sizes(tmp_path: Path):
    for folder in ("one", "two"):
        write_coyo(tmp_path / folder / "0.parquet", 5)
    one, two = (open_source("coyo", path=str(tmp_path / name)) for name in ("one", "two"))
    assert one.revision == two.revision and str(one.revision).startswith("files-")
    write_coyo(tmp_path / "two" / "1.parquet", 5)
    assert open_source("coyo", path=str(tmp_path / "two")).revision != two.revision


def test_only_wanted_columns_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_coyo(tmp_path / "part.parquet", 4)
    asked = []
    read = pq.ParquetFile.iter_batches

    def spy(self, *args, **settings):
        asked.append(settings["columns"])
        return read(self, *args, **settings)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    assert len(every(open_source("coyo", path=str(path)))) == 4
    assert asked[0] == ["text", "url"]  # the look at the URLs when the source is opened
    assert "num_faces" not in asked[1] and "clip_similarity_vitb32" not in asked[1]
    assert len(asked[1]) == 10 and len(asked) == 2


def test_types_as_they_come(tmp_path: Path):
    path = write_coyo(
        tmp_path / "part.parquet",
        3,
        url=["http://a/1", None, ""],
        text=["one", "two", None],
        width=pa.array([640.0, float("nan"), None], pa.float64()),
        height=["480", "x", None],
        watermark_score=pa.array([0.5, None, float("nan")], pa.float64()),
    )
    rows = every(open_source("coyo", path=str(path)))
    assert [row.url for row in rows] == ["http://a/1", None, None]
    assert [row.caption for row in rows] == ["one", "two", ""]
    assert [(row.width, row.height) for row in rows] == [(640, 480), (None, None), (None, None)]
    assert [row.scores.get("watermark") for row in rows] == [0.5, None, None]


def test_a_missing_column_is_said_when_the_source_is_opened(tmp_path: Path):
    path = write_coyo(tmp_path / "part.parquet", 3, watermark_score=None)
    with pytest.raises(
        ValueError, match=r"no column for watermark \(watermark_score\); it has: id"
    ):
        open_source("coyo", path=str(path))
    rows = every(open_source("coyo", path=str(path), columns={"watermark": "none"}))
    assert len(rows) == 3 and "watermark" not in rows[0].scores


def test_a_later_file_that_lacks_a_column_is_named(tmp_path: Path):
    write_coyo(tmp_path / "0.parquet", 3)
    write_coyo(tmp_path / "1.parquet", 3, text=None)
    source = open_source("coyo", path=str(tmp_path))
    units = source.units()
    assert [(unit.id, unit.rows) for unit in units] == [("00000-000", 3), ("00001-000", None)]
    assert len(list(source.read(units[0]))) == 3
    with pytest.raises(ValueError, match=r"1\.parquet has no column for caption"):
        list(source.read(units[1]))


def test_images_of_the_hub_s_form(tmp_path: Path):
    images = [{"bytes": b"\x89PNG1", "path": "1.png"}, {"bytes": None, "path": "/etc/passwd"}]
    table = pa.table({"image": images, "text": ["one", "two"], "label": [1, 2]})
    pq.write_table(table, tmp_path / "train-00000.parquet")
    pq.write_table(table, tmp_path / "test-00000.parquet")
    for name in ("hf", "parquet"):
        source = open_source(name, path=str(tmp_path))
        assert source.has_images
        rows = every(source)
        assert [(row.image, row.caption) for row in rows] == [(b"\x89PNG1", "one"), (None, "two")]
        assert rows[1].url is None
    write_coyo(tmp_path / "urls" / "0.parquet", 2)
    with pytest.raises(ValueError, match=r"no column for image \(image, jpg"):
        open_source("hf", path=str(tmp_path / "urls"))


def test_damaged_files_are_named(tmp_path: Path):
    path = write_coyo(tmp_path / "part.parquet", 2000)
    data = bytearray(path.read_bytes())
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"cut\.parquet is not a readable parquet file"):
        open_source("coyo", path=str(tmp_path / "cut.parquet"))
    (tmp_path / "words.parquet").write_text("not parquet at all")
    with pytest.raises(ValueError, match=r"words\.parquet is not a readable parquet file"):
        open_source("coyo", path=str(tmp_path / "words.parquet"))
    start = pq.ParquetFile(path).metadata.row_group(0).column(1).data_page_offset
    data[start : start + 1000] = bytes(1000)  # the URLs
    path.write_bytes(data)
    with pytest.raises((ValueError, OSError), match=r"part\.parquet"):
        every(open_source("coyo", path=str(path)))


def test_laion_and_any_parquet(tmp_path: Path):
    table = pa.table({"URL": ["http://a/1"], "TEXT": ["old"], "WIDTH": [640.0], "punsafe": [0.1]})
    pq.write_table(table, tmp_path / "old.parquet")
    for name in ("laion2b", "laion-art", "parquet"):
        (row,) = every(open_source(name, path=str(tmp_path)))
        assert (row.url, row.caption, row.width) == ("http://a/1", "old", 640)
        assert row.scores == {"nsfw": 0.1}


def test_an_empty_table_has_no_units(tmp_path: Path):
    source = open_source("coyo", path=str(write_coyo(tmp_path / "part.parquet", 0)))
    assert source.units() == [] and isinstance(source, ParquetSource)


def test_a_column_of_text_is_no_image(tmp_path: Path):
    columns = {"url": ["http://a/1"], "image": ["1.png"], "caption": ["one"]}
    pq.write_table(pa.table(columns), tmp_path / "text.parquet")
    source = open_source("parquet", path=str(tmp_path / "text.parquet"))
    (row,) = every(source)
    assert not source.has_images and row.url == "http://a/1" and row.image is None
    with pytest.raises(ValueError, match=r"no column for image .*\(image: no encoded images"):
        open_source("hf", path=str(tmp_path / "text.parquet"))
    for kind in (pa.binary(), pa.large_binary(), pa.binary(4), pa.binary_view()):
        images = pa.array([b"\x89PNG"], kind)
        path = tmp_path / "binary.parquet"
        pq.write_table(pa.table({**columns, "image": images}), path)
        source = open_source("parquet", path=str(path))
        (row,) = every(source)
        assert source.has_images and row.image == b"\x89PNG" and row.url is None


class Counted(MemoryFileSystem):
    """Files in memory, behind a network whose bytes are counted."""

    protocol = "counted"
    sent = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("counted://", "memory://"))

    def _open(self, path, mode="rb", **settings):
        class Wire(io.BytesIO):
            def read(self, size=-1):
                data = super().read(size)
                Counted.sent += len(data)
                return data

        return Wire(self.store[path].getvalue())


@pytest.mark.parametrize(("folder", "most"), [("cache", 0), ("", 2**28), ("", 0)])
def test_a_remote_row_group_is_downloaded_once(tmp_path: Path, monkeypatch, folder, most: int):
    fsspec.register_implementation("counted", Counted, clobber=True)
    monkeypatch.setenv("PINXIT_TABLES", folder and str(tmp_path / folder))
    monkeypatch.setattr(row_groups, "CACHED_BYTES", most)
    path = write_coyo(tmp_path / f"{most}.parquet", 9000, group=3000)
    fsspec.filesystem("counted").store.clear()
    MemoryFileSystem().pipe(f"/set/{most}.parquet", path.read_bytes())
    local = every(open_source("coyo", path=str(path), unit_rows=150))
    source = open_source("coyo", path=f"counted://set/{most}.parquet", unit_rows=150)
    Counted.sent = 0
    units = source.units()
    assert len(units) == 60
    assert [unit.group for unit in units[::20]] == ["00000-00000", "00000-00001", "00000-00002"]
    assert [row for unit in units for row in source.read(unit)] == local
    times = Counted.sent / path.stat().st_size
    assert times < 1.1 if folder or most else times > 10, times
    again = open_source("coyo", path=f"counted://set/{most}.parquet", unit_rows=75)
    assert [row.url for row in again.read(again.units()[-1])] == [row.url for row in local[-75:]]
    other = open_source(
        "coyo", path=f"counted://set/{most}.parquet", unit_rows=150, columns={"watermark": "none"}
    )
    assert "watermark" not in next(other.read(other.units()[-1])).scores
    row_groups.release_groups()


def captions_of(path: Path, kind: pa.DataType, captions: list, **more) -> list[Row]:
    urls = [f"http://a/{i}" for i in range(len(captions))]
    pq.write_table(pa.table({"url": urls, "caption": pa.array(captions, kind)}), path)
    return every(open_source("parquet", path=str(path), **more))


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()),
        *(
            pa.dictionary(pa.int32(), pa.string()),
            pa.list_(pa.string()),
            pa.large_list(pa.string()),
        ),
        *(pa.list_(pa.string(), 1), pa.list_(pa.binary()), pa.list_(pa.large_string())),
    ],
    ids=str,
)
def test_types_that_hold_captions(tmp_path: Path, kind: pa.DataType):
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or "fixed_size" in str(kind)
    values = ["a cat", "café", None]
    rows = captions_of(tmp_path / "a.parquet", kind, [[v] if nested else v for v in values])
    assert [(row.caption, row.fault) for row in rows] == [
        ("a cat", None),
        ("café", None),
        ("", None),
    ]


def test_numbers_are_captions_too(tmp_path: Path):
    rows = captions_of(tmp_path / "a.parquet", pa.float64(), [1.5, float("nan"), None])
    assert [row.caption for row in rows] == ["1.5", "", ""]


def test_one_caption_of_a_list_whatever_the_row_groups(tmp_path: Path):
    lists = [["one", "two", "", None, "three"] for _ in range(300)]
    rows = captions_of(tmp_path / "a.parquet", pa.list_(pa.string()), lists)
    again = captions_of(tmp_path / "a.parquet", pa.list_(pa.string()), lists)
    assert rows == again and {row.caption for row in rows} == {"one", "two", "three"}
    assert captions_of(tmp_path / "a.parquet", pa.list_(pa.string()), [[], None])[0].caption == ""


@pytest.mark.parametrize(
    ("column", "kind", "shown"),
    [
        ("caption", pa.struct([("en", pa.string())]), "struct<en: string>"),
        ("caption", pa.map_(pa.string(), pa.string()), "map<string, string"),
        ("caption", pa.list_(pa.list_(pa.string())), "list<element: list<element: string>>"),
        ("caption", pa.list_(pa.struct([("from", pa.string())])), "list<element: struct<from: str"),
        ("caption", pa.bool_(), "bool"),
        ("caption", pa.timestamp("ns"), "timestamp[ns]"),
        ("url", pa.struct([("src", pa.string())]), "struct<src: string>"),
        ("url", pa.list_(pa.string()), "list<element: string>"),
    ],
    ids=str,
)
def test_types_that_hold_no_text_are_refused(tmp_path: Path, column: str, kind, shown: str):
    other = {"url": "caption", "caption": "url"}[column]
    table = pa.table({column: pa.array([None], kind), other: ["http://a"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UsageError) as error:
        open_source("parquet", path=str(tmp_path))
    message = str(error.value)
    assert f"a.parquet: the column '{column}' ({column}) has the type {shown}" in message
    several = ", or lists of text" if column == "caption" else ""
    assert message.endswith(
        f"valid: text{several}. Name another column with --columns {column}=NAME"
    )


def test_numbers_of_odd_types_count_as_missing(tmp_path: Path):
    columns = {
        "url": ["http://a"],
        "caption": ["a cat"],
        "width": pa.array([1], pa.timestamp("ns")),
        "height": pa.array([[3]], pa.list_(pa.int64())),
        "aesthetic": pa.array([Decimal("5.25")], pa.decimal128(5, 2)),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (row,) = every(open_source("parquet", path=str(tmp_path)))
    assert (row.width, row.height, row.scores) == (None, None, {"aesthetic": 5.25})


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.list_(pa.string())], ids=str)
def test_a_text_that_is_not_utf_8_spoils_its_row_alone(tmp_path: Path, kind: pa.DataType):
    """Arrow does not check texts, and many writers do not either."""
    values = [b"a cat", "café".encode("cp1252"), "café".encode()]
    if pa.types.is_list(kind):
        damaged = pa.ListArray.from_arrays([0, 1, 2, 3], pa.array(values).view(pa.string()))
    else:
        damaged = pa.array(values, pa.large_binary() if "large" in str(kind) else None).view(kind)
    urls = [f"http://a/{i}" for i in range(3)]
    pq.write_table(pa.table({"url": urls, "caption": damaged}), tmp_path / "a.parquet")
    rows = every(open_source("parquet", path=str(tmp_path)))
    assert [row.url for row in rows] == urls
    assert [(row.caption, row.fault) for row in rows] == [
        ("a cat", None),
        ("", "bad_text"),
        ("café", None),
    ]
    assert rows[1].name == "a.parquet, row 2"
    rows = every(open_source("parquet", path=str(tmp_path), text_encoding="cp1252"))
    assert [row.caption for row in rows] == ["a cat", "café", "café"]


def test_rows_without_a_url_have_a_name(tmp_path: Path):
    (tmp_path / "urls").mkdir()
    rows = captions_of(tmp_path / "urls" / "a.parquet", pa.string(), ["one"])
    assert rows[0].name is None
    images = {"image": [b"\x89PNG", b"\x89PNG"], "caption": ["one", "two"]}
    pq.write_table(pa.table(images), tmp_path / "b.parquet", row_group_size=1)
    rows = every(open_source("parquet", path=str(tmp_path / "b.parquet"), unit_rows=1))
    assert [row.name for row in rows] == ["b.parquet, row 1", "b.parquet, row 2"]


def test_a_table_with_captions_in_its_column_of_urls(tmp_path: Path):
    table = pa.table({"url": ["a cat", "a dog"], "caption": ["http://a/1", "http://a/2"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"'url' holds no URLs.*'a cat'.*url=caption caption=url"):
        open_source("parquet", path=str(tmp_path))


def test_the_look_at_urls_reads_little(tmp_path: Path):
    fsspec.register_implementation("counted", Counted, clobber=True)
    path = write_coyo(tmp_path / "part.parquet", 200_000, group=200_000)
    fsspec.filesystem("counted").store.clear()
    MemoryFileSystem().pipe("/look/part.parquet", path.read_bytes())
    Counted.sent = 0
    open_source("coyo", path="counted://look/part.parquet")
    assert Counted.sent < 3 * 2**20 < path.stat().st_size


def test_columns_that_are_not_read_are_counted(tmp_path: Path):
    source = open_source("coyo", path=str(write_coyo(tmp_path / "part.parquet", 3)))
    assert source.unused == (
        "7 columns of part.parquet: id, text_length, word_count, num_tokens_bert, "
        "num_tokens_gpt, num_faces, clip_similarity_vitb32",
    )


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.uint8()),
        pa.struct([("path", pa.string())]),
        pa.struct([("bytes", pa.string()), ("path", pa.string())]),
    ],
    ids=str,
)
def test_columns_of_images_without_bytes_are_refused(tmp_path: Path, kind: pa.DataType):
    table = pa.table({"image": pa.array([None], kind), "caption": ["a cat"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(
        UsageError, match=r"no column for url or image .*\(image: no encoded images"
    ):
        open_source("parquet", path=str(tmp_path))
