"""`pinxit prepare`, as a user gives it: a real server, kills, retries, refusals, and its report."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coyo_files import write_coyo
from hostile_server import LOOPBACK, HostileServer
from prepare_work import picture
from prepared_toys import committed
from tar_files import write_tar

from pinxit.cli.main import main
from pinxit.data.prepared.manifest import Manifest
from pinxit.data.row import Unit
from pinxit.prepare import images as prepare_images

ROOT = Path(__file__).parents[2]
KINDS = ("good", "404", "png", "good", "500", "html", "good", "noai", "redirected", "good")


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running


@pytest.fixture(scope="module")
def table(server: HostileServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("coyo") / "part.parquet"
    urls = [server.url(KINDS[i % len(KINDS)], i) for i in range(60)]
    return write_coyo(path, 60, group=20, url=urls)


def words(table: Path, out: Path, bundle: Path, *more: object) -> list[str]:
    given = ["prepare", "coyo", "--dataset_path", table, "--out", out, "--vae", bundle]
    given += ["--image_size", 16, "--unit_rows", 20, "--encode_batch", 8, "--images.workers", 1]
    given += ["--fetch.allow_networks", LOOPBACK, "--fetch.retries", 0, "--fetch.timeout", 20]
    return [str(word) for word in [*given, "--workers", 1, *more]]


def test_both_stages_a_second_time_and_a_retry(table: Path, bundle: Path, tmp_path: Path, capsys):
    out = tmp_path / "set"
    given = words(table, out, bundle, "--engine", "inline")
    assert main(given) == 0
    said = capsys.readouterr().err
    assert "preparing images: unit 3 of 3" in said and "done: 36 images of 60 rows" in said
    assert f"pinxit train --dataset_path {out}" in said.replace("\n", "")
    manifest = Manifest.read(out)
    ends = {"ok": 36, "http_404": 6, "http_500": 6, "not_image": 6, "opt_out": 6}
    assert dict(manifest.counts) == ends and manifest.latents["count"] == 36
    assert manifest.identity["encoders"]["vae"]["name"] == str(bundle)
    report = (out / "report.html").read_text()
    assert (
        "server answered 404" in report and "127.0.0.1/32" in report and "pinxit prepare" in report
    )
    before = {path: path.stat().st_mtime_ns for path in (out / "latents").iterdir()}
    assert main(given) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "latents").iterdir()} == before
    assert main([*given, "--retry_failed", "1"]) == 0  # 500 may heal, and has not
    assert Manifest.read(out).fingerprint() == manifest.fingerprint()
    assert main([*given, "--filters.min_aesthetic", "6"]) == 2
    assert "started with other settings: filters.min_aesthetic" in capsys.readouterr().err


def test_a_limit_is_in_rows_and_can_be_raised(table: Path, bundle: Path, tmp_path: Path):
    out = tmp_path / "set"
    given = words(table, out, bundle, "--engine", "inline", "--stage", "images")
    assert main([*given, "--limit", "25"]) == 0
    assert Manifest.read(out).rows == 40
    assert main(given) == 0
    assert Manifest.read(out).rows == 60


@pytest.mark.slow
def test_killed_and_given_again(table: Path, bundle: Path, tmp_path: Path):
    """Worker processes, as by default; the first command is killed in the middle."""
    out, whole = tmp_path / "killed", tmp_path / "whole"
    given = words(table, out, bundle, "--stage", "images", "--engine", "local")
    command = [
        sys.executable,
        "-c",
        "import sys; from pinxit.cli.main import main; sys.exit(main())",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen([*command, *given], env=environment, stderr=subprocess.DEVNULL)
    while not committed(out) and first.poll() is None:
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = len(committed(out))
    again = subprocess.run([*command, *given], env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert main(words(table, whole, bundle, "--stage", "images", "--engine", "inline")) == 0
    assert Manifest.read(out).fingerprint() == Manifest.read(whole).fingerprint(), done


def test_units_that_fail_are_named_and_end_with_1(
    table: Path, bundle: Path, tmp_path: Path, capsys, monkeypatch
):
    real = prepare_images.prepare_images

    def broken(unit: Unit, *rest: Any, **more: Any) -> Any:
        if unit.part == 1:
            raise RuntimeError("a bug, say")
        return real(unit, *rest, **more)

    out = tmp_path / "set"
    given = words(table, out, bundle, "--engine", "inline", "--stage", "images")
    monkeypatch.setattr(prepare_images, "prepare_images", broken)
    assert main(given) == 1
    said = capsys.readouterr().err
    assert "00000-001 failed: RuntimeError: a bug, say" in said and "images: 2 of 3" in said
    assert (
        "run the same command again" in said and "a bug, say" in (out / "report.html").read_text()
    )
    monkeypatch.undo()
    assert main(given) == 0 and Manifest.read(out).kept == 36


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Four tars of three samples; the third is torn."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in range(4):
        files = []
        for row in range(3):
            name = f"{number}{row}"
            files += [(f"{name}.jpg", picture(3 * number + row)), (f"{name}.txt", b"a thing here")]
        path = write_tar(folder / f"{number}.tar", files)
        if number == 2:
            path.write_bytes(path.read_bytes()[:-4000])
    return folder


def of_tars(tars: Path, out: Path, bundle: Path, *more: object) -> list[str]:
    given = ["prepare", "webdataset", "--dataset_path", tars, "--out", out, "--vae", bundle]
    given += ["--image_size", 16, "--encode_batch", 4, "--images.workers", 1, "--workers", 1]
    return [str(word) for word in [*given, *more]]


@pytest.mark.parametrize(("limit", "rows"), [(1, 3), (4, 6), (6, 6)])
def test_a_limit_holds_for_tars(tars: Path, bundle: Path, tmp_path: Path, limit: int, rows: int):
    given = of_tars(tars, tmp_path / "set", bundle, "--engine", "inline", "--limit", limit)
    for _ in range(2):  # the second time, rows are known from the records
        assert main([*given, "--stage", "images"]) == 0
        assert Manifest.read(tmp_path / "set").rows == rows


def test_a_damaged_tar_can_be_left_out(tars: Path, bundle: Path, tmp_path: Path, capsys):
    given = of_tars(tars, tmp_path / "set", bundle, "--engine", "inline")
    assert main(given) == 1
    said = capsys.readouterr().err
    assert re.search(r"00002-000 failed: \S+\.tar is damaged: ", said)
    assert "--skip_failed 1 to leave them out" in said
    assert main([*given, "--skip_failed", "1"]) == 0
    said = capsys.readouterr().err
    assert "00002-000 left out: " in said and "done: 9 images of 9 rows" in said
    manifest = Manifest.read(tmp_path / "set")
    assert set(manifest.skipped) == {"00002-000"} and manifest.latents["count"] == 9


def test_ranks_do_not_wait_and_the_last_one_writes_the_manifest(
    tars: Path, bundle: Path, tmp_path: Path, capsys
):
    """The first rank has the torn tar."""
    out = tmp_path / "set"
    first, second = (
        of_tars(tars, out, bundle, "--engine", "rank", "--world", 2, "--rank", rank)
        for rank in range(2)
    )
    assert main(second) == 0
    said = capsys.readouterr().err
    assert "images: 2 of 2 units done" in said and "latents: 2 of 2 units done" in said
    assert "not finished: " in said and "2 of 4 units are not done" in said
    assert not (out / "report.html").exists() and not (out / "manifest.json").exists()
    assert main(first) == 1
    said = capsys.readouterr().err
    assert "images: 1 of 2 units done" in said and "latents: 1 of 2 units done" in said
    assert (out / "report.html").exists() and committed(out, "latents") == committed(out)
    assert main([*first, "--skip_failed", "1"]) == 0
    manifest = Manifest.read(out)
    assert manifest.latents["count"] == 9 and set(manifest.skipped) == {"00002-000"}


def test_a_folder_that_cannot_be_used_ends_with_1(
    table: Path, bundle: Path, tmp_path: Path, capsys
):
    out = tmp_path / "set"
    out.mkdir()
    (out / "units").write_text("a file where a folder must be")
    assert main(words(table, out, bundle, "--engine", "inline", "--stage", "images")) == 1
    assert "stopped: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["prepare", "--out", "x"], "source: none is not one name; valid: coyo, laion2b"),
        (["prepare", "koyo", "--out", "x"], "source: 'koyo' is unknown; valid: coyo"),
        (["prepare", "coyo"], "out: none is missing; valid: a folder"),
        (["prepare", "coyo", "--out", "x", "--engine", "spark"], "engine: 'spark' is unknown"),
        (["prepare", "coyo", "--out", "x", "--limit", "0"], "limit: 0 is too small"),
        (["prepare", "coyo", "--out", "x", "--fetch.allow_networks", "all"], "allow_networks"),
        (["prepare", "csv", "--out", "x"], "dataset_path: none is missing"),
        (["prepare", "coyo", "--out", "x", "--images.size", "64"], "images.size: 64 is not used"),
        (
            ["prepare", "coyo", "--out", "x", "--text_encoder", "clip"],
            "not used without --store_text 1",
        ),
        (
            ["prepare", "coyo", "--out", "x", "--text_max_tokens", "9"],
            "text_max_tokens: 9 is",
        ),
        (
            ["prepare", "coyo", "--out", "x", "--caption_cleaning", "none"],
            "not used without --store_text 1",
        ),
        (["prepare", "coyo", "--out", "x", "--store_text", "1", "--vae", "none"], "store_text: "),
        (
            ["prepare", "coyo", "--out", "x", "--stage", "latents", "--limit", "5"],
            "limit: 5 is not used",
        ),
        (["prepare", "coyo", "--out", "x", "--stage", "latents", "--retry_failed"], "retry_failed"),
        (["prepare", "coyo", "--out", "x", "--stage", "latents", "--skip_failed"], "skip_failed: "),
        (
            ["prepare", "coyo", "--out", "x", "--stage", "latents", "--vae", "none"],
            "vae: 'none'",
        ),
        (["prepare", "coyo", "--out", "x", "--dataset_path", "no.parquet"], "COYO-format parquet"),
    ],
)
def test_refusals_in_one_line(more: list[str], message: str, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(more) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_help_lists_the_nested_settings(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    said = capsys.readouterr().out
    assert "--filters.min-aesthetic" in said.replace("_", "-") and "--engine" in said
