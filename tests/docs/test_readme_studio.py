"""README's commands of the studio are understood, and its request to the API gets a picture."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import pytest
from markdown_blocks import read_blocks
from PIL import Image
from studio import folders_in, running_studio
from test_blocks import run_python

from pinxit.cli.main import main
from pinxit.cli.train_studio import without_studio
from pinxit.serve.settings import StudioConfig

ADDRESS = "http://127.0.0.1:7860"
BLOCKS = [block for block in read_blocks() if block.page == "README.md"]
COMMANDS = [
    line
    for block in BLOCKS
    if block.language == "bash" and "studio" in block.text
    for line in block.text.splitlines()
]


def test_there_are_commands():
    assert len(COMMANDS) == 4


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_are_understood(line: str, monkeypatch: pytest.MonkeyPatch):
    words = shlex.split(line, comments=True)
    if words[:2] == ["pinxit", "studio"]:
        monkeypatch.delenv("PINXIT_TOKEN", raising=False)
        configs: list[StudioConfig] = []
        monkeypatch.setattr("pinxit.serve.server.run_studio", lambda one: configs.append(one) or 0)
        assert main(words[1:]) == 0 and len(configs) == 1
    elif words[:2] == ["pinxit", "train"]:
        rest, port = without_studio(words[2:])
        assert (rest, port is not None) == ([], True)
    else:
        assert words == ["pip", "install", "-e", ".[studio]"]


def test_the_request_of_the_page(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    (block,) = [block for block in BLOCKS if ADDRESS in block.text]
    names: dict = {}
    with running_studio(**folders_in(tmp_path_factory.mktemp("studio"))) as studio:
        with contextlib.chdir(tmp_path):
            run_python(block.text.replace(ADDRESS, studio.url), block.name, names)
        names["client"].close()
    with Image.open(tmp_path / "house.png") as picture:
        assert picture.size == (64, 64) and '"seed": 7' in picture.text["pinxit"]
