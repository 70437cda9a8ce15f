"""Every command and code block of the documentation is run, or its tag says why it is not."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from documented_commands import (
    REMEDY,
    check_arguments,
    check_extras,
    check_names,
    commands_of,
    ours,
    run_here,
)
from markdown_blocks import KINDS, PAGES, ROOT, Block, TagError, blocks_of, read_blocks

BLOCKS = read_blocks()
SHELL = [block for block in BLOCKS if block.language == "bash"]
PYTHON = [block for block in BLOCKS if block.language == "python"]


def cases(blocks: list[Block], *kinds: str) -> list:
    """Blocks of these kinds as parameters, those that another file runs left out."""
    chosen = [b for b in blocks if b.kind in kinds and not (b.kind == "default" and b.reason)]
    return [pytest.param(block, id=block.name) for block in chosen]


def test_every_block_has_a_tag_and_every_kind_is_used(record_property):
    counts = Counter(block.kind for block in BLOCKS)
    record_property("blocks", dict(counts))
    print(", ".join(f"{counts[kind]} {kind}" for kind in KINDS))
    assert set(counts) == set(KINDS) and sum(counts.values()) == len(BLOCKS)
    fences = sum(len(re.findall("^```", (ROOT / p).read_text(), re.MULTILINE)) for p in PAGES)
    assert fences == 2 * len(BLOCKS)
    for block in BLOCKS:
        known = ("text",) if block.kind == "no" else ("bash", "python")
        assert block.language in known, f"{block.name} is {block.language!r} and {block.kind}"


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("text", "the line before the block is 'text'"),
        ("<!-- run: sometimes -->", "the kind 'sometimes' is unknown; valid: default, slow"),
        ("<!-- run: slow -->", "slow needs a reason"),
        ("<!-- run: no: -->", "the line before the block is"),
        ("<!-- run: default -->\n", "the line before the block is ''"),
    ],
)
def test_a_block_without_a_whole_tag_is_refused(before: str, message: str):
    with pytest.raises(TagError, match=re.escape(message)):
        blocks_of(f"{before}\n```bash\npinxit train\n```\n", "page.md")


def test_the_kinds_are_those_of_contributing():
    named = re.findall(r"^\| `([\w-]+)[^`]*` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert list(dict.fromkeys(named)) == list(KINDS)


def text_with_stand_ins(path: str) -> str:
    """The text of a test file, and of the stand-ins that it imports."""
    text = (ROOT / path).read_text("utf-8")
    modules = [re.match(r"(?:from|import) (\w+)", line) for line in text.splitlines()]
    stand_ins = [ROOT / f"tests/stand_ins/{module[1]}.py" for module in modules if module]
    return "".join([text, *(file.read_text("utf-8") for file in stand_ins if file.exists())])


def test_blocks_that_another_file_runs_are_run_there():
    """A test file reads the page's blocks or uses their options; .ci/run has their lines."""
    for block in BLOCKS:
        if block.kind != "default" or block.reason is None:
            continue
        text = text_with_stand_ins(block.reason)
        if block.reason == ".ci/run":
            assert set(block.text.splitlines()) <= set(text.splitlines()), block.name
        elif block.language == "python":
            assert block.page in text, f"{block.reason} does not read {block.page}"
        elif Path(block.page).name in text and '"bash"' in text:
            continue  # the file takes the commands from the page and runs them
        else:
            for words in commands_of(block.text):
                names = [word for word in words if word.startswith("--") or word.endswith(".py")]
                used = [name for name in names if name in text]
                assert used and set(names) - set(used) <= {"--name"}, (block.name, names)


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in SHELL])
def test_the_arguments_of_every_command_are_understood(block: Block, named_folders: Path, capsys):
    for words in commands_of(block.text):
        own = ours(words)
        if own is None:
            check_extras(words)
        elif block.page == "docs/extending.md":  # what it names is an extension's
            check_names(own, named_folders)
        else:
            check_arguments(own, named_folders)


@pytest.mark.parametrize("block", cases(SHELL, "default"))
def test_commands_run(block: Block, small_run: Path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for words in commands_of(block.text):
        command = ours(words)
        assert command is not None, shlex.join(words)
        capsys.readouterr()
        code = run_here(command, small_run)
        out = capsys.readouterr().out
        if command[1] == "doctor":  # a poor machine has problems, and doctor says so
            problems = re.search(r'"problems": (\d+)|(\d+) problems, ', out)
            assert problems and code == (0 if "0" in problems.groups() else 1), out
            assert "--json" not in command or json.loads(out)["lines"]
        else:
            assert code == 0, shlex.join(command)
            assert all((small_run / line).exists() for line in out.split()), out


def run_python(text: str, name: str, names: dict) -> None:
    """Runs a block statement by statement; `expression  # value` must have that value."""
    lines = text.splitlines()
    for statement in ast.parse(text).body:
        code = ast.get_source_segment(text, statement)
        if not isinstance(statement, ast.Expr):
            exec(compile(ast.Module([statement], []), name, "exec"), names)
            continue
        value = eval(compile(ast.Expression(statement.value), name, "eval"), names)
        comment = lines[statement.end_lineno - 1].partition("  # ")[2]
        if comment:
            assert value == ast.literal_eval(comment), f"{name}: {code} is {value!r}"


def test_a_wrong_value_in_a_comment_is_seen():
    run_python("one = 1\none + 1  # 2\n", "page", {})
    with pytest.raises(AssertionError, match="one \\+ 1 is 2"):
        run_python("one = 1\none + 1  # 3\n", "page", {})


@pytest.mark.parametrize("page", sorted({case.values[0].page for case in cases(PYTHON, "default")}))
def test_python_runs(page: str, small_run: Path, monkeypatch):
    """The blocks of a page, one after the other, as they are read."""
    monkeypatch.chdir(small_run)
    names: dict = {}
    for case in cases(PYTHON, "default"):
        if case.values[0].page == page:
            run_python(case.values[0].text, case.id, names)


@pytest.mark.parametrize("block", cases(SHELL, "needs-network", "needs-device"))
def test_without_it_one_line_says_what_to_do(block: Block, tmp_path: Path, offline, capfd):
    """Each of our commands ends at once, with a remedy, and leaves nothing behind."""
    commands = [own for words in commands_of(block.text) if (own := ours(words)) is not None]
    assert commands
    for command in commands:
        capfd.readouterr()
        code = run_here(command, tmp_path)
        said = capfd.readouterr().err
        assert code in (1, 2), f"{shlex.join(command)} ended with {code}"
        errors = [line for line in said.splitlines() if re.match(r"\S+: error: |stopped: ", line)]
        assert len(errors) == 1 and "Traceback" not in said, said
        assert any(word in errors[0] for word in REMEDY), errors[0]
        assert not list(tmp_path.rglob("*")), shlex.join(command)


@pytest.mark.parametrize("block", cases(PYTHON, "needs-network", "needs-device"))
def test_without_it_python_says_what_to_do(block: Block, offline):
    with pytest.raises(ValueError) as error:
        run_python(block.text, block.name, {})
    assert any(word in str(error.value) for word in REMEDY), error.value
