"""Without the extra for data, nothing begins: one line says what to install."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pinxit import extras
from pinxit.cli.main import main

ROOT = Path(__file__).parents[1]


def test_the_modules_are_those_of_the_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = {line.partition(">")[0].replace("-", "_") for line in project[
        "optional-dependencies"]["data"]}  # fmt: skip
    assert packages == set(extras.DATA)


@pytest.mark.parametrize(
    "command",
    [
        ["prepare", "folder", "--dataset_path", ".", "--out", "set"],
        ["train", "--dataset_name", "folder", "--dataset_path", ".", "--max_steps", "1"],
    ],
)
def test_a_missing_extra_is_one_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(tmp_path)
    real = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "pyarrow" else real(name))
    assert main(command) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "needs packages that are not installed (pyarrow): pip install" in line
    assert "[data]" in line and not (tmp_path / "set").exists()
