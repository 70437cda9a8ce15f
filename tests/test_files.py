"""Every file and folder of the package is whole or absent, wherever its writing stops."""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from toys import make

from pinxit import files
from pinxit.encoders import clip_tokenizer, weights
from pinxit.evaluate.judge import JudgeConfig, init_judge, save_judge
from pinxit.files import sweep, unfinished, whole, whole_folder, whole_set, write_json
from pinxit.picture_files import save_picture
from pinxit.stored_model import Stored, write_release
from pinxit.train import checkpoint, run_folder
from pinxit.train.input import in_memory
from pinxit.train.metric_writers.json_lines import JsonLines
from pinxit.train.report.curves import draw_curves
from pinxit.train.report.page import RunPage
from pinxit.train.run_folder import RunFolder

PACKAGE = Path(__file__).parents[1] / "pinxit"


def test_leftovers_are_known_by_name_and_removed(tmp_path):
    assert unfinished(".a.b.json.123.partial") == "a.b.json"
    for name in ("a.json", ".a.json", ".a.json.partial", ".a.json.x.partial", "a.1.partial"):
        assert unfinished(name) is None
    for name in (".a.json.12.partial", ".b.json.12.partial", "a.json", "x.partial"):
        (tmp_path / name).write_text("")
    assert sweep(tmp_path, lambda final: final == "a.json") == 1
    assert sweep(tmp_path / "absent") == 0
    assert {p.name for p in tmp_path.iterdir()} == {".b.json.12.partial", "a.json", "x.partial"}


def test_json_is_replaced_whole_and_equal_for_equal_values(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": ["ü", None]})
    first = path.read_bytes()
    write_json(path, {"a": ["ü", None], "b": 1})
    assert path.read_bytes() == first and json.loads(first) == {"a": ["ü", None], "b": 1}
    with pytest.raises(ValueError), whole(path) as temporary:
        temporary.write_text("half")
        raise ValueError
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert path.read_bytes() == first and os.listdir(tmp_path) == ["a.json"]


def test_two_writers_of_one_file_have_names_of_their_own(tmp_path):
    """As in two containers, whose processes may have one number."""
    path = tmp_path / "a.json"
    with whole(path) as one, whole(path) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]
    assert {unfinished(name.name) for name in (one, two)} == {"a.json"}


def test_a_taken_name_is_refused_only_where_asked(tmp_path):
    path = tmp_path / "a"
    with whole(path, replace=False) as temporary:
        temporary.write_text("first")
    with pytest.raises(FileExistsError), whole(path, replace=False) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "first" and os.listdir(tmp_path) == ["a"]


def test_a_file_system_without_links_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    test_a_taken_name_is_refused_only_where_asked(tmp_path)


def test_what_is_no_regular_file_is_written_directly():
    with whole(Path("/dev/null")) as path:
        path.write_text("gone")
    assert not Path("/dev/null").is_file()


def test_a_set_leaves_other_files_and_a_folder_does_not(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "notes").write_text("mine")
    with whole_set(folder, "one", "two") as (one, two):
        one.write_text("1")
        two.write_text("2")
    assert sorted(os.listdir(folder)) == ["notes", "one", "two"]
    with whole_folder(folder) as temporary:
        (temporary / "three").write_text("3")
    assert os.listdir(folder) == ["three"] and os.listdir(tmp_path) == ["a"]


def test_leftover_folders_are_swept(tmp_path):
    (tmp_path / ".a.12.partial" / "inner").mkdir(parents=True)
    assert sweep(tmp_path) == 1 and os.listdir(tmp_path) == []


# --- every writer, stopped at every step ------------------------------------------------------


class Stopped(BaseException):
    """Ends a writer as a kill would."""


def release(root: Path, tag: int) -> None:
    params = {"a": {"kernel": np.full(3, tag)}}
    write_release(root / "out", Stored(params, {}, "t", "v", 8, f"{tag}"))


def judge(root: Path, tag: int) -> None:
    config = JudgeConfig(
        {"ground": ("sand", "grass")}, image_size=8, channels=(8,), hidden=8, accuracy={}
    )
    save_judge(root / "out", init_judge(config, jax.random.key(tag)), config)


def report(root: Path, tag: int) -> None:
    RunPage(RunFolder(root)).write(finishing={"step": tag, "images": 1, "parameters": 1})


def metrics(root: Path, tag: int) -> None:
    path = root / "metrics.jsonl"
    if tag == 1:
        root.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(5)))
    else:
        JsonLines(path, resume_at=2)


def picture(root: Path, tag: int) -> None:
    recipe = {"prompt": "p", "seed": tag, "size": [2, 2], "steps": 1, "solver": "euler"}
    recipe |= {"guidance_scale": 1.0, "model_hash": "", "model": "m", "version": "1"}
    save_picture(root, Image.new("RGB", (2, 2)), recipe)


def network(root: Path, tag: int) -> None:
    tree = {"a": {"kernel": np.full((2, 2), tag, np.float32)}}
    weights.save_directory(root / "out", {"tag": tag}, params=tree, weights="w.safetensors")


def tokenizer(root: Path, tag: int) -> None:
    clip_tokenizer._write_tokenizer(root / "out", ["a", f"b{tag}"], merges=[], max_tokens=tag)


WRITERS: dict[str, tuple[Callable[[Path, int], Any], str]] = {
    "json": (lambda root, tag: write_json(root / "out.json", tag), "out.json"),
    "values": (lambda root, tag: run_folder.write_values(root / "out.json", tag), "out.json"),
    "metrics": (metrics, "metrics.jsonl"),
    "curves": (lambda root, tag: draw_curves([{"step": 1, "loss": tag}], root / "c.png"), "c.png"),
    "report": (report, "out.html"),
    "picture": (picture, "00002-2-p.png"),
    "checkpoint": (
        lambda root, tag: checkpoint.write_checkpoint(
            root / "out", make()[1], {"tag": tag}, overwrite=True
        ),
        "out",
    ),
    "latents": (
        lambda root, tag: in_memory._store(root / "out", np.full(3, tag), ["a", "b", "c"]),
        "out",
    ),
    "release": (release, "out/config.json"),
    "judge": (judge, "out/config.json"),
    "network": (network, "out/config.json"),
    "tokenizer": (tokenizer, "out/merges.txt"),
}
"""A writer of each kind, and what makes that which it writes valid."""


def visible(root: Path) -> dict[str, bytes]:
    """Returns the content of all files that readers look at, by path."""
    paths = (path for path in root.rglob("*") if path.is_file())
    names = {path: path.relative_to(root).parts for path in paths}
    return {
        "/".join(parts): path.read_bytes()
        for path, parts in names.items()
        if not any(part.startswith(".") for part in parts)
    }


class Stops:
    """Counts the steps of a writer, and raises before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: int, *, killed: bool) -> None:
        self.count, self.before = 0, before
        system = {**vars(os)}
        system |= {name: self.step(vars(os)[name]) for name in ("replace", "rename", "link")}
        monkeypatch.setattr(files, "os", SimpleNamespace(**system))
        monkeypatch.setattr(files, "sync", self.step(files.sync))
        if killed:  # a killed process clears nothing up
            monkeypatch.setattr(files, "_remove", lambda path: None)

    def step(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self.count += 1
            if self.count == self.before:
                raise Stopped
            return call(*args)

        return counted


@pytest.mark.parametrize("killed", [False, True], ids=["error", "kill"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_is_stopped_leaves_the_old_or_the_new_or_nothing(
    name: str, killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write, valid = WRITERS[name]
    write(tmp_path / "old", 1)
    shutil.copytree(tmp_path / "old", tmp_path / "whole")
    write(tmp_path / "whole", 2)
    complete = visible(tmp_path / "whole")
    for step in range(1, 100):
        root = tmp_path / str(step)
        shutil.copytree(tmp_path / "old", root)
        old = visible(root)
        with monkeypatch.context() as patched:
            stops = Stops(patched, step, killed=killed)
            try:
                write(root, 2)
            except Stopped:
                done = False
            else:
                done = True
        new = visible(root)
        if done:
            assert new != old and stops.count >= 2, "the writer does not go through files"
            return
        present = any(path == valid or path.startswith(f"{valid}/") for path in new)
        assert new in (old, complete) or not present
        if not killed:
            hidden = [path.name for path in root.rglob(".*") if path.name.endswith(".partial")]
            assert hidden == [], "an error leaves no unfinished file"


# --- nothing else writes ----------------------------------------------------------------------

WRITES = {"write_text", "write_bytes", "save_file", "savefig", "write_table", "open_memmap"}
MOVES = {"os.replace", "os.rename", "shutil.move", "os.getpid"}
ALLOWED = {
    ("data/prepared/shards.py", "quarantine"),  # moves a damaged shard away
    ("train/checkpoint.py", "restore"),  # moves a damaged checkpoint away
    ("train/metric_writers/tensorboard.py", "_opened"),  # event files, which are appended to
    ("encoders/text_columns.py", "_encode"),  # into the folder of a whole_folder
    ("export/diffusers_folder.py", "_write_json"),  # these three as well
    ("export/diffusers_folder.py", "write_tokenizer"),
    ("export/tensor_files.py", "write_tensors"),
    ("plan/compile_cache.py", "compile_step"),  # the job is read by its own child process only
    ("prepare/commit_log.py", "_name"),  # os.getpid, to notice a fork
    ("prepare/packing/pack_series.py", "write"),  # into a file that a whole renames
    ("prepare/report_pictures.py", "score_histograms"),  # into memory
    ("serve/beside.py", "_end_with_the_training"),  # os.getpid, to end itself
}


def unsafe_writes(path: Path) -> Iterator[tuple[str, int]]:
    """Yields function and line of each call that writes a file outside a block of `files`."""

    def visit(node: ast.AST, function: str, safe: bool) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            name, inside = function, safe
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                name = child.name
            elif isinstance(child, ast.With):
                calls = [item.context_expr for item in child.items]
                used = [
                    getattr(call.func, "id", "") for call in calls if isinstance(call, ast.Call)
                ]
                inside = safe or any(call.startswith("whole") for call in used)
            elif isinstance(child, ast.Call):
                called = ast.unparse(child.func)
                last = called.rpartition(".")[2]
                if called in MOVES or last == "rename" or (last in WRITES and not safe):
                    yield function, child.lineno
            yield from visit(child, name, inside)

    yield from visit(ast.parse(path.read_text()), "", False)


def test_no_other_module_writes_a_file_by_hand():
    found = {
        (str(path.relative_to(PACKAGE)), function)
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "files.py"
        for function, _ in unsafe_writes(path)
    }
    assert found == ALLOWED
