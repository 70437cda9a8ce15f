"""Prompts from files as editors and shells write them: one picture for each line."""

import re

import pytest

from pinxit.cli.main import main
from pinxit.config import UsageError
from pinxit.picture_size import parse_size
from pinxit.prompt_file import (
    PromptLine,
    parse_prompt_line,
    parse_prompt_lines,
    read_prompt_file,
)

PROMPTS = ["a red house", "ein großes Café", "红色的房子"]
TEXT = "\n".join(PROMPTS)


def prompts(path, *how) -> list[str]:
    return [line.prompt for line in read_prompt_file(path, *how)]


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.replace("\n", "\r\n").encode("utf-16"),  # Notepad's "Unicode", PowerShell's >
        "".join(f"\ufeff{TEXT}\n").encode("utf-16-be"),
        f"\n\n {TEXT}  \r\n\r\n".encode(),
        TEXT.replace("\n", "\r").encode(),
        TEXT.replace("red", "r\0ed").encode(),
    ],
)
def test_files_of_many_editors(data, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(data)
    assert prompts(path) == PROMPTS


def test_only_line_ends_separate_prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    lines = ["a house\u2028under a moon", "a\x0btree\x0cat\x85dawn", "a # hash, and 'quotes'"]
    path.write_text("\n".join(lines), "utf-8")
    assert prompts(path) == lines


def test_a_declared_encoding(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("a house\nein großes Café".encode("cp1252"))
    assert prompts(path, "cp1252") == ["a house", "ein großes Café"]
    with pytest.raises(UsageError, match="text_encoding: 'klingon' is unknown"):
        read_prompt_file(str(path), "klingon")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("one\n\ntwo\nCafé".encode("cp1252"), r"prompts\.txt, line 4: not UTF-8 text .*0xe9"),
        (b"one\r\ntw\xffo\r\n", r"prompts\.txt, line 2: .*--text_encoding"),
        (b"", "'[^']*prompts.txt' is empty"),
        (b"\xff\xfe", "is without prompts"),
        (b" \n\t\r\n", "without prompts: all lines are blank or comments"),
        (b"# one\n  # two\n", "without prompts: all lines are blank or comments"),
        (b"\xff\xfea", r"prompts\.txt: not UTF-16-LE text"),
    ],
)
def test_refused_files_are_named_with_the_line(data, message, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=message):
        read_prompt_file(str(path))


def test_the_command_refuses_before_it_loads_a_model(tmp_path, capsys):
    assert main(["generate", "--prompts_file", str(tmp_path / "none.txt")]) == 2
    assert "none.txt' is not a file" in capsys.readouterr().err
    assert main(["generate", "a house", "--text_encoding", "cp1252"]) == 2
    assert "it is the encoding of --prompts_file" in capsys.readouterr().err


FILE = "prompts.txt, line 3"


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("a tent", {}),
        (
            "a prompt --w 512 --h 384 --d 1 --s 20 --l 7.5 --n low quality",
            {
                "width": 512,
                "height": 384,
                "seed": 1,
                "steps": 20,
                "guidance_scale": 7.5,
                "negative_prompt": "low quality",
            },
        ),
        ("a tent --n fog, snow --w 64", {"negative_prompt": "fog, snow", "width": 64}),
        ("a tent --N fog --S 3", {"negative_prompt": "fog", "steps": 3}),
        ("a tent\t--d\t0", {"seed": 0}),
        ("a tent --h 64", {"height": 64}),
        ("a tent --size 320x192", {"width": 320, "height": 192}),
        ("a tent --size 64 --l 0", {"width": 64, "height": 64, "guidance_scale": 0.0}),
    ],
)
def test_options_of_a_line(line, settings):
    prompt = "a prompt" if line.startswith("a prompt") else "a tent"
    assert parse_prompt_line(line, where=FILE) == PromptLine(prompt, FILE, **settings)


@pytest.mark.parametrize(
    "text",
    [
        "a house -- by night -- in the snow",
        "a house --by night",
        "a sign that says --now",
        "a house--w 512",
        "a -n house -w 3",
        "a house —w 512",
        "a --wall of bricks",
    ],
)
def test_two_hyphens_before_other_words_belong_to_the_prompt(text):
    assert parse_prompt_line(text) == PromptLine(text)
    assert parse_prompt_line(f"{text} --n fog -- mist") == PromptLine(
        text, negative_prompt="fog -- mist"
    )


def test_the_sides_that_a_line_lacks_are_those_of_the_command():
    assert parse_prompt_line("a --w 32").size((64, 96)) == (32, 96)
    assert parse_prompt_line("a --h 32").size((64, 96)) == (64, 32)
    assert parse_prompt_line("a --s 3").sampling() == {"steps": 3}


def test_comments_and_blank_lines_count_but_are_no_prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("# kohya's options --w x\n\n  # indented\na tent --s 3\n#\nthe sea\n")
    lines = read_prompt_file(path)
    assert [(line.prompt, line.where) for line in lines] == [
        ("a tent", f"{path}, line 4"),
        ("the sea", f"{path}, line 6"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a --g 3.5", "option: '--g' is not one of a line; valid: --l, the scale of classifier-fr"),
        ("a --fs 3", "option: '--fs' is not one of a line; valid: --shift on the command line; th"),
        ("a --ss euler_a", "'--ss' is not one of a line; valid: --solver on the command line"),
        ("a --i a.png", "'--i' is not one of a line; valid: --image on the command line"),
        (
            "a --cn a.png",
            "'--cn' is not one of a line; valid: --w, --h, --size, --d, --s, --l",
        ),
        ("a --am 1 --w 3", "'--am' is not one of a line"),
        ("a --te 1", "'--te' is not one of a line"),
        ("a --steps 3", "'--steps' is not one of a line; valid: --s; the options of a line are"),
        ("a --seed 3", "'--seed' is not one of a line; valid: --d"),
        ("a --s 2.5", "--s: '2.5' is not understood; valid: a whole number"),
        ("a --s 0", "--s: 0 is too small; valid: at least 1"),
        ("a --w -8", "--w: -8 is too small"),
        ("a --w 8 pixels", "--w: '8 pixels' is not understood"),
        ("a --d -1", "--d: -1 is out of range; valid: 0 to 4294967295"),
        ("a --d 4294967296", "--d: 4294967296 is out of range"),
        ("a --l -1", "--l: '-1' is out of range; valid: at least 0"),
        ("a --l inf", "--l: 'inf' is out of range"),
        ("a --l big", "--l: 'big' is not understood; valid: a number"),
        ("a --n", "--n: '' is missing its value"),
        ("a --n --s 3", "--n: '' is missing its value"),
        ("a --s 3 --S 4", "option: '--s' is there twice; valid: once"),
        ("a --size 3x", "--size: '3x' is not understood; valid: one side, or WIDTHxHEIGHT"),
        ("a --size 32 --w 32", "--size: '32' is beside --w; valid: one of the two"),
        ("--w 32 --h 32", "line: '--w 32 --h 32' is without a prompt"),
    ],
)
def test_a_wrong_line_is_named(line, message):
    with pytest.raises(UsageError, match=f"^{re.escape(FILE)}: .*{re.escape(message)}"):
        parse_prompt_lines(f"a tent\n\n{line}\n", name="prompts.txt")


@pytest.mark.parametrize(
    ("text", "size"),
    [("8", 8), ("320x192", (320, 192)), ("320X192", (320, 192)), (" 320 \u00d7 192 ", (320, 192))],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "8x", "8x8x8", "-8", "8.5", "0x8", "0", "8:8", "9" * 99])
def test_other_sizes_are_refused(text):
    with pytest.raises(UsageError, match=r"^side: .*; valid: "):
        parse_size(text, field="side")
