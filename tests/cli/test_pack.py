"""`pinxit pack`: what it prints, what it refuses before it begins, and how it ends."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from pathlib import Path

import prepared_toys as toys  # pyrefly: ignore
import pytest
from memory_store import MemoryStore  # pyrefly: ignore

from pinxit.cli import pack as pack_cli
from pinxit.cli.main import main
from pinxit.data.packed.packed_manifest import read_packed

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return toys.latent_dataset(tmp_path_factory.mktemp("made") / "set", (7, 5, 8), text=True)


def refusal(capsys, *words: object) -> str:
    assert main(["pack", *map(str, words)]) == 2
    return capsys.readouterr().err


def test_it_says_what_it_needs_and_what_it_did(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["pack", str(dataset), "--out", str(out), "--pack_gigabytes", "3e-6"]) == 0
    said = capsys.readouterr().err
    assert f"packing {dataset} into {out}: about" in said and "GB free" in said
    assert "latents" in said and "text" in said and "images" in said
    assert "20 records of latents, 20 records of text, 20 records of images" in said
    assert f"to train: pinxit train --dataset_path {out}" in said
    manifest = read_packed(str(out))
    assert manifest.settings["pack_bytes"] == 3000 and manifest.settings["held_out_images"] == 4096
    assert len(manifest.packs("latents")) > 1
    assert main(["pack", "--dataset", str(dataset), "--out", str(out)]) == 2, "other settings"


def test_wrong_words_are_refused_before_anything_is_written(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    assert "dataset: none is not one folder" in refusal(capsys, "--out", out)
    said = refusal(capsys, tmp_path, "--out", out)
    assert "is not a prepared dataset; valid: a folder that `pinxit prepare` wrote" in said
    assert "out: none is missing; valid: a folder or URL" in refusal(capsys, dataset)
    assert "a prepared dataset itself" in refusal(capsys, dataset, "--out", dataset)
    said = refusal(capsys, dataset, "--out", "https://host/set")
    assert "not an object store; valid: a folder, or the URL of an object store" in said
    file = tmp_path / "file"
    file.write_text("")
    assert "is a file; valid: a folder" in refusal(capsys, dataset, "--out", file)
    said = refusal(capsys, dataset, "--out", out, "--pack_gigabytes", 5)
    assert "pack_gigabytes: 5.0 is too large; valid: up to 4.29" in said
    assert "too small" in refusal(capsys, dataset, "--out", out, "--pack_gigabytes", 0)
    assert "too small" in refusal(capsys, dataset, "--out", out, "--held_out_images", -1)
    said = refusal(capsys, dataset, "--out", out, "--scratch", tmp_path)
    assert "not used unless --out is a URL" in said
    assert not out.exists()


def test_a_packed_dataset_is_not_packed_again(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["pack", str(dataset), "--out", str(out)]) == 0
    assert "already packed" in refusal(capsys, out, "--out", tmp_path / "other")


def test_a_disk_with_too_little_room_is_refused_at_once(dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 10**6 - 2000, 2000))
    said = refusal(capsys, dataset, "--out", tmp_path / "out")
    assert "is on a disk with 2.0 kB free, but" in said and "a folder with more room" in said
    assert not (tmp_path / "out").exists()


def test_a_bucket_is_written_by_way_of_the_scratch_folder(dataset, tmp_path, capsys, monkeypatch):
    store = MemoryStore("s3://bucket/set")
    monkeypatch.setattr(pack_cli, "open_store", lambda root: store)
    words = ["pack", str(dataset), "--out", "s3://bucket/set", "--scratch", str(tmp_path / "here")]
    store.failures = {"packed.json": [OSError(errno.ECONNRESET, "Connection reset by peer")]}
    assert main(words) == 1
    assert "stopped: " in capsys.readouterr().err and "packed.json" not in store.files
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "at a time lie in" in said and "--dataset_path s3://bucket/set" in said
    assert "packed.json" in store.files and not list((tmp_path / "here").iterdir())
    monkeypatch.undo()
    assert main(["pack", str(dataset), "--out", str(tmp_path / "out")]) == 0
    local = toys.content(tmp_path / "out")
    assert store.files == local
