"""Tables that are not what their format says are refused, with a record and the way out."""

import json
from pathlib import Path

import pytest

from pinxit.config import UsageError
from pinxit.data.row import Row, Source
from pinxit.data.sources.catalogue import open_source


def every(source: Source) -> list[Row]:
    return [row for unit in source.units() for row in source.read(unit)]


def opened(tmp_path: Path, form: str, text: str, **more) -> Source:
    (tmp_path / f"a.{form}").write_bytes(text.encode())
    return open_source(form, path=str(tmp_path / f"a.{form}"), **more)


def refusal(tmp_path: Path, form: str, text: str, **more) -> str:
    with pytest.raises(UsageError) as error:
        opened(tmp_path, form, text, **more)
    message = str(error.value)
    assert "\n" not in message and "a." + form in message and len(message) < 700
    return message


RECORDS = [{"url": f"http://a/{i}", "caption": f"number {i}"} for i in range(9)]


def test_a_json_array_is_no_jsonl(tmp_path: Path):
    for indent in (None, 2):
        message = refusal(tmp_path, "jsonl", json.dumps(RECORDS, indent=indent))
        assert "but a JSON array; write its records as lines: jq -c '.[]'" in message
        assert '"url": "http://a/0"' in message
    lines = ",\n".join(json.dumps(record) for record in RECORDS)
    assert "but a JSON array" in refusal(tmp_path, "jsonl", f"[\n{lines}\n]\n")


def test_json_of_several_lines_is_no_jsonl(tmp_path: Path):
    text = "\n".join(json.dumps(record, indent=1) for record in RECORDS)
    assert "but JSON objects of several lines; write each as one: jq -c ." in refusal(
        tmp_path, "jsonl", text
    )
    assert "no JSON object (record 1: not valid JSON" in refusal(
        tmp_path, "jsonl", "url,caption\nhttp://a,b\n"
    )
    assert every(opened(tmp_path, "jsonl", "\n\n")) == []


@pytest.mark.parametrize(
    ("form", "separator", "message"),
    [
        ("csv", ";", "separated by semicolons, not by commas: 'url;caption'; save it with commas"),
        ("csv", "\t", r"separated by tabs, not by commas: 'url\\tcaption'; read it as tsv"),
        ("csv", "|", "separated by bars, not by commas"),
        ("tsv", ",", "separated by commas, not by tabs: 'url,caption'; read it as csv"),
        ("tsv", ";", "separated by semicolons, not by tabs: 'url;caption'; save it with tabs"),
    ],
)
def test_another_separator(tmp_path: Path, form: str, separator: str, message: str):
    text = "".join(f"{separator.join(pair)}\n" for pair in [("url", "caption"), ("http://a", "b")])
    assert message.replace("\\\\", "\\") in refusal(tmp_path, form, text)


@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_a_table_without_a_header(tmp_path: Path, form: str):
    comma = "," if form == "csv" else "\t"
    text = "".join(f"a cat{comma}http://a/{i}\n" for i in range(3))
    message = refusal(tmp_path, form, text)
    assert "has no header: its first record is '0': 'a cat', '1': 'http://a/0'" in message
    assert "--columns url=1 caption=0" in message
    rows = every(opened(tmp_path, form, text, columns={"url": "1", "caption": "0"}))
    assert [(row.url, row.caption) for row in rows] == [
        (f"http://a/{i}", "a cat") for i in range(3)
    ]


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_captions_in_the_column_of_urls(tmp_path: Path, form: str):
    swapped = [{"url": record["caption"], "caption": record["url"]} for record in RECORDS]
    if form == "jsonl":
        text = "\n".join(map(json.dumps, swapped))
    else:
        comma = "," if form == "csv" else "\t"
        text = "\n".join(
            comma.join(row) for row in [list(swapped[0]), *(r.values() for r in swapped)]
        )
    message = refusal(tmp_path, form, text)
    assert "the url column 'url' holds no URLs; the first record is 'url': 'number 0'" in message
    assert message.endswith("Set the columns: --columns url=caption caption=url")


def test_names_of_files_in_the_column_of_urls(tmp_path: Path):
    message = refusal(tmp_path, "csv", "url,caption\n0.png,a cat\n")
    assert "metadata.csv" in message and "the source folder" in message


@pytest.mark.parametrize(
    "url", ["http://a/b", "HTTPS://a", "//a/b", "www.a.b", "a.org/b", "data:,"]
)
def test_whatever_looks_like_a_url_is_left_to_the_fetcher(tmp_path: Path, url: str):
    rows = every(opened(tmp_path, "tsv", f"url\tcaption\nno url\tb\n{url}\tb\n"))
    assert [row.url for row in rows] == ["no url", url]


def test_fields_that_do_not_fit_the_header(tmp_path: Path):
    text = "url,caption,width\nhttp://a/0,a cat, asleep,300\nhttp://a/1,fine,301\nhttp://a/2,cut\n"
    text += "http://a/3,trailing commas,303,,\n\nhttp://a/4,spaces,304, \n"
    rows = every(opened(tmp_path, "csv", text))
    assert [(row.fault, row.name, row.detail) for row in rows] == [
        ("bad_record", "a.csv, record 1", "4 fields, the header has 3"),
        (None, None, ""),
        ("bad_record", "a.csv, record 3", "2 fields, the header has 3"),
        (None, None, ""),
        (None, None, ""),
    ]
    assert [row.caption for row in rows] == ["", "fine", "", "trailing commas", "spaces"]
    assert [row.width for row in rows] == [None, 301, None, 303, 304]


def test_a_header_with_a_trailing_comma(tmp_path: Path):
    rows = every(opened(tmp_path, "csv", "url,caption,,\nhttp://a,b\nhttp://c,d,,\nhttp://e,f,g\n"))
    assert [row.fault for row in rows] == [None, None, "bad_record"]
    assert rows[2].detail == "3 fields, the header has 2"


def test_no_record_fits_the_header(tmp_path: Path):
    text = "url,caption\n" + "".join(f"{i},http://a/{i},words\n" for i in range(5))
    message = refusal(tmp_path, "csv", text)
    assert (
        "none of the first 5 records fits the columns url, caption. Record 1 (3 fields" in message
    )
    assert "'0,http://a/0,words'" in message


def test_a_column_that_exists_twice(tmp_path: Path):
    text = "url,caption,caption,id,id\nhttp://a,b,c,1,2\n"
    assert "has several columns called 'caption'; rename all but one" in refusal(
        tmp_path, "csv", text
    )
    renamed = text.replace("caption,caption", "caption,other")  # "id" is not read
    assert every(opened(tmp_path, "csv", renamed))[0].caption == "b"


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ('"url"\t"caption"\n"http://a"\t"a ""b"" c"\n"http://d"\t"e\tf"\n', ['a "b" c', "e\tf"]),
        ('"url"\t"caption"\n"http://a"\t"two\nlines"\n', ["two\nlines"]),
        ('url\tcaption\nhttp://a\t"a, b"\nhttp://a\tplain\n', ["a, b", "plain"]),
        ('url\tcaption\nhttp://a\t"a" b\nhttp://a\tplain\n', ['"a" b', "plain"]),
        ('url\tcaption\nhttp://a\t"open\nhttp://a\tplain\n', ['"open', "plain"]),
        ('url\tcaption\nhttp://a\t5" x 7"\n', ['5" x 7"']),
    ],
)
def test_quotes_in_tsv(tmp_path: Path, text: str, captions: list[str]):
    """Fields in quotes are read as such where all quotes fit, and as text otherwise."""
    assert [row.caption for row in every(opened(tmp_path, "tsv", text))] == captions


def test_quoted_tsv_that_is_longer_than_the_sample(tmp_path: Path):
    lines = [f'http://a/{i}\t"a ""cat"",\nnumber {i}"\n' for i in range(300)]
    source = opened(tmp_path, "tsv", "url\tcaption\n" + "".join(lines), unit_rows=100)
    assert [unit.rows for unit in source.units()] == [100, 100, 100]
    assert [row.caption for row in every(source)] == [f'a "cat",\nnumber {i}' for i in range(300)]


def test_cc12m_has_no_quotes(tmp_path: Path):
    (tmp_path / "a.tsv").write_text('http://a\t"all of it"\n')
    (row,) = every(open_source("cc12m", path=str(tmp_path)))
    assert row.caption == '"all of it"'


def test_columns_that_are_not_read_are_counted(tmp_path: Path):
    source = opened(tmp_path, "csv", "id,url,caption,caption_2\n1,http://a,b,c\n")
    assert source.unused == ("2 columns of a.csv: id, caption_2",)
    assert opened(tmp_path, "csv", "url,caption\nhttp://a,b\n").unused == ()
    many = {f"k{i}": i for i in range(11)}
    source = opened(tmp_path, "jsonl", json.dumps({"url": "http://a", "caption": "b", **many}))
    assert source.unused[0].endswith("k6, k7 and 3 more") and "11 columns" in source.unused[0]


def test_a_header_alone_has_no_rows(tmp_path: Path):
    assert opened(tmp_path, "csv", "url,caption\n").units() == []


def test_captions_of_another_type_in_jsonl(tmp_path: Path):
    lines = [{"url": "http://a", "caption": {"en": "a cat", "de": "Katze"}} for _ in range(3)]
    message = refusal(tmp_path, "jsonl", "\n".join(map(json.dumps, lines)))
    assert "the column 'caption' (caption) holds an object (en, de); valid: text, or lists of" in (
        message
    )
    lines = [{"url": ["http://a"], "caption": "a"}]
    message = refusal(tmp_path, "jsonl", json.dumps(lines[0]))
    assert "the column 'url' (url) holds a list; valid: text. Name another" in message
    lines = [{"url": "http://a", "caption": value} for value in ("one", {"en": "two"}, [["x"]], 3)]
    rows = every(opened(tmp_path, "jsonl", "\n".join(map(json.dumps, lines))))
    assert [row.caption for row in rows] == ["one", "", "", "3"]
    assert [row.detail for row in rows] == [
        "",
        "caption: an object (en), not text",
        "caption: a list whose items are objects or lists, not text",
        "",
    ]


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_captions_in_a_declared_encoding(tmp_path: Path, form: str):
    pairs = [
        ("http://a/0", "plain"),
        ("http://a/1", "Grüße"),
        ("http://a/2", "smart \u201cq\u201d"),
    ]
    path = tmp_path / f"a.{form}"
    if form == "jsonl":
        lines = [json.dumps({"url": u, "caption": c}, ensure_ascii=False) for u, c in pairs]
    else:
        comma = "," if form == "csv" else "\t"
        lines = [comma.join(pair) for pair in [("url", "caption"), *pairs]]
    path.write_bytes("\n".join(lines).encode("cp1252"))
    rows = every(open_source(form, path=str(path)))
    assert [row.fault for row in rows] == [None, "bad_text", "bad_text"]
    assert rows[1].detail == "caption: not UTF-8 text (byte 0xfc at position 2)"
    assert (rows[1].name, rows[1].url) == (f"a.{form}, record 2", "http://a/1")
    rows = every(open_source(form, path=str(path), text_encoding="cp1252"))
    assert [(row.caption, row.fault) for row in rows] == [(c, None) for _, c in pairs]
    with pytest.raises(UsageError, match=r"text_encoding: 'klingon' is unknown; valid: an enc"):
        open_source(form, path=str(path), text_encoding="klingon")


def test_bytes_in_a_column_that_is_not_read_do_no_harm(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(b"url,caption,author\nhttp://a,a cat,Ren\xe9\n")
    (row,) = every(open_source("csv", path=str(tmp_path)))
    assert row.caption == "a cat" and row.fault is None


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_lines_that_end_in_carriage_returns_alone(tmp_path: Path, form: str):
    text = {"jsonl": '{"url": "http://a", "caption": "b"}\r' * 3}.get(
        form, "url,caption\rhttp://a,b\r"
    )
    assert "its lines end in carriage returns alone" in refusal(tmp_path, form, text)
