"""`pinxit grid`: the sheet is whole or not there, and its cells are those of `pinxit generate`."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_pipeline import tiny_pipeline

from pinxit import picture_files
from pinxit.cli.main import main
from pinxit.comparison_grid.sheet import stored_grid
from pinxit.model_loading import save_release
from pinxit.picture_files import picture_bytes, read_recipe


@pytest.fixture(scope="module")
def release(bundle, tmp_path_factory) -> str:
    """A release of a small model, 16 pixels wide."""
    directory = tmp_path_factory.mktemp("grid") / "toy"
    model = tiny_pipeline(bundle)
    return str(save_release(directory, model, text_encoder=str(bundle), vae=str(bundle)))


def run(capsys, *words: object) -> tuple[list[str], str]:
    """The lines on stdout, and stderr, of a command that succeeds."""
    assert main(["grid", *map(str, words)]) == 0
    shown = capsys.readouterr()
    return shown.out.splitlines(), shown.err


def refused(capsys, *words: object) -> str:
    """The one line on stderr of a command that is refused."""
    assert main(["grid", *map(str, words)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("pinxit: error: ")
    assert shown.err.count("\n") == 1
    return shown.err.removeprefix("pinxit: error: ").strip()


def test_the_sheet_is_written_and_the_same_command_changes_nothing(release, tmp_path, capsys):
    out = tmp_path / "new" / "sheet.png"
    words = ["red light", "--x", "steps=1,2", "--y=seed=0-1", "--cfg_scale", "3", "--out", out]
    words += ["--checkpoint", release]
    paths, err = run(capsys, *words)
    assert paths == [str(out)] and "drawing 4 cells" in err
    data = out.read_bytes()
    about = stored_grid(out)
    assert about["settings"]["guidance_scale"] == 3.0
    assert str(tmp_path / "new") not in str(about), "the sheet does not depend on where it lies"
    paths, err = run(capsys, *words)
    assert paths == [str(out)] and "already there, and not drawn again" in err
    assert "drawing" not in err and out.read_bytes() == data

    other = tmp_path / "other.png"
    assert main([*shlex.split(about["command"])[1:-2], "--out", str(other), "--", "red light"]) == 0
    capsys.readouterr()
    assert other.read_bytes() == data, "the command inside makes the same bytes"

    said = refused(capsys, *words, "--seed", "1")
    assert "seed: 1 is fixed, but the axis y varies seed" in said
    said = refused(capsys, *words, "--shift", "2")
    assert said.startswith(f"out: '{out}' is an existing file that this command would not draw")
    assert out.read_bytes() == data and sorted(out.parent.iterdir()) == [out]


def test_the_file_of_a_sheet_without_a_name_follows_from_its_settings(
    release, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ["red light", "--x", "seed=0,1", "--steps", "1", "--checkpoint", release]
    (first,), _ = run(capsys, *words)
    (again,), err = run(capsys, *words)
    assert first == again and first.startswith("outputs/grid-red-light-")
    assert "not drawn again" in err
    (other,), _ = run(capsys, *words, "--shift", "2")
    assert other != first and len(list(Path("outputs").iterdir())) == 2
    Path(first).write_bytes(b"damaged")
    assert "is an existing file" in refused(capsys, *words)


def test_cells_are_the_pictures_of_generate(release, tmp_path, capsys):
    cells = tmp_path / "cells"
    shared = ["--checkpoint", release, "--negative_prompt", "blue", "--steps", "2"]
    words = ["--x", "prompt=red light|blue light", "--y", "guidance_scale=2,3", "--cells", cells]
    run(capsys, *words, *shared, "--out", tmp_path / "sheet.png")
    by_grid = {}
    for path in cells.iterdir():
        recipe = read_recipe(path)
        by_grid[recipe["prompt"], recipe["guidance_scale"]] = path.read_bytes()
    assert len(by_grid) == 4
    for scale in (2, 3):
        out = tmp_path / f"single-{scale}"
        command = ["generate", "red light", "--guidance_scale", str(scale), "--out", str(out)]
        assert main([*command, *shared]) == 0
        (path,) = out.iterdir()
        assert path.read_bytes() == by_grid["red light", float(scale)]


def test_an_interrupted_grid_keeps_its_cells_and_goes_on(release, tmp_path, capsys, monkeypatch):
    words = ["red light", "--x", "seed=0-2", "--y", "steps=1,2", "--checkpoint", release]
    run(capsys, *words, "--out", tmp_path / "whole.png", "--cells", tmp_path / "whole")
    save, calls = picture_files.save_picture, []

    def interrupted(folder, image, recipe):
        calls.append(recipe["seed"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return save(folder, image, recipe)

    out, cells = tmp_path / "sheet.png", tmp_path / "cells"
    monkeypatch.setattr(picture_files, "save_picture", interrupted)
    command = [*words, "--out", str(out), "--cells", str(cells)]
    assert main(["grid", *command]) == 130
    err = capsys.readouterr().err
    again = shlex.join(["pinxit", "grid", *command])
    rest = f"the same command draws the others and the sheet: {again}"
    assert err.splitlines()[-2] == f"pinxit: in {cells}: 2 of 6 cells; {rest}"
    assert not out.exists() and len(list(cells.iterdir())) == 2

    monkeypatch.setattr(picture_files, "save_picture", save)
    _, err = run(capsys, *command)
    assert f"already in {cells}: 2 of 6 cells" in err and "drawing 4 cells" in err
    assert out.read_bytes() == (tmp_path / "whole.png").read_bytes()
    stored = sorted(path.read_bytes() for path in cells.iterdir())
    assert stored == sorted(path.read_bytes() for path in (tmp_path / "whole").iterdir())

    next(cells.iterdir()).unlink()
    _, err = run(capsys, *command)
    assert "drawing 1 cell" in err and len(list(cells.iterdir())) == 6
    _, err = run(capsys, *command)
    assert "not drawn again" in err and "drawing" not in err


def test_an_interrupted_grid_without_cells_leaves_no_file(release, tmp_path, capsys, monkeypatch):
    from pinxit.comparison_grid.cells import PreparedGrid

    def pictures(self, *, skip=()):
        yield 0, Image.new("RGB", (16, 16))
        raise KeyboardInterrupt

    monkeypatch.setattr(PreparedGrid, "pictures", pictures)
    out = tmp_path / "sheet.png"
    words = ["red", "--x", "seed=0,1", "--checkpoint", release, "--out", str(out)]
    assert main(["grid", *words]) == 130
    err = capsys.readouterr().err
    assert "pinxit: no file was written; with --cells FOLDER the finished cells are kept\n" in err
    assert list(tmp_path.iterdir()) == []


def test_two_models_are_compared(release, bundle, tmp_path, capsys):
    model = tiny_pipeline(bundle, seed=5, name="other")
    folder = tmp_path / "other"
    save_release(folder, model, text_encoder=str(bundle), vae=str(bundle))
    out = tmp_path / "sheet.png"
    run(capsys, "red", "--x", f"checkpoint={release},{folder}", "--y", "seed=0,1", "--out", out)
    about = stored_grid(out)
    assert [one["name"] for one in about["models"]] == ["toy", "other"]
    assert about["models"][1]["hash"] == model.model_hash


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "x: none is missing; valid: a setting and its values, such as steps=4,8,16"),
        (["a", "--x", "steps=4"], "axis: '4' is a single value of steps"),
        (["a", "--x", "steps=4,8", "--z", "seed=0,1"], "z: 'seed=0,1' is without --y"),
        (["a", "--x", "steps=4,x"], "steps: 'x' is not understood; valid: an integer"),
        (["a", "--x", "sampler=a,b"], "axis: 'sampler' is unknown; valid: solver"),
        (["a", "--x", "seed=0,1", "--seed", "1"], "seed: 1 is fixed, but the axis x varies seed"),
        (["a", "b", "--x", "seed=0,1"], "prompt: 'a' is followed by another prompt ('b')"),
        (["a", "--x", "steps=4,", "8"], "steps: '' is not understood"),
        (["--x", "seed=0,1"], "prompt: none is missing"),
        (["a", "--x", "seed=0,1", "--size", "64x"], "size: '64x' is not understood"),
        (["a", "--x", "seed=0,1", "--steps", "0"], "steps: 0 is too small"),
        (["a", "--x", "seed=0,1", "--out", "a.jpg"], "out: 'a.jpg' is not the name of a PNG file"),
        (["a", "--x", "seed=0,1", "--out", "."], "out: '.' is a folder"),
        (["a", "--x", "seed=0,1", "--out", "file"], "out: 'file' is not the name of a PNG"),
        (["a", "--x", "seed=0,1", "--out", "file.png"], "out: 'file.png' is an existing file that"),
        (["a", "--x", "seed=0,1", "--cells", "file.png"], "cells: 'file.png' is not writable"),
        (["a", "--x", "seed=0,1", "--out", "file.png/b.png"], "out: 'file.png/b.png' is not writ"),
        (["a", "--x", "seed=0-999", "--y", "steps=1,2,3,4,5", "--z", "shift=1,2,3,4,5"], "pixels"),
        (
            ["a", "--x", "seed=0,1", "--sampler", "euler"],
            "setting: 'sampler' is unknown; valid: --",
        ),
    ],
)
def test_bad_input_is_refused_before_a_model_is_loaded(
    words, message, capsys, monkeypatch, tmp_path
):
    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("pinxit.model_loading.load_checkpoint", load)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save("file.png")
    assert message in refused(capsys, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["file.png"]


def test_a_picture_of_generate_is_not_overwritten(release, tmp_path, capsys):
    out = tmp_path / "a.png"
    recipe = {"prompt": "a", "steps": 1, "solver": "euler", "guidance_scale": 1.0, "seed": 0}
    recipe |= {"size": [4, 4], "model": "toy", "model_hash": "0", "version": "0"}
    data = picture_bytes(Image.new("RGB", (4, 4)), recipe)
    out.write_bytes(data)
    words = ["a", "--x", "seed=0,1", "--out", out, "--checkpoint", release]
    assert "is an existing file" in refused(capsys, *words)
    assert out.read_bytes() == data


def test_a_checkpoint_that_is_missing_is_refused_before_anything_is_drawn(
    release, tmp_path, capsys, monkeypatch
):
    def draw(*_, **__):
        raise AssertionError("a picture was drawn")

    monkeypatch.setattr("pinxit.pipeline.TextToImage.pictures", draw)
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, "a", "--x", f"checkpoint={release},nowhere")
    assert said.startswith("checkpoint: 'nowhere' is missing")
    said = refused(capsys, "a", "--x", "ema=raw,0.1", "--checkpoint", release)
    assert said.startswith("ema: 'raw' is not in a release")
    assert list(tmp_path.iterdir()) == []


def test_help_shows_the_axes_and_every_option(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["grid", "--help"])
    assert not ended.value.code
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "--x guidance_scale=1,2,4,8",
        "prompt_sr=red|blue|green",
        "--cells",
        "--guidance_",
    ):
        assert part in text


def test_generate_names_the_command_of_a_sheet(tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    words = ["a red house", "--x", "steps=1,2", "--seed", "3", "--out", str(sheet)]
    assert main(["grid", *words]) == 0
    capsys.readouterr()
    assert main(["generate", str(sheet)]) == 2
    message = capsys.readouterr().err
    assert "it is a sheet of several pictures, which this command draws again: " in message
    assert "pinxit grid --x steps=1,2 --seed 3 -- 'a red house'" in message
