"""The end of `pinxit prepare`: rows by status, and a failure if nothing was kept."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import prepared_toys as toys
import pytest
from PIL import Image
from tar_files import write_tar

from pinxit import extensions
from pinxit.cli.main import main
from pinxit.cli.prepare_ending import training_command
from pinxit.data.prepared.manifest import Manifest


def image(path: Path, number: int, side: int = 24) -> None:
    noise = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, quality=95)


def prepare(source: str, data: Path, out: Path, *more: str) -> int:
    words = ["prepare", source, "--dataset_path", str(data), "--out", str(out), "--engine"]
    words += ["inline", "--images.workers", "1", "--workers", "1", "--image_size", "16"]
    return main([*words, "--filters.min_side", "none", *more])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images, six of which have a caption: one is too short, one is not an image."""
    data = tmp_path / "my pictures"
    data.mkdir()
    for number in range(8):
        image(data / f"{number}.jpg", number)
        if number < 6:
            words = "a thing" if number == 4 else "a thing seen from above"
            (data / f"{number}.txt").write_text(words)
    (data / "5.jpg").write_bytes(b"<html>not found</html>")
    return data


def test_rows_are_counted_with_an_example_of_each_status(folder, tmp_path, capsys):
    out = tmp_path / "out dir"
    given = ("folder", folder, out, "--vae", "none", "--filters.min_words", "3")
    assert prepare(*given) == 0
    lines = capsys.readouterr().err.splitlines()
    done = lines.index("done: 4 images of 8 rows")
    statuses = {line.split()[1].strip(":"): line for line in lines[done + 1 : done + 5]}
    assert list(statuses) == ["ok", "no_caption", "filtered_words", "not_image"]
    assert statuses["ok"].split()[0] == "4" and statuses["no_caption"].split()[0] == "2"
    assert "the row has no caption, such as" in statuses["no_caption"]
    for status in ("filtered_words", "not_image"):
        assert statuses[status].split()[0] == "1" and ", such as " in statuses[status]
    assert lines[done + 5] == f"to train: pinxit train --dataset_path {shlex.quote(str(out))}"
    assert prepare(*given) == 0  # there is nothing to do, and the end is the same
    assert lines[done:] == capsys.readouterr().err.splitlines()[-len(lines[done:]) :]


@pytest.mark.parametrize("stage", ["images", "all"])
@pytest.mark.parametrize("source", ["folder", "webdataset", "csv"])
def test_nothing_kept_is_a_failure_with_its_reasons(source, stage, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    if source == "folder":
        for number in range(3):
            image(data / f"{number}.jpg", number)
    elif source == "webdataset":
        write_tar(data / "0.tar", [(f"{i}.jpg", b"not an image") for i in range(3)])
    else:
        rows = [f"http://127.0.0.1/{i}.jpg,a thing here\n" for i in range(3)]
        (data / "0.csv").write_text("url,caption\n" + "".join(rows))
    vae = () if stage == "images" else ("--vae", "tiny")
    given = (source, data, out, "--stage", stage, *vae)
    for _ in range(2):  # also when it is run again
        assert prepare(*given) == 1
        said = capsys.readouterr().err
        assert "failed: nothing was kept of 3 rows. The most frequent reasons:" in said
        reason = {"csv": "3 blocked: the address"}.get(
            source, "3 no_caption: the row has no caption"
        )
        assert f"  {reason}" in said and ", such as " in said
        assert "to train" not in said and f"report: {out / 'report.html'}" in said
        assert (out / "report.html").is_file()
        assert Manifest.read(out).kept == 0
    assert (
        main(["prepare", "folder", "--out", str(out), "--stage", "latents", "--vae", "tiny"]) == 1
    )
    assert "failed: nothing was kept of 3 rows" in capsys.readouterr().err


def test_only_the_five_most_frequent_reasons_are_listed(tmp_path, capsys):
    table, out = tmp_path / "t.csv", tmp_path / "out"
    rows = {
        "ftp://host.test/{}.jpg,a thing here": 7,  # scheme
        ",a thing here": 6,  # no_url
        "http://127.0.0.1/{}.jpg,a thing here": 5,  # blocked
        "http://host.test/{}.jpg,": 4,  # no_caption
        "http://host.test/b{}.jpg,word": 3,  # filtered_words
        f"http://host.test/c{{}}.jpg,{'long words ' * 60}": 2,  # filtered_characters
    }
    lines = [line.format(i) for line, count in rows.items() for i in range(count)]
    table.write_text("url,caption\n" + "\n".join(lines) + "\n")
    assert prepare("csv", table, out, "--vae", "none", "--filters.max_characters", "200") == 1
    said = capsys.readouterr().err
    lines = said[said.index("failed: nothing was kept of 27 rows") :].splitlines()
    names = [line.split()[1] for line in lines[1:6]]
    assert names == ["scheme:", "no_url:", "blocked:", "no_caption:", "filtered_words:"]
    assert lines[6] == "  and 1 more reasons, which the report lists"
    assert "filtered_characters" in (out / "report.html").read_text()


def test_a_source_without_rows_is_a_failure(tmp_path, capsys):
    table, out = tmp_path / "t.csv", tmp_path / "out"
    table.write_text("url,caption\n")
    assert prepare("csv", table, out, "--vae", "none") == 1
    said = capsys.readouterr().err
    assert "failed: nothing was kept, because the source has no rows" in said
    assert (out / "report.html").is_file()


def test_latents_that_are_all_not_finite_are_a_failure(folder, tmp_path, capsys, monkeypatch):
    from pinxit.prepare.encoders import LoadedEncoders
    from pinxit.prepare.latents import Encoders

    def broken(self) -> Encoders:
        return Encoders(lambda images: np.full((len(images), 2, 2, 4), np.nan, np.float32), None)

    out = tmp_path / "out"
    monkeypatch.setattr(LoadedEncoders, "ready", broken)
    assert prepare("folder", folder, out, "--vae", "tiny", "--filters.min_words", "none") == 1
    assert "failed: nothing was kept of 5 images: 5 latents are not finite" in (
        capsys.readouterr().err
    )


def test_what_a_source_does_not_read_is_printed_and_reported(folder, tmp_path, capsys, monkeypatch):
    unused = ("2 files of kind .docx, such as <letter>.docx",)
    from pinxit.cli import prepare as command

    real = command.open_source

    def opened(*args, **options):
        source = real(*args, **options)
        object.__setattr__(source, "unused", unused)
        return source

    monkeypatch.setattr(command, "open_source", opened)
    out = tmp_path / "out"
    assert prepare("folder", folder, out, "--vae", "none") == 0
    said = capsys.readouterr().err
    assert said.splitlines()[0] == "not read: 2 files of kind .docx, such as <letter>.docx"
    report = (out / "report.html").read_text()
    assert "Not read: 2 files of kind .docx, such as &lt;letter&gt;.docx" in report


def test_strange_names_stay_on_their_line(tmp_path):
    from pinxit.cli.prepare_ending import _reason

    assert _reason("no_caption", {"no_caption": "a\nb.jpg"}).endswith("such as 'a\\nb.jpg'")
    assert len(_reason("no_caption", {"no_caption": "x" * 5_000})) < 220
    assert _reason("http_404", {}) == "http_404: the server answered 404"  # of an older version


def test_units_of_older_versions_have_no_examples(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare("folder", folder, out, "--vae", "none") == 0
    toys.as_older_version(out)
    for path in (out / "units" / "images").glob("*.json"):
        record = json.loads(path.read_text())
        del record["measured"]["examples"]
        path.write_text(json.dumps(record))
    capsys.readouterr()
    assert prepare("folder", folder, out, "--vae", "none") == 0
    assert "no_caption: the row has no caption\n" in capsys.readouterr().err


def test_the_command_has_the_extensions_and_quotes(monkeypatch, tmp_path):
    file = tmp_path / "my ext.py"
    monkeypatch.setenv(extensions.VARIABLE, str(file))
    command = training_command(Path("a b/it's"))
    expected = ["pinxit", "train", "--dataset_path", "a b/it's", "--extensions", str(file)]
    assert shlex.split(command) == expected
