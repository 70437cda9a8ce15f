"""The commands of docs/image_to_image.md draw what the page says."""

from __future__ import annotations

from pathlib import Path

from markdown_blocks import read_blocks
from test_drawing_page import run_block

from pinxit.picture_files import read_recipe

PAGE = "docs/image_to_image.md"


def test_the_commands_start_from_a_picture(tmp_path: Path, capsys):
    (block,) = (b for b in read_blocks() if b.page == PAGE and b.language == "bash")
    house, tent = run_block(block, tmp_path, capsys, {})
    assert house.read_bytes() != tent.read_bytes()
    about = read_recipe(tent)["image"]
    assert (about["name"], about["strength"]) == (house.name, 0.6)
