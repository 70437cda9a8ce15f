"""A dataset's hash follows the code that makes it, and no other."""

from __future__ import annotations

import functools
import importlib
import shutil
import sys
from pathlib import Path

import pytest

import pinxit
from pinxit.arrays import Example
from pinxit.data import code_fingerprint as module
from pinxit.data.code_fingerprint import code_fingerprint
from pinxit.data.mock import MockImages
from pinxit.data.scenes.dataset import Scenes, scene_examples
from pinxit.train.datasets import DATASETS, dataset_fingerprint

OWN_FILE = """
import fingerprint_shapes
from pinxit.arrays import Example

class Rows:
    def __len__(self): return 1
    def __getitem__(self, row): return fingerprint_shapes.draw()

def rows(size, image_size, *, seed, split):
    return Rows()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A user's file with a dataset, a file it imports, and one that it does not."""
    files = {"fingerprint_rows": OWN_FILE, "fingerprint_shapes": "from fingerprint_pens import *\n"}
    files |= {"fingerprint_pens": "def draw(): return 1\n", "unrelated": ""}
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("fingerprint_rows")
    for name in files:
        sys.modules.pop(name, None)


def test_a_users_dataset_has_another_hash_when_it_is_edited(own, tmp_path: Path):
    def found() -> str:
        return code_fingerprint(own.rows, own.Rows)

    before = found()
    (tmp_path / "unrelated.py").write_text("x = 1")
    assert found() == before
    hashes = {before}
    for name in ("fingerprint_rows", "fingerprint_shapes", "fingerprint_pens"):
        path = tmp_path / f"{name}.py"
        path.write_text(path.read_text() + "\n# edited\n")
        hashes.add(found())
    assert len(hashes) == 4


def files_of(*objects: object) -> set[str]:
    """The modules that are hashed."""
    files: dict[str, Path] = {}
    for item in objects:
        name = item.__module__
        module._collect(name, Path(sys.modules[name].__file__ or ""), files)
    return set(files)


def test_scenes_depend_on_their_own_folder_and_what_it_imports():
    scenes = {f"pinxit.data.scenes.{name}" for name in ("dataset", "drawing", "captions")}
    expected = scenes | {"pinxit.data.scenes.attributes", "pinxit.arrays", "pinxit.config"}
    expected |= {"pinxit.plain_json", "pinxit.lfs_pointer"}  # imported by config
    assert files_of(scene_examples, Scenes) == expected
    assert files_of(MockImages) == {"pinxit.data.mock", "pinxit.arrays"}


def test_an_edit_in_the_package_counts_only_below_the_dataset(tmp_path: Path):
    """In a copy of the package, drawing.py changes the hash and decode.py does not."""
    copy = tmp_path / "pinxit"
    ignored = shutil.ignore_patterns("assets", "__pycache__")
    shutil.copytree(Path(pinxit.__file__).parent, copy, ignore=ignored)

    def found() -> dict[str, bytes]:
        files: dict[str, Path] = {}
        start = copy / "data" / "scenes" / "dataset.py"
        module._collect("pinxit.data.scenes.dataset", start, files)
        return {name: path.read_bytes() for name, path in files.items()}

    before = found()
    (copy / "data" / "images" / "decode.py").write_text("# edited\n")
    assert found() == before
    (copy / "data" / "scenes" / "drawing.py").write_text("# edited\n")
    assert found() != before


def test_partial_functions_and_instances_are_looked_through():
    assert code_fingerprint(functools.partial(scene_examples, 3)) == code_fingerprint(Scenes)
    assert code_fingerprint(Scenes(3)) == code_fingerprint(Scenes)


def test_code_without_a_file_counts_by_its_source_or_not_at_all(monkeypatch):
    names: dict = {"__name__": "typed_in"}
    exec("class Typed: pass", names)
    first, second = code_fingerprint(names["Typed"]), code_fingerprint(names["Typed"])
    assert first != second, "its source is not to be had, so nothing may be used again"


def test_a_dataset_may_speak_for_itself(monkeypatch):
    class Spoken(MockImages):
        def fingerprint(self) -> str:
            return "version 3"

    monkeypatch.setitem(DATASETS, "spoken", lambda *args, **kwargs: Spoken(3))
    assert dataset_fingerprint("spoken", Spoken(3)) == "version 3"
    assert isinstance(Spoken(3)[0], Example)
