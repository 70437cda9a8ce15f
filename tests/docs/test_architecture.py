"""The architecture page, the layers' picture and README's tree name what exists, and all of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pinxit"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
FOLDERS = sorted(
    str(path.parent.relative_to(PACKAGE))
    for path in PACKAGE.rglob("__init__.py")
    if path.parent != PACKAGE
)

sys.path.insert(0, str(ROOT / "scripts"))

from draw_layers import PICTURE, contents, draw, fitting, layers, need, shown  # noqa: E402


def tree() -> list[str]:
    """Paths in README's tree of the package, with their folders."""
    block = re.search(r"```text\npinxit/\n(.*?)```", README, re.DOTALL)
    assert block, "README has no tree of the package"
    paths: list[str] = []
    parents: list[str] = []
    for line in block[1].splitlines():
        if not line.startswith("  "):
            break
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        name = line.split()[0]
        parents[depth:] = [name.rstrip("/")]
        paths.append("/".join(parents[: depth + 1]))
    return paths


def test_every_path_on_the_page_exists():
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py|/))`", PAGE.partition("## ")[2])
    assert len(named) > 30
    assert [name for name in named if not (PACKAGE / name).exists()] == []


def test_readme_lists_every_folder_once_with_a_line():
    listed = [path for path in tree() if (PACKAGE / path).is_dir()]
    assert sorted(listed) == sorted(["assets", *FOLDERS])


def test_readme_lists_every_module_at_the_top():
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert modules - {path for path in tree() if path.endswith(".py")} == set()


def test_every_path_of_the_tree_exists():
    assert [path for path in tree() if not (PACKAGE / path).exists()] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_folder_says_in_a_sentence_what_it_holds(folder):
    first = (PACKAGE / folder / "__init__.py").read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r'"""\S.{20,}\.("""|)', first), first


def test_the_picture_has_every_module_of_the_package():
    shown = {name for row in layers() for name in row}
    there = {path.stem for path in PACKAGE.glob("*.py")} | set(contents("."))
    there = {name.rstrip("/") for name in there} - {"__init__", "__main__"}
    assert shown == there


def test_no_box_of_the_picture_is_narrower_than_its_words():
    for row in layers():
        parts = fitting(row, 100.0, 1.2)
        assert [name for part in parts for name in part] == row
        for part in parts:
            assert sum(map(need, part)) + 1.2 * (len(part) - 1) <= 100


def test_the_picture_is_drawn(tmp_path):
    draw(tmp_path / "layers.png")
    assert (tmp_path / "layers.png").stat().st_size > 20_000
    with Image.open(PICTURE) as picture:
        drawn = picture.text["Description"]
    assert drawn == shown(), "the package has changed: run python scripts/draw_layers.py"
