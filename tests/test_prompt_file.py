"""Prompts from files as editors and shells write them: one picture for each line."""

import pytest

from pinxit.cli.main import main
from pinxit.config import UsageError
from pinxit.prompt_file import read_prompt_file

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
