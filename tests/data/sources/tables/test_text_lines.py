"""CSV, TSV and JSONL in runs of lines: nothing lost or read twice, whatever stands in a field."""

import csv
import gzip
import io
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinxit.data.row import Row, Source
from pinxit.data.sources.catalogue import open_source
from pinxit.data.sources.columns import text
from pinxit.data.sources.tables.text_records import table_records


def every(source: Source) -> list[Row]:
    """All rows, read by a copy of the source, as workers do."""
    copy = pickle.loads(pickle.dumps(source))
    return [row for unit in source.units() for row in copy.read(unit)]


def write(path: Path, data: str) -> str:
    with (gzip.open if path.suffix == ".gz" else open)(path, "wb") as file:
        file.write(data.encode())
    return str(path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("unit_rows", [1, 3, 100])
def test_csv(tmp_path: Path, end: str, packed: str, unit_rows: int):
    captions = [
        "plain",
        "with, comma",
        'with "quotes"',
        f"on two{end}lines",
        "café 猫",
        "",
        'a 5" b',
    ]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end)
    writer.writerow(["Caption", "URL", "width"])
    for number, caption in enumerate(captions):
        writer.writerow([caption, f"http://a/{number}", 300 + number])
        out.write(end if number == 2 else "")  # a blank line is no record
    path = write(tmp_path / f"table.csv{packed}", "\ufeff" + out.getvalue())
    source = open_source("csv", path=path, unit_rows=unit_rows)
    units = source.units()
    assert [unit.rows for unit in units] == [
        min(unit_rows, len(captions) - start) for start in range(0, len(captions), unit_rows)
    ]
    rows = every(source)
    assert [row.caption for row in rows] == captions
    assert [row.url for row in rows] == [f"http://a/{i}" for i in range(len(captions))]
    assert [row.width for row in rows] == list(range(300, 300 + len(captions)))
    assert [int(row.key.rpartition("/")[2]) for row in rows] == list(range(len(captions)))
    assert source.units(limit=1) == units[:1]


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(FIELD, max_size=15), st.integers(1, 6))
def test_any_csv_is_cut_without_loss(tmp_path_factory, captions, unit_rows):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(
        [("caption", "url"), *((c, "http://a/b") for c in captions)]
    )
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    rows = every(open_source("csv", path=write(path, out.getvalue()), unit_rows=unit_rows))
    assert [row.caption for row in rows] == [text(caption) or "" for caption in captions]


def test_jsonl_with_unreadable_lines(tmp_path: Path):
    lines = [
        json.dumps({"url": "http://a/0", "caption": "zero", "width": "640"}),
        "",
        "{ broken",
        json.dumps(["a", "list"]),
        json.dumps({"URL": "http://a/3", "Text": "three", "nsfw": "UNLIKELY"}),
        "[" * 100_000,
        json.dumps({"caption": "no url"}),
        json.dumps({"url": {"a": 1}, "caption": ["x"]}),
    ]
    path = write(tmp_path / "rows.jsonl", "\n".join(lines))
    rows = every(open_source("jsonl", path=path, unit_rows=2))
    assert [row.url for row in rows] == ["http://a/0", None, None, "http://a/3", None, None, None]
    assert [row.caption for row in rows] == ["zero", "", "", "three", "", "no url", "x"]
    assert [(row.fault, row.name, row.detail) for row in rows] == [
        (None, None, ""),
        ("bad_record", "rows.jsonl, record 2", rows[1].detail),
        ("bad_record", "rows.jsonl, record 3", "a list, not a JSON object"),
        (None, None, ""),
        ("bad_record", "rows.jsonl, record 5", "not valid JSON: nested too deeply"),
        (None, "rows.jsonl, record 6", ""),
        ("bad_record", "rows.jsonl, record 7", "url: an object (a), not text"),
    ]
    assert rows[1].detail.startswith("not valid JSON: Expecting property name")
    assert rows[0].width == 640 and rows[3].scores == {}
    assert len({row.key for row in rows}) == len(rows)


def test_cc12m_s_tsv_has_no_header_and_no_quotes(tmp_path: Path):
    data = 'http://a/0\t"quoted at the start only\nhttp://a/1\tplain <PERSON>\nlost line\n'
    path = write(tmp_path / "cc12m.tsv", data)
    rows = every(open_source("cc12m", path=path, unit_rows=2))
    assert [row.url for row in rows] == ["http://a/0", "http://a/1", None]
    assert [row.caption for row in rows] == ['"quoted at the start only', "plain <PERSON>", ""]
    assert (rows[2].fault, rows[2].name) == ("bad_record", "cc12m.tsv, record 3")
    assert rows[2].detail == "1 field, the first record has 2"
    by_number = open_source("tsv", path=path, columns={"url": "0", "caption": "1"})
    assert [row.url for row in every(by_number)] == [row.url for row in rows]
    with pytest.raises(ValueError, match=r"url column '1' holds no URLs.*url=0 caption=1"):
        open_source("tsv", path=path, columns={"url": "1", "caption": "0"})


def test_missing_columns_are_named(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"no column for url \(url, image_url.*it has: link2, text"
    ):
        open_source("csv", path=write(tmp_path / "a.csv", "link2,text\nhttp://x,y\n"))
    with pytest.raises(ValueError, match=r"no column for caption.*it has: url, b"):
        open_source("jsonl", path=write(tmp_path / "a.jsonl", '{"url": "x", "b": 1}\n'))
    with pytest.raises(ValueError, match=r"no column for caption \(1\).*it has: 0"):
        open_source("cc12m", path=write(tmp_path / "a.tsv", "http://a/0\n"))
    with pytest.raises(ValueError, match=r"empty\.csv is empty \(no bytes\)"):
        open_source("csv", path=write(tmp_path / "empty.csv", ""))
    renamed = open_source("csv", path=str(tmp_path / "a.csv"), columns={"url": "link2"})
    assert every(renamed)[0].url == "http://x"


def test_a_damaged_archive_is_named(tmp_path: Path):
    path = tmp_path / "rows.jsonl.gz"
    write(path, '{"url": "http://u", "caption": "c"}\n' * 5000)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"rows\.jsonl\.gz is damaged"):
        every(open_source("jsonl", path=str(path)))


def test_a_unit_reads_its_own_lines_only(tmp_path: Path):
    path = write(
        tmp_path / "rows.tsv", "url\tcaption\n" + "".join(f"http://u{i}\tc\n" for i in range(9))
    )
    source = open_source("tsv", path=path, unit_rows=4)
    last = source.units()[2]
    with open(path, "rb") as file:
        file.seek(last.offset)
        assert [record.fields for record in table_records(file, "tsv")] == [["http://u8", "c"]]
    assert [row.key for row in source.read(last)] == ["00000-002/00000008"]


def test_a_field_beyond_the_limit_spoils_its_record_alone(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("pinxit.data.sources.tables.text_records.LONGEST_FIELD", 20)
    data = f"url,caption\nhttp://0,a\nhttp://1,{'x' * 30}\nhttp://2,b\n"
    rows = every(open_source("csv", path=write(tmp_path / "a.csv", data)))
    assert [(row.url, row.caption) for row in rows] == [
        ("http://0", "a"),
        (None, ""),
        ("http://2", "b"),
    ]
    assert rows[1].fault == "bad_record" and "field limit" in rows[1].detail


@pytest.mark.parametrize("name", ["image", "img", "jpg", "png"])
@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_a_column_called_image_is_text_and_takes_no_url_away(tmp_path: Path, form: str, name: str):
    records_ = [{"url": f"http://a/{i}", "caption": "c", name: f"{i}.png"} for i in range(3)]
    if form == "jsonl":
        lines = [json.dumps(record) for record in records_]
    else:
        comma = "," if form == "csv" else "\t"
        lines = [comma.join(record) for record in (records_[0], *(r.values() for r in records_))]
    path = write(tmp_path / f"table.{form}", "\n".join(lines))
    rows = every(open_source(form, path=path))
    assert [row.url for row in rows] == [f"http://a/{i}" for i in range(3)]
    assert all(row.image is None and row.origin is None for row in rows)
    path = write(tmp_path / f"no_url.{form}", "\n".join(lines).replace("url", "where"))
    with pytest.raises(ValueError, match=rf"no column for url .*\({name}: no encoded images"):
        open_source(form, path=path)
    with pytest.raises(ValueError, match=rf"'{name}' holds no URLs.*--columns url=where caption="):
        open_source(form, path=path, columns={"url": name})
    with pytest.raises(ValueError, match=rf"no column for image \({name}\)"):
        open_source(form, path=path, columns={"url": "where", "image": name})
