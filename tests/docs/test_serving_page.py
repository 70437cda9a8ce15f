"""The commands of docs/serving.md and docs/studio.md start what the pages say, and their pictures
exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
from markdown_blocks import ROOT, read_blocks

from pinxit.cli.main import main
from pinxit.serve.settings import StudioConfig

PAGES = ("docs/serving.md", "docs/studio.md")
LINES = [
    line
    for block in read_blocks()
    if block.page in PAGES and block.language == "bash"
    for line in block.text.splitlines()
]
IMAGE = re.compile(r"!\[([^\]]+)\]\((images/[^)]+)\)")


@pytest.fixture(autouse=True)
def without_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader's shell has no token."""
    monkeypatch.delenv("PINXIT_TOKEN", raising=False)


def test_there_are_commands():
    assert len(LINES) >= 6


@pytest.mark.parametrize("line", LINES)
def test_the_commands_are_understood(line: str, monkeypatch: pytest.MonkeyPatch):
    words = shlex.split(line)
    if words[0] == "pinxit":
        configs: list[StudioConfig] = []
        monkeypatch.setattr("pinxit.serve.server.run_studio", lambda one: configs.append(one) or 0)
        assert main(words[1:]) == 0 and len(configs) == 1
    elif words[0] == "python":
        path = ROOT / words[1]
        spec = importlib.util.spec_from_file_location("ray_serve_of_page", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        assert module.read_options(words[2:]).checkpoints
    else:
        assert words[:3] == ["pip", "install", "-e"] and words[3].startswith(".[studio")


def test_the_options_of_the_page_are_the_servers():
    text = (ROOT / PAGES[0]).read_text()
    names = re.findall(r"`--(\w+)(?: ([\d.]+))?`", text)
    known = StudioConfig()
    for name, value in names:
        if value and hasattr(known, name):
            assert str(getattr(known, name)) == value, name
    assert {"max_waiting", "max_models", "drain_seconds", "max_trainings"} <= {n for n, _ in names}


@pytest.mark.parametrize("page", PAGES)
def test_the_pictures_exist_and_are_described(page: str):
    for words, name in IMAGE.findall((ROOT / page).read_text()):
        path = ROOT / "docs" / name
        assert len(words) > 10 and path.is_file(), name
        assert path.stat().st_size <= 150_000, name


def test_every_page_of_the_studio_is_photographed():
    script = (ROOT / "scripts" / "draw_studio.py").read_text()
    names = {Path(name).stem for _, name in IMAGE.findall((ROOT / PAGES[1]).read_text())}
    assert all(f'"{name.rpartition("_")[0]}": (' in script for name in names)
