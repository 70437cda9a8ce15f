"""Files named by --extensions are imported once, everywhere, and their mistakes are named."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pinxit import extensions
from pinxit.cli.main import main
from pinxit.config import UsageError
from pinxit.prepare.engines.local import LocalEngine


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch):
    """The process as it was: no variable, nothing loaded, the same modules and search path."""
    monkeypatch.setenv(extensions.VARIABLE, "")
    monkeypatch.setattr(extensions, "_loaded", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("added_"):
            del sys.modules[name]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize("form", ["--extensions {} generate x", "generate x --extensions={}"])
def test_the_option_is_taken_out_wherever_it_stands(tmp_path: Path, form: str, monkeypatch):
    one, two = (written(tmp_path, name, "") for name in ("added_one", "added_two"))
    monkeypatch.chdir(tmp_path)
    assert extensions.take(form.format("added_one.py,added_two.py").split()) == ["generate", "x"]
    assert os.environ[extensions.VARIABLE] == f"{one}{os.pathsep}{two}"


def test_words_after_a_double_dash_are_left_alone():
    words = ["generate", "--", "--extensions", "x"]
    assert extensions.take(words) == words


def test_a_file_is_imported_once_and_may_import_its_neighbour(tmp_path: Path):
    written(tmp_path, "added_neighbour", "times = []")
    path = written(tmp_path, "added_file", "import added_neighbour as n\nn.times.append(1)")
    assert extensions.take(["--extensions", str(path)]) == []
    extensions.load()
    extensions.load()
    assert sys.modules["added_neighbour"].times == [1]
    assert list(extensions.loaded()) == ["added_file.py"]
    assert len(extensions.loaded()["added_file.py"]) == 64


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--extensions", "added_absent.py"], "added_absent.py' is missing; valid: a Python file"),
        (["--extensions", "."], "is not a file"),
        (["--extensions", "--n"], "not a list of files"),
        (["--extensions"], "not a list of files"),
        (["--extensions", "my-file.py"], "not the name of a Python module"),
    ],
)
def test_what_is_no_file_is_refused(words: list[str], message: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "my-file", "")
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        extensions.take(words)


def test_the_name_of_another_module_is_refused(tmp_path: Path):
    extensions.take(["--extensions", str(written(tmp_path, "numpy", ""))])
    with pytest.raises(UsageError, match="the name of another module"):
        extensions.load()


def test_its_own_mistake_is_shown_with_its_traceback(tmp_path: Path, capsys):
    path = written(tmp_path, "added_broken", "def f():\n    return {}['x']\n\nf()\n")
    assert main(["--extensions", str(path), "doctor", "--network", "0"]) == 2
    said = capsys.readouterr().err
    assert f"extensions: '{path}' is an extension that cannot be imported: KeyError: 'x'" in said
    assert 'added_broken.py", line 2, in f' in said and "importlib" not in said


def test_the_command_knows_what_a_file_added(tmp_path: Path, capsys):
    text = "from pinxit.recipes import RECIPES, mock\nRECIPES['added_recipe'] = mock\n"
    path = written(tmp_path, "added_recipes", text)
    assert main(["train", "--recipe", "added_recipe"]) == 2
    words = ["train", "--recipe", "added_recipe", "--extensions", str(path), "--patch_size", "x"]
    try:
        assert main(words) == 2
        assert "patch_size" in capsys.readouterr().err.splitlines()[-1]
    finally:
        from pinxit.recipes import RECIPES

        RECIPES.pop("added_recipe", None)


def test_the_processes_of_the_local_engine_load_it(tmp_path: Path):
    path = written(tmp_path, "added_work", "def double(unit):\n    return 2 * unit\n")
    extensions.take(["--extensions", str(path)])
    extensions.load()
    double = sys.modules["added_work"].double
    results = list(LocalEngine().map(double, [1, 2], workers=1))
    assert sorted(result.value for result in results) == [2, 4]
