"""`pinxit prepare` on folders, tars and tables as people have them: every row has its right end."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from pictures import chunk, encoded, png, scene
from tar_files import write_tar

from pinxit.cli.main import main
from pinxit.data.prepared.manifest import Manifest
from pinxit.data.prepared.shards import ShardReader, unpack


def jpeg(seed: int = 0) -> bytes:
    return encoded(scene(48, 40, seed), "JPEG")


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def pairs(names: list[str], suffix: str = ".txt") -> dict[str, bytes | str]:
    """Pictures with captions in files beside them."""
    files: dict[str, bytes | str] = {}
    for number, name in enumerate(names):
        files[f"{name}.jpg"] = jpeg(number)
        files[f"{name}{suffix}"] = f"a caption for {name}"
    return files


class Ended(NamedTuple):
    code: int
    counts: dict[str, int]
    captions: list[str]
    console: str


@pytest.fixture
def prepared(tmp_path: Path, capsys) -> Callable[..., Ended]:
    def run(source: str, path: Path | None, *more: object) -> Ended:
        out = tmp_path / "prepared set"
        given = ["prepare", source, "--out", out, "--vae", "none", "--image_size", 16]
        given += ["--engine", "inline", "--images.workers", 1]
        given += ["--dataset_path", path] if path is not None else []
        code = main([str(word) for word in [*given, *more]])
        console = capsys.readouterr().err
        if not (out / "manifest.json").is_file():
            return Ended(code, {}, [], console)
        manifest = Manifest.read(out)
        captions = []
        for info in manifest.files.get("images", ()):
            if info is not None:
                with ShardReader(out / "images" / info.name) as reader:
                    captions += [unpack(record)[1]["caption"] for record in reader]
        return Ended(code, dict(manifest.counts), captions, console)

    return run


# --- B1: grouping ------------------------------------------------------------------------------


def tar_of(tmp_path: Path, files: dict[str, Any] | list[tuple[str, Any]]) -> Path:
    listed = list(files.items()) if isinstance(files, dict) else files
    return write_tar(
        tmp_path / "shots.tar",
        [(name, data.encode() if isinstance(data, str) else data) for name, data in listed],
    )


@pytest.mark.parametrize("form", ["webdataset", "folder"])
def test_names_with_dots_are_names(tmp_path: Path, prepared, form: str):
    files = pairs(["shot 1.5s", "shot 1.7s", "v1.0"])
    path = tar_of(tmp_path, files) if form == "webdataset" else write(tmp_path / "in", files)
    ended = prepared(form, path)
    assert ended.code == 0 and ended.counts == {"ok": 3}
    assert sorted(ended.captions) == [
        f"a caption for {x}" for x in ("shot 1.5s", "shot 1.7s", "v1.0")
    ]


def test_a_tar_with_all_pictures_before_all_captions(tmp_path: Path, prepared):
    files = pairs([f"{i:03d}" for i in range(8)])
    ordered = sorted(files.items(), key=lambda item: (item[0].endswith(".txt"), item[0]))
    ended = prepared("webdataset", tar_of(tmp_path, ordered))
    if ended.counts.get("ok") != 8:  # pairing is not demanded, but then every file has a status
        assert ended.code == 1 and ended.counts == {"no_caption": 8, "no_image": 8}
        assert "000.jpg" in ended.console


@pytest.mark.parametrize("form", ["webdataset", "folder"])
def test_a_second_picture_of_a_sample_has_an_end_of_its_own(tmp_path: Path, prepared, form: str):
    files = pairs(["a", "b", "c"])
    files |= {"a.png": encoded(scene(40, 40, 7)), "b.png": encoded(scene(40, 40, 8))}
    ordered = dict(sorted(files.items()))
    path = tar_of(tmp_path, ordered) if form == "webdataset" else write(tmp_path / "in", files)
    ended = prepared(form, path)
    assert ended.code == 0 and sum(ended.counts.values()) == 5 and ended.counts["ok"] >= 3


@pytest.mark.parametrize("suffix", [".txt", ".TXT", ".text", ".cap", ".caption", ".jpg.txt"])
@pytest.mark.parametrize("form", ["webdataset", "folder"])
def test_suffixes_of_captions(tmp_path: Path, prepared, suffix: str, form: str):
    files = pairs(["one", "two"], suffix)
    path = tar_of(tmp_path, files) if form == "webdataset" else write(tmp_path / "in", files)
    ended = prepared(form, path)
    assert ended.code == 0 and ended.counts == {"ok": 2}
    assert sorted(ended.captions) == ["a caption for one", "a caption for two"]


def test_a_mask_beside_a_picture_is_not_the_picture(tmp_path: Path, prepared):
    black = encoded(np.zeros((40, 48, 3), np.uint8), "JPEG")
    files = {"1.jpg": jpeg(1), "1.mask.jpg": black, "1.txt": "one red fox", "1.json": "{}"}
    ended = prepared("webdataset", tar_of(tmp_path, files))
    assert ended.counts == {"ok": 1, "extra_image": 1} and ended.captions == ["one red fox"]


# --- B2: records and headers -------------------------------------------------------------------


def test_an_unquoted_comma_does_not_cut_the_caption(tmp_path: Path, prepared):
    table = "url,caption\nftp://a.test/1,a small fox\nftp://a.test/2,a fox, red and small\n"
    ended = prepared("csv", write(tmp_path, {"t.csv": table}) / "t.csv")
    assert ended.code == 1 and ended.counts == {"bad_record": 1, "scheme": 1}
    assert "such as t.csv, record 2" in ended.console


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", '[{"url": "http://a.test/1", "caption": "a red fox"}]', "array"),
        ("a.jsonl", '{\n  "url": "http://a.test/1"\n}\n', "a.jsonl"),
        ("a.tsv", "caption\turl\nhttp://a.test/1\ta red fox\n", "url"),
        ("a.csv", "caption;url\na red fox;http://a.test/1\n", ";"),
        ("a.csv", "http://a.test/1,a red fox\nhttp://a.test/2,two\n", "url=0"),
    ],
)
def test_a_table_that_is_something_else_is_refused_at_opening(
    tmp_path: Path, prepared, name: str, content: str, says: str
):
    path = write(tmp_path, {name: content}) / name
    ended = prepared(path.suffix[1:], path)
    assert ended.code == 2 and says in ended.console
    assert not (tmp_path / "prepared set" / "images.json").exists()


def test_gzip_is_recognised_by_its_content(tmp_path: Path, prepared):
    text = b'url,caption\nftp://a.test/1,"a red fox"\n'
    files = {"plain.csv.gz": text, "packed.csv": gzip.compress(text)}
    write(tmp_path / "in", files)
    ended = prepared("csv", tmp_path / "in")
    assert ended.code == 1 and ended.counts == {"scheme": 2}
    path = write(tmp_path, {"b.csv": bz2.compress(text)}) / "b.csv"
    assert prepared("csv", path).code in (1, 2)


# --- B3: texts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("form", ["webdataset", "folder", "jsonl", "tsv"])
def test_unicode_as_editors_write_it(tmp_path: Path, prepared, encoding: str, form: str):
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    caption = "ein roter Fuchs, süß 猫"
    if form in ("webdataset", "folder"):
        files = {"1.jpg": jpeg(), "1.txt": mark + caption.encode(encoding)}
        path = tar_of(tmp_path, files) if form == "webdataset" else write(tmp_path / "in", files)
        assert prepared(form, path).captions == [caption]
        return
    if form == "jsonl":
        content = json.dumps({"url": "ftp://a.test/1", "caption": caption}, ensure_ascii=False)
    else:
        content = f"url\tcaption\r\nftp://a.test/1\t{caption}\r\n"
    path = write(tmp_path, {f"t.{form}": mark + content.encode(encoding)}) / f"t.{form}"
    ended = prepared(form, path)
    assert ended.counts == {"scheme": 1}  # read to its end, with its URL


@pytest.mark.parametrize("form", ["webdataset", "folder"])
def test_other_encodings_are_declared_or_a_status(tmp_path: Path, prepared, form: str):
    files = pairs(["1"]) | {"2.jpg": jpeg(2), "2.txt": "un café très chaud".encode("cp1252")}
    path = tar_of(tmp_path, files) if form == "webdataset" else write(tmp_path / "in", files)
    ended = prepared(form, path, "--text_encoding", "cp1252")
    assert ended.counts == {"ok": 2} and "un café très chaud" in ended.captions
    (tmp_path / "prepared set").rename(tmp_path / "with")
    ended = prepared(form, path)
    assert ended.counts == {"ok": 1, "bad_text": 1}
    assert "bad_text" in ended.console and "2.jpg" in ended.console
    assert "2.txt is not UTF-8 text" in _details(tmp_path)


def test_a_file_name_that_is_not_utf_8(tmp_path: Path, prepared):
    write(tmp_path / "in", pairs(["1"]))
    folder = os.fsencode(tmp_path / "in")
    for name, data in ((b"caf\xe9.jpg", jpeg(3)), (b"caf\xe9.txt", b"a small cafe in Paris")):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    ended = prepared("folder", tmp_path / "in")
    assert ended.code == 0 and ended.counts == {"ok": 2}


# --- B4: columns of other shapes ---------------------------------------------------------------


def parquet_of(tmp_path: Path, **columns: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def test_one_of_several_captions_is_taken(tmp_path: Path, prepared):
    rows = [[f"first of {i}", f"second of {i}", f"third of {i}"] for i in range(30)]
    images = [jpeg(i) for i in range(30)]
    ended = prepared("parquet", parquet_of(tmp_path, image=images, caption=rows))
    assert ended.code == 0 and ended.counts == {"ok": 30}
    assert {caption.split()[0] for caption in ended.captions} == {"first", "second", "third"}


def test_a_struct_is_refused_at_opening(tmp_path: Path, prepared):
    captions = [{"en": "a red fox", "de": "ein Fuchs"}]
    ended = prepared("parquet", parquet_of(tmp_path, image=[jpeg()], caption=captions))
    assert ended.code == 2 and "struct" in ended.console and "caption" in ended.console


# --- B5: names that must match -----------------------------------------------------------------


def test_names_in_metadata_as_other_machines_wrote_them(tmp_path: Path, prepared):
    files: dict[str, bytes | str] = {f"sub/{i}.jpg": jpeg(i) for i in range(6)}
    names = ["sub\\0.jpg", "SUB/1.JPG", "data/sub/2.jpg", "/home/me/data/sub/3.jpg"]
    names += ["./sub/4.jpg", "C:\\data\\sub\\5.jpg", "sub/gone.jpg"]
    lines = [json.dumps({"file_name": x, "text": f"number {i} here"}) for i, x in enumerate(names)]
    files["metadata.jsonl"] = "\n".join(lines)
    ended = prepared("folder", write(tmp_path / "in", files))
    assert ended.counts == {"ok": 6, "missing_image": 1}
    assert sorted(ended.captions) == [f"number {i} here" for i in range(6)]
    assert "sub/gone.jpg" in ended.console


@pytest.mark.parametrize(
    "name", ["metadata.csv", "captions.csv", "metadata.json", "metadata.parquet"]
)
def test_tables_of_captions_in_a_folder(tmp_path: Path, prepared, name: str):
    write(tmp_path / "in", {f"{i}.jpg": jpeg(i) for i in range(3)})
    records = [{"file_name": f"{i}.jpg", "text": f"number {i} here"} for i in range(3)]
    if name.endswith(".json"):
        (tmp_path / "in" / name).write_text(json.dumps(records))
    elif name.endswith(".csv"):
        with (tmp_path / "in" / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, records[0])
            writer.writeheader()
            writer.writerows(records)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(records), tmp_path / "in" / name)
    ended = prepared("folder", tmp_path / "in")
    assert ended.counts == {"ok": 3}
    assert sorted(ended.captions) == [f"number {i} here" for i in range(3)]


def test_suffixes_of_pictures(tmp_path: Path, prepared):
    names = ["a.jpg", "b.jfif", "c.jpe", "d.JPEG", "e.heic", "f.jxl"]
    files: dict[str, bytes | str] = {name: jpeg(i) for i, name in enumerate(names[:4])}
    files["e.heic"] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    files["f.jxl"] = b"\xff\x0a" + bytes(64)
    files |= {f"{name.partition('.')[0]}.txt": "some words here" for name in names}
    ended = prepared("folder", write(tmp_path / "in", files))
    assert ended.counts == {"ok": 4, "unsupported": 2}
    assert "e.heic" in ended.console and "pip install" in ended.console + _details(tmp_path)


def _details(tmp_path: Path) -> str:
    import pyarrow.parquet as pq

    found = []
    for path in (tmp_path / "prepared set" / "outcomes").glob("*.parquet"):
        found += pq.read_table(path).column("detail").to_pylist()
    return "\n".join(found)


def test_linked_folders_are_followed_once(tmp_path: Path, prepared):
    write(tmp_path / "elsewhere", pairs(["x", "y"]))
    write(tmp_path / "in", pairs(["z"]))
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "ring").symlink_to(tmp_path / "in")
    ended = prepared("folder", tmp_path / "in")
    assert ended.code == 0 and ended.counts == {"ok": 3}


def test_files_that_are_not_read_are_named(tmp_path: Path, prepared):
    files = pairs(["train/a", "train/b", "test/c"]) | {"train/drawing.psd": b"8BPS"}
    ended = prepared("folder", write(tmp_path / "in", files))
    assert ended.counts == {"ok": 2}
    assert "test/c" in ended.console and "drawing.psd" in ended.console


# --- B6 and B7: curated folders, metadata ------------------------------------------------------


def test_a_folder_of_classes_is_kept(tmp_path: Path, prepared):
    files: dict[str, bytes | str] = {f"cat/{i}.jpg": jpeg(i) for i in range(2)}
    files |= {"red_fox/0.jpg": jpeg(5), "readme.txt": "about this folder"}
    ended = prepared("folder", write(tmp_path / "in", files))
    assert ended.code == 0 and ended.counts == {"ok": 3}
    assert sorted(ended.captions) == ["cat", "cat", "red fox"]
    assert "readme.txt" in ended.console


def test_tags_and_short_captions_stay(tmp_path: Path, prepared):
    files = {"1.jpg": jpeg(1), "1.txt": "1girl, solo", "2.jpg": jpeg(2), "2.txt": "猫"}
    ended = prepared("folder", write(tmp_path / "in", files))
    assert ended.counts == {"ok": 2}


def test_a_large_text_chunk_does_not_cost_the_pixels(tmp_path: Path, prepared):
    workflow = b"workflow\0\0" + zlib.compress(b'{"nodes": [1, 2, 3]} ' * 70_000)
    rows = b"".join(b"\0" + bytes((x * 5 + y * 3) % 256 for x in range(3 * 48)) for y in range(40))
    data = png(48, 40, rows=rows, more=chunk(b"zTXt", workflow))
    ended = prepared("folder", write(tmp_path / "in", {"1.png": data, "1.txt": "a small drawing"}))
    assert ended.counts == {"ok": 1}


# --- B8: one damaged file among many -----------------------------------------------------------


def test_a_damaged_file_among_many(tmp_path: Path, prepared):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number in range(3):
        columns = {"image": [jpeg(number)], "caption": [f"number {number} here"]}
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), tmp_path / "in" / f"{number}.parquet")
    (tmp_path / "in" / "1.parquet").write_bytes(b"")
    ended = prepared("parquet", tmp_path / "in")
    assert ended.code == 1 and "1.parquet" in ended.console and "--skip_failed 1" in ended.console
    ended = prepared("parquet", tmp_path / "in", "--skip_failed", 1)
    assert ended.code == 0 and ended.counts == {"ok": 2} and "1.parquet" in ended.console


# --- A5 and the end ----------------------------------------------------------------------------


def test_pictures_that_say_nothing_have_a_status(tmp_path: Path, prepared):
    files: dict[str, bytes | str] = {f"{i}.txt": "some words here" for i in range(4)}
    files["0.gif"] = encoded(np.zeros((1, 1, 3), np.uint8), "GIF")
    files["1.png"] = encoded(np.full((64, 64, 3), 200, np.uint8))
    files["2.jpg"] = encoded(np.full((64, 64, 3), 7, np.uint8), "JPEG")
    files["3.jpg"] = jpeg(3)
    ended = prepared("folder", write(tmp_path / "in", files), "--images.blank", "drop")
    assert ended.counts == {"ok": 1, "blank": 3}
    (tmp_path / "prepared set").rename(tmp_path / "dropped")
    ended = prepared("folder", tmp_path / "in")  # one's own pictures may have one colour
    assert ended.counts == {"ok": 4} and "1 of the images kept was enlarged" in ended.console


def test_nothing_kept_is_a_failure_with_reasons(tmp_path: Path, prepared):
    files: dict[str, bytes | str] = {f"{i}.jpg": b"not a picture" for i in range(3)}
    files |= {f"{i}.txt": "some words here" for i in range(3)} | {"4.txt": "alone"}
    ended = prepared("folder", write(tmp_path / "in", files))
    assert ended.code == 1 and ended.counts == {"not_image": 3}
    assert "failed: nothing was kept of 3 rows. The most frequent reasons:" in ended.console
    assert "3 not_image: " in ended.console and "such as 0.jpg" in ended.console
    assert "1 caption file belongs to no image (the first: 4.txt)" in ended.console


def test_each_picture_and_caption_is_in_a_row_or_in_a_line(tmp_path: Path, prepared):
    """The rule itself, on a folder with a little of everything."""
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    suffixes = ["jpg", "png", "txt", "caption", "json", "mask.png", "TXT", "gif", "webp", "text"]
    files: dict[str, bytes | str] = {}
    for number in range(60):
        for suffix in rng.choice(suffixes, 3, replace=False):
            kind = suffix.rpartition(".")[2].lower()
            content: bytes | str = (
                "words of a caption" if kind in ("txt", "caption", "text") else "{}"
            )
            if kind in ("jpg", "png", "gif", "webp"):
                form = {"jpg": "JPEG"}.get(kind, kind.upper())
                content = encoded(scene(32, 32, number), form)
            files[f"{'ab'[number % 2]}/shot {number % 30}.{number}s.{suffix}"] = content
    ended = prepared("folder", write(tmp_path / "in", files))
    names = set()
    for path in (tmp_path / "prepared set" / "outcomes").glob("*.parquet"):
        names |= set(pq.read_table(path).column("name").to_pylist())
    images = {n for n in files if n.rpartition(".")[2].lower() in ("jpg", "png", "gif", "webp")}
    assert images <= names, sorted(images - names)
    assert ended.counts["ok"] > 0 and sum(ended.counts.values()) == len(names)
    stems = {n.rpartition(".")[0] for n in images}
    alone = {
        n
        for n in files
        if n.lower().endswith((".txt", ".caption", ".text")) and n.rpartition(".")[0] not in stems
    }
    unnamed = alone - names
    assert not unnamed or any(name in ended.console for name in unnamed), sorted(unnamed)
