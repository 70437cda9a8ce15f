"""`pinxit prepare` of tables as people have them: every record has a status, with an example."""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_server import LOOPBACK, HostileServer
from prepare_work import picture

from pinxit.cli.main import main
from pinxit.data.image_column import IMAGES
from pinxit.data.prepared.manifest import Manifest
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.outcome_files import read_outcomes


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running


def prepare(source: str, path: Path, out: Path, *more: str) -> int:
    given = ["prepare", source, "--dataset_path", str(path), "--out", str(out), "--vae", "none"]
    given += ["--image_size", "16", "--images.workers", "1", "--workers", "1", "--engine", "inline"]
    given += ["--fetch.allow_networks", LOOPBACK, "--fetch.retries", "0", "--fetch.timeout", "20"]
    return main([*given, *more])


def captions(out: Path) -> list[str]:
    rows = PreparedRows(out, kind=IMAGES)
    return sorted(rows.captions(np.arange(len(rows))))


def test_a_csv_with_every_kind_of_record(server: HostileServer, tmp_path: Path):
    url = [server.url("good", number) for number in range(8)]
    lines = [
        "url,caption,author",
        f"{url[0]},a plain caption here,me",
        f"{url[1]},an unquoted, comma in a caption,me",
        f'{url[2]},"a quoted, comma in a caption",me',
        f'{url[3]},"a quote that is never closed,me',
        f"{url[4]},a caption in Café Zürich,me",
        f"{url[5]},a\0 caption with\0 nul characters,me",
        f"{url[6]},a short record",
        f"{url[7]},an author in another encoding,René",
    ]
    path, out = tmp_path / "table.csv", tmp_path / "set"
    path.write_bytes("\n".join(lines).encode("cp1252"))
    assert prepare("csv", path, out) == 0
    assert dict(Manifest.read(out).counts) == {"ok": 4, "bad_record": 3, "bad_text": 1}
    assert captions(out) == [
        "a caption with nul characters",
        "a plain caption here",
        "a quoted, comma in a caption",
        "an author in another encoding",
    ]
    record = Ledger(out, "images").read("00000-000")
    assert record is not None
    examples = record.measured["examples"]
    assert examples["bad_record"] == "table.csv, record 2"
    assert examples["bad_text"] == "table.csv, record 5"
    details = {
        int(outcome.key.rpartition("/")[2]) + 1: (outcome.status, outcome.detail)
        for outcome in read_outcomes(out / "outcomes" / "00000-000.parquet")
        if outcome.status != "ok"
    }
    assert details == {
        2: ("bad_record", "4 fields, the header has 3"),
        4: ("bad_record", "not valid CSV: a quote is not closed"),
        5: ("bad_text", "caption: not UTF-8 text (byte 0xe9 at position 16)"),
        7: ("bad_record", "2 fields, the header has 3"),
    }
    declared = tmp_path / "declared"
    assert prepare("csv", path, declared, "--text_encoding", "windows-1252") == 0
    assert dict(Manifest.read(declared).counts) == {"ok": 5, "bad_record": 3}
    assert "a caption in Café Zürich" in captions(declared)
    assert Manifest.read(declared).identity["source"]["text_encoding"] == "cp1252"
    assert "text_encoding" not in Manifest.read(out).identity["source"]


def test_the_same_rows_from_every_encoding(server: HostileServer, tmp_path: Path):
    """A UTF-16 table, gzipped or not, gives the shards of the UTF-8 one."""
    lines = [f'{server.url("good", i)},"a café, number {i} 猫"' for i in range(5)]
    text = "\r\n".join(["url,caption", *lines])
    forms = {
        "plain": text.encode(),
        "marked": text.encode("utf-8-sig"),
        "wide": codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
        "packed": gzip.compress(codecs.BOM_UTF16_BE + text.encode("utf-16-be")),
    }
    shards = {}
    for form, data in forms.items():
        path, out = tmp_path / form / "table.csv", tmp_path / f"{form}-set"
        path.parent.mkdir()
        path.write_bytes(data)
        assert prepare("csv", path, out, "--unit_rows", "2") == 0
        assert captions(out) == [f"a café, number {i} 猫" for i in range(5)]
        shards[form] = [shard.read_bytes() for shard in sorted((out / "images").iterdir())]
    assert len(shards["plain"]) == 3
    assert all(shards[form] == shards["plain"] for form in forms)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", '[{"url": "http://a/b", "caption": "c"}]', "but a JSON array"),
        ("a.csv", "url;caption\nhttp://a/b;c\n", "separated by semicolons"),
        ("a.tsv", "url\tcaption\na cat\thttp://a/b\n", "--columns url=caption caption=url"),
        ("a.csv", "http://a/b,a cat\n", "--columns url=0 caption=1"),
        ("a.csv", "", "is empty"),
        ("a.csv", "link2,words\nhttp://a/b,a cat\n", "--columns url=LINK phash=none"),
        ("a.csv", "<html>404</html>", "is an HTML page"),
    ],
)
def test_another_format_is_refused_before_anything_is_fetched(
    tmp_path: Path, capsys, name: str, data: str, message: str
):
    (tmp_path / name).write_text(data)
    out = tmp_path / "set"
    assert prepare(name.rpartition(".")[2], tmp_path / name, out) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert message in said and name in said and "Traceback" not in said and not out.exists()


def test_a_wrong_encoding_is_refused(tmp_path: Path, capsys):
    assert prepare("csv", tmp_path, tmp_path / "set", "--text_encoding", "klingon") == 2
    assert "text_encoding: 'klingon' is unknown; valid: an encoding" in capsys.readouterr().err


def test_several_captions_of_a_picture(tmp_path: Path):
    several = [[f"the first caption {i}", None, "", f"the second caption {i}"] for i in range(12)]
    images = [picture(i) for i in range(12)]
    images[3] = None
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": images, "caption": several}), path)
    out, again = tmp_path / "set", tmp_path / "again"
    for folder in (out, again):
        assert prepare("parquet", path, folder) == 0
    assert dict(Manifest.read(out).counts) == {"ok": 11, "no_image": 1}
    taken = captions(out)
    assert taken == captions(again) and len(taken) == 11
    assert len({caption.rpartition(" ")[0] for caption in taken}) == 2
    record = Ledger(out, "images").read("00000-000")
    assert record is not None
    assert record.measured["examples"]["no_image"] == "a.parquet, row 4"


def test_training_refuses_another_format_too(tmp_path: Path, capsys):
    (tmp_path / "a.jsonl").write_text(json.dumps({"url": "a cat", "caption": "http://a/b"}))
    given = ["train", "--dataset_name", "jsonl", "--dataset_path", str(tmp_path / "a.jsonl")]
    given += ["--preset", "debug", "--output_dir", str(tmp_path / "runs"), "--max_steps", "1"]
    assert main(given) == 2
    assert "the url column 'url' holds no URLs" in " ".join(capsys.readouterr().err.split())
