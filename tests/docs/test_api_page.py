"""The requests of docs/api.md are made to a running studio, and get what the page says."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from documented_commands import commands_of
from markdown_blocks import read_blocks
from PIL import Image
from studio import folders_in, running_studio
from test_blocks import run_python

from pinxit.sampling import ALIASES, Sampling
from pinxit.serve.images_api.drawing_fields import REFUSED, EditBody
from pinxit.serve.images_api.drawing_request import IGNORED

PAGE = "docs/api.md"
ADDRESS = "http://127.0.0.1:7860"
TEXT = (Path(__file__).parents[2] / PAGE).read_text("utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the pictures that the page names."""
    photo = Image.new("RGB", (64, 64), "green")
    photo.save(tmp_path / "photo.png")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "mask.png")
    return tmp_path


def test_the_requests_of_the_page(folder: Path, tmp_path_factory):
    names: dict = {}
    with running_studio(**folders_in(tmp_path_factory.mktemp("studio"))) as studio:
        for block in [block for block in read_blocks() if block.page == PAGE]:
            text = block.text.replace(ADDRESS, studio.url)
            if block.language == "python":
                with contextlib.chdir(folder):
                    run_python(text, block.name, names)
            for words in commands_of(text) if block.language == "bash" else ():
                assert words[0] == "curl"
                done = subprocess.run(
                    [*words, "--silent"], cwd=folder, capture_output=True, timeout=60
                )
                (item,) = json.loads(done.stdout)["data"]
                assert base64.b64decode(item["b64_json"])[:4] == b"\x89PNG" and item["seed"] == 7
        names["client"].close()
    assert {path.name for path in folder.glob("house-*")} == {"house-7.png", "house-8.png"}


def test_every_field_is_on_the_page():
    known = {*EditBody.model_fields, *REFUSED, *IGNORED}
    known |= {each.name for each in fields(Sampling)} | {*ALIASES}
    missing = [name for name in known if f"`{name}`" not in TEXT]
    assert missing == []
