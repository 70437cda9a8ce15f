"""No command writes to a URL, and each says so before it does anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pinxit.cli.main import main
from pinxit.config import UsageError
from pinxit.output_paths import check_local, check_writable, has_protocol
from pinxit.train.settings import TrainConfig

COMMANDS = {
    "train --output_dir URL": "output_dir",
    "plan --json URL": "json",
    "plan --picture URL/a.png": "picture",
    "prepare coyo --out URL": "out",
    "prepare coyo --find_duplicates URL": "find_duplicates",
    "generate house --out URL": "out",
    "grid house --x seed=0-3 --out URL/a.png": "out",
    "grid house --x seed=0-3 --cells URL": "cells",
    "evaluate --out URL": "out",
    "evaluate --out URL --sweep steps=4,8": "out",
    "compare a b --out URL": "out",
    "studio --out URL": "out",
    "studio --runs URL": "runs",
    "studio --data data URL": "data",
    "export --checkpoint CHECKPOINT --out URL": "out",
    "export --checkpoint CHECKPOINT --format safetensors --out URL/a.safetensors": "out",
    "doctor --output_dir URL": "output_dir",
}


@pytest.mark.parametrize("url", ["gs://bucket/set", "s3:/bucket/set"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_url_is_refused_with_the_way_that_works(
    command: str,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    bundle = Path(__file__).parents[1] / "pinxit" / "assets" / "tiny"
    words = command.replace("URL", url).replace("CHECKPOINT", str(bundle)).split()
    assert main(words) == 2
    message = capsys.readouterr().err
    assert f"{COMMANDS[command]}: '{url}" in message and "a URL" in message
    assert "mounted" in message and "docs/object_stores.md" in message
    if words[0] == "prepare" and COMMANDS[command] == "out":
        assert "pinxit pack DIR --out URL" in message
    assert os.listdir(tmp_path) == []


def test_a_run_of_code_is_refused_as_well():
    with pytest.raises(UsageError, match="output_dir: 's3://bucket/runs' is a URL"):
        TrainConfig(output_dir="s3://bucket/runs")


def test_paths_and_urls_are_told_apart():
    assert has_protocol("gs://bucket/set") and has_protocol("s3:/b") and has_protocol("file:///a")
    for path in ("runs", "/data/set", "C:\\data", "c:/data", "./gs:/a", "a:b", "::", ""):
        assert not has_protocol(path), path
        check_local("out", path, None)


def test_a_folder_must_be_writable(tmp_path: Path):
    check_writable("out", "new/deep", tmp_path / "new" / "deep")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"out: 'file' is not writable: .*file is a file"):
        check_writable("out", "file", tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]
