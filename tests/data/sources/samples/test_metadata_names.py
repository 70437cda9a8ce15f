"""Metadata written elsewhere: each record finds its picture, or its miss is counted once."""

import itertools
import json
import posixpath
from pathlib import Path

import pytest

from pinxit.config import UsageError
from pinxit.data.row import Source, unusable
from pinxit.data.sources.catalogue import open_source
from pinxit.data.sources.samples.metadata_files import ImageRecord
from pinxit.data.sources.samples.metadata_names import match_records

PNG = b"\x89PNG not a real picture"


def fill(root: Path, files: dict[str, bytes | str]) -> str:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return str(root)


def outcomes(source: Source) -> list[tuple[str | None, str]]:
    rows = [row for unit in source.units() for row in source.read(unit)]
    return [(row.name, unusable(row) or row.caption) for row in rows]


def matched(names: list[str], images: list[str], *, folder: str = "", root: str = "/data") -> list:
    records = [ImageRecord(name, folder, {}, "") for name in names]
    matches = match_records(records, images, root=root)
    return [matches.get(at) for at in range(len(names))]


SPELLINGS = [
    ("sub\\0.jpg", "sub/0.jpg"),
    ("./sub/0.jpg", "sub/0.jpg"),
    ("sub/./x/../0.jpg", "sub/0.jpg"),
    ("SUB/0.JPG", "sub/0.jpg"),
    ("images/0.jpg", "0.jpg"),
    ("images\\a\\0.jpg", "a/0.jpg"),
    ("0.jpg", "images/0.jpg"),
    ("/home/x/data/sub/0.jpg", "sub/0.jpg"),
    ("/0.jpg", "0.jpg"),
    ("C:\\data\\0.jpg", "0.jpg"),
    ("file:///home/x/0.jpg", "0.jpg"),
    ("sub/0", "sub/0.jpg"),
    ("/home/x/sub/0", "sub/0.jpg"),
    ("a%20cat.jpg", "a cat.jpg"),
    (" 0.jpg ", "0.jpg"),
    ("cafe\u0301.jpg", "caf\u00e9.jpg"),
    ("shot 1.5s", "shot 1.5s.jpg"),
]


@pytest.mark.parametrize(("named", "image"), SPELLINGS)
def test_spellings(named: str, image: str):
    assert matched([named], [image, "other/1.jpg"]) == [image]
    is_exact = posixpath.normpath(named) == image
    assert matched([named, image], [image]) == [image if is_exact else None, image]


@pytest.mark.parametrize(
    ("names", "images", "expected"),
    [
        (["../0.jpg"], ["0.jpg"], [None]),  # climbs out of the folder
        (["x/0.jpg"], ["a/0.jpg"], [None]),  # another folder's picture
        (["0.jpg"], ["a/0.jpg", "b/0.jpg"], [None]),  # one of two
        (["A.jpg"], ["a.jpg", "a.JPG"], [None]),
        (["a"], ["a.jpg", "a.png"], [None]),
        (["x/0.jpg", "y/0.jpg"], ["0.jpg"], [None, None]),  # two for one picture
        (["val/0.jpg"], ["0.jpg"], [None]),  # of the split that is not here
        (["a.jpg", "A.JPG"], ["a.jpg", "A.JPG"], ["a.jpg", "A.JPG"]),
        (["0.jpg", "0.jpg"], ["0.jpg"], ["0.jpg", "0.jpg"]),
        (["x/a/0.jpg", "x/b/0.jpg"], ["a/0.jpg", "b/0.jpg"], ["a/0.jpg", "b/0.jpg"]),
        (["", "/", ".."], ["0.jpg"], [None, None, None]),
    ],
)
def test_a_name_that_fits_two_fits_none(names: list[str], images: list[str], expected: list):
    assert matched(names, images) == expected
    for order in itertools.permutations(range(len(names))):
        again = matched([names[at] for at in order], images)
        assert again == [expected[at] for at in order]


def test_the_path_of_the_dataset_decides():
    names = ["train/0.jpg", "old/0.jpg", "/x/data/train/1.jpg", "/x/data/old/1.jpg"]
    assert matched(names, ["0.jpg", "1.jpg"], root="/home/me/data/train") == [
        *("0.jpg", None, "1.jpg", None),
    ]


def test_many_pictures_of_one_name_take_no_long_time():
    images = [f"{i:05d}/image.jpg" for i in range(4_000)]
    names = [f"C:\\data\\{i:05d}\\image.jpg" for i in range(4_000)]
    assert matched(names, images) == images
    assert matched([f"/x/{name}" for name in names], [f"y/{name}" for name in images[:99]]) == (
        [None] * 4_000
    )


def test_names_beside_the_metadata_come_before_those_from_the_root():
    assert matched(["0.jpg"], ["0.jpg", "a/0.jpg"], folder="a") == ["a/0.jpg"]
    assert matched(["a/0.jpg"], ["a/0.jpg"], folder="a") == ["a/0.jpg"]


def test_seventeen_rows_and_one_miss_each(tmp_path: Path):
    named = [
        *("00.jpg", "sub\\01.jpg", "SUB/02.JPG", "images/03.jpg", "/home/x/data/sub/04.jpg"),
        *("C:\\data\\05.jpg", "./06.jpg", "07", "a%20cat.jpg"),
        *("absent.jpg", "../outside.jpg", "sub/none.jpg"),
    ]
    pictures = ["00.jpg", "sub/01.jpg", "sub/02.jpg", "03.jpg", "sub/04.jpg", "05.jpg", "06.jpg"]
    pictures += ["07.jpg", "a cat.jpg", "unnamed.jpg"]
    lines = [{"file_name": name, "text": f"text {at}"} for at, name in enumerate(named)]
    lines.append({"file_name": "00.jpg", "text": "again"})
    files: dict[str, bytes | str] = dict.fromkeys(pictures, PNG)
    files["metadata.jsonl"] = "\n".join(json.dumps(line) for line in lines)
    source = open_source("folder", path=fill(tmp_path, files))
    assert outcomes(source) == [
        *[("../outside.jpg", "missing_image"), ("00.jpg", "text 0"), ("03.jpg", "text 3")],
        *[
            ("05.jpg", "text 5"),
            ("06.jpg", "text 6"),
            ("07.jpg", "text 7"),
            ("a cat.jpg", "text 8"),
        ],
        *[("absent.jpg", "missing_image"), ("sub/01.jpg", "text 1"), ("sub/02.jpg", "text 2")],
        *[("sub/04.jpg", "text 4"), ("sub/none.jpg", "missing_image")],
        ("unnamed.jpg", "no_caption"),
    ]
    rows = list(source.read(source.units()[0]))
    assert rows[0].detail == "metadata.jsonl, record 11 names it"
    assert source.unused == (
        "1 metadata record is not used, since an earlier one names the same image (the first: "
        "metadata.jsonl, record 13)",
    )


def parquet_of(records: list[dict]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(records), sink)
    return sink.getvalue().to_pybytes()


RECORDS = [{"file_name": "0.png", "caption": 'zero, "0"'}, {"file_name": "1.png", "caption": "üne"}]
CSV = 'file_name,caption\n0.png,"zero, ""0"""\n1.png,üne\n'
TSV = 'caption\tfile_name\nzero, "0"\t0.png\nüne\t1.png\n'
QUOTED = '"file_name"\t"caption"\n"0.png"\t"zero, ""0"""\n"1.png"\t"üne"\n'
BY_NAME = {record["file_name"]: record["caption"] for record in RECORDS}
NESTED = {"/train/0.png": {"caption": 'zero, "0"'}, "/train/1": {"caption": "üne"}}
LINES = "".join(f"{json.dumps(record)}\n" for record in RECORDS)


@pytest.mark.parametrize("stem", ["metadata", "captions"])
@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        ("jsonl", LINES),
        ("jsonl", LINES.encode("utf-16")),
        ("csv", CSV),
        ("csv", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("csv", CSV.encode("utf-16")),
        ("tsv", TSV),
        ("tsv", QUOTED),
        ("json", json.dumps(RECORDS)),
        ("json", json.dumps(BY_NAME)),
        ("json", json.dumps(NESTED)),
        ("parquet", parquet_of(RECORDS)),
    ],
)
def test_every_form_of_metadata(tmp_path: Path, stem: str, suffix: str, data: bytes | str):
    files = {"0.png": PNG, "1.png": PNG, f"{stem}.{suffix}": data}
    source = open_source("folder", path=fill(tmp_path, files))
    assert outcomes(source) == [("0.png", 'zero, "0"'), ("1.png", "üne")]
    assert source.unused == ()


def test_metadata_of_kohya(tmp_path: Path):
    files = {"0.png": PNG, "meta_cap.json": json.dumps({"/x/train/0.png": {"caption": "zero"}})}
    assert outcomes(open_source("folder", path=fill(tmp_path, files))) == [("0.png", "zero")]


def test_a_declared_encoding_applies_to_metadata(tmp_path: Path):
    files = {"0.png": PNG, "captions.csv": "image,caption\n0.png,café\n".encode("cp1252")}
    path = fill(tmp_path, files)
    with pytest.raises(UsageError, match=r"captions\.csv, record 1 is not .*--text_encoding"):
        open_source("folder", path=path)
    source = open_source("folder", path=path, text_encoding="cp1252")
    assert outcomes(source) == [("0.png", "café")]


BROKEN = {
    "metadata.csv": (
        "file_name,text\n0.png,a cat, sitting\n",
        r"none of the first 1 records fits the columns file_name, text. .*3 fields",
    ),
    "captions.json": ("3", r"has an unreadable record; valid: JSON objects; record 1 is: 3"),
    "metadata.json": ('[{"file_name": "0.png"}, 7]', "record 2 is: 7"),
    "captions.jsonl": (
        '{"file_name": "0.png"}\n{"file',
        "record 2: not valid JSON: .*; valid",
    ),
    "metadata.jsonl": ("[\n{}]", "a JSON array"),
    "metadata.tsv": ("", r"is empty \(no bytes\)"),
    "captions.csv": (
        'file_name,text\n0.png,a cat\n"0.png,x\n',
        "record 2: not valid CSV: a quote is not closed; .* must be quoted",
    ),
    "metadata.parquet": ("no", "is not a parquet file"),
    "captions.parquet": (parquet_of([{"text": "a"}]), r"record without file_name .* has: text"),
    "meta_cap.json": ("{", "is not valid JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_metadata_that_cannot_be_read_is_an_error_when_opened(tmp_path: Path, name: str):
    data, message = BROKEN[name]
    with pytest.raises(UsageError, match=message) as error:
        open_source("folder", path=fill(tmp_path, {"0.png": PNG, name: data}))
    assert name in str(error.value) and "\n" not in str(error.value)
