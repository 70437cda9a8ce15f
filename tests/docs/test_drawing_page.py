"""The commands and the code of docs/drawing.md run one after the other, and do what it says."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from documented_commands import commands_of, ours, run_here
from markdown_blocks import Block, read_blocks
from test_blocks import run_python

from pinxit.picture_files import parameters_text, read_picture, read_recipe
from pinxit.prompt_file import LINE_OPTIONS

PAGE = "docs/drawing.md"
BLOCKS = [block for block in read_blocks() if block.page == PAGE]


def run_block(block: Block, folder: Path, capsys, names: dict) -> list[Path]:
    """Runs a block in a folder, and returns the pictures that its commands print."""
    if block.language == "python":
        with contextlib.chdir(folder):
            run_python(block.text, block.name, names)
    printed: list[Path] = []
    for words in commands_of(block.text) if block.language == "bash" else ():
        command = ours(words)
        assert command is not None
        capsys.readouterr()
        assert run_here(command, folder) == 0, words
        printed += [folder / line for line in capsys.readouterr().out.splitlines()]
    return printed


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the file of prompts that the page shows."""
    folder = tmp_path_factory.mktemp("drawing")
    (text,) = (block.text for block in BLOCKS if block.language == "text")
    (folder / "prompts.txt").write_text(text, encoding="utf-8")
    return folder


def test_the_page_runs_from_top_to_bottom(folder, capsys):
    names: dict = {}
    printed = [run_block(block, folder, capsys, names) for block in BLOCKS]
    prompts, lines, formats, again = (paths for paths in printed if paths)

    recipes = [read_recipe(path) for path in prompts]
    assert prompts[0].name == "00001-7-a-small-red-house.png"
    assert [recipe["seed"] for recipe in recipes] == [7, 8, 9, 10, 0]
    assert recipes[-1]["negative_prompt"] == "snow, night"

    recipes = [read_recipe(path) for path in lines]
    assert [path.name[:5] for path in lines] == [f"{i:05d}" for i in range(1, 7)]
    assert [recipe["steps"] for recipe in recipes[::2]] == [20, 8, 8]
    assert [recipe["size"] for recipe in recipes[::2]] == [[96, 64], [64, 96], [64, 64]]
    assert recipes[2]["prompt"] == "a blue tent -- on a beach"

    assert [(file.suffix, read_recipe(file)["quality"]) for file in formats] == [
        (".webp", 100),
        (".jpg", 90),
    ]
    text = "Steps: 20, Sampler: dpmpp_2m, CFG scale: 3, Seed: 7, Size: 96x64"
    assert text in parameters_text(recipes[0])

    assert again[0].read_bytes() == prompts[0].read_bytes()
    stored = [read_picture(path) for path in again[1:]]
    assert [file.recipe["seed"] for file in stored] == [100, 101, 102, 103]
    assert {file.recipe["steps"] for file in stored} == {16}


def test_the_table_has_every_option_of_a_line():
    page = (Path(__file__).parents[2] / PAGE).read_text("utf-8")
    rows = [row.split("`")[1] for row in page.splitlines() if row.startswith("| `--")]
    assert [row.removeprefix("--") for row in rows if row != "--format"] == list(LINE_OPTIONS)
