"""A user's function: how it is loaded, and what is said about its mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pinxit.config import UsageError
from pinxit.evaluate.user_function import (
    StoppedAtPicture,
    UserFunctionError,
    as_user_function,
    load_function,
    one_by_one_rows,
)

ASK = ("image", "question")


@pytest.fixture
def written(tmp_path: Path, monkeypatch):
    """Writes a file, and takes its folder out of the search path afterwards."""
    import sys

    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(text: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_a_function_is_loaded_with_its_files_hash_and_neighbours(written):
    written("def shout(text):\n    return text.upper()\n", "neighbour_of_mine.py")
    text = "from neighbour_of_mine import shout\n\ndef ask(image, question):\n"
    path = written(text + "    return shout(question)\n")
    ask = load_function(f"{path}:ask", option="answer", parameters=ASK)
    assert ask(None, "yes") == "YES"
    assert ask.about() == load_function(f"{path}:ask", option="answer").about()
    assert ask.beside("nothing", ASK) is None
    written(text + "    return shout(question)  # edited\n")
    assert load_function(f"{path}:ask", option="answer").about() != ask.about()


def test_a_file_may_have_the_name_of_another_module(written):
    path = written(
        "def ask(image, question):\n    return json_is_mine\n\njson_is_mine = 1\n", "json.py"
    )
    assert load_function(f"{path}:ask", option="answer")(0, 0) == 1
    import json

    assert json.dumps(1) == "1"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is not a file and a function; valid: FILE.py:NAME"),
        (":", "is not a file and a function"),
        (":two words", "is not a file and a function"),
        (":answer", "is missing: mine.py has no answer; valid: ask, one$"),
        (":NUMBER", "is not a function but of the type int; valid"),
        (
            ":one",
            r"a function with the parameters \(image\); valid: a function of \(image, question\)",
        ),
    ],
)
def test_what_cannot_be_loaded_is_refused(written, name: str, message: str):
    text = "NUMBER = 1\ndef ask(image, question): ...\ndef one(image): ...\n"
    path = written(text)
    with pytest.raises(UsageError, match=f"^answer: .*{message}"):
        load_function(path + name, option="answer", parameters=ASK)


def test_a_missing_file_a_folder_and_another_kind_are_refused(tmp_path: Path):
    (tmp_path / "folder.py").mkdir()
    for name, message in (
        ("no.py", "missing"),
        ("folder.py", "not a file"),
        ("a.txt", "not a file and"),
    ):
        with pytest.raises(UsageError, match=message):
            load_function(f"{tmp_path / name}:f", option="answer")


def test_a_file_that_cannot_be_run_shows_its_own_traceback(written):
    path = written("def f():\n    return {}['x']\n\nf()\n")
    with pytest.raises(
        UserFunctionError, match=r"answer: .* cannot be run: KeyError: 'x'"
    ) as error:
        load_function(f"{path}:f", option="answer")
    assert 'mine.py", line 2, in f' in error.value.trace and "importlib" not in error.value.trace


def test_an_exception_inside_keeps_the_rows_before_it(written):
    path = written("def row(image, prompt):\n    return [1 / image]\n")
    function = load_function(f"{path}:row", option="detector")
    with pytest.raises(StoppedAtPicture) as stopped:
        one_by_one_rows(function, [1, 2, 0, 4], list("abcd"), width=1)
    assert stopped.value.rows.tolist() == [[1.0], [0.5]]
    error = stopped.value.named(64, list("abcd"))
    assert str(error).startswith("picture 66 ('c'): detector: ")
    assert "row raised ZeroDivisionError: division by zero" in str(error)
    assert 'mine.py", line 2, in row' in error.trace and "one_by_one" not in error.trace
    with pytest.raises(StoppedAtPicture) as stopped:
        one_by_one_rows(function, [0], ["a"], width=3)
    assert stopped.value.rows.shape == (0, 3)


def test_a_python_function_is_itself_in_one_process_only():
    ask = lambda image, question: True  # noqa: E731
    one, two = (as_user_function(ask, option="answer", parameters=ASK) for _ in range(2))
    assert one.about() == two.about() and "process" in one.about()
    other = as_user_function(lambda image, question: True, option="answer", parameters=ASK)
    assert other.about() != one.about()
    assert as_user_function(one, option="answer", parameters=ASK) is one
    with pytest.raises(UsageError, match="a function with the parameters"):
        as_user_function(lambda image: True, option="answer", parameters=ASK)
    assert isinstance(as_user_function(np.add, option="x", parameters=ASK)(1, 2), np.int64)
