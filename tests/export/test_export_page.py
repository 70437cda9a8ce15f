"""The Python code of docs/export.md draws with an exported folder."""

from __future__ import annotations

import pytest
from markdown_blocks import read_blocks
from PIL import Image

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
BLOCKS = [b for b in read_blocks() if b.page == "docs/export.md" and b.language == "python"]


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in BLOCKS])
def test_the_code_on_the_page_runs(block, exports, tmp_path, monkeypatch):
    pytest.importorskip("diffusers")
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "shipped").symlink_to(exports["shipped"])
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, block.name, "exec"), {})
    with Image.open("house.png") as picture:
        assert picture.size == (64, 64)
        assert len(picture.getcolors(4096) or ()) > 100
