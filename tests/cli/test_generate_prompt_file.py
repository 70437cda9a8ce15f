"""`pinxit generate --prompts_file`: each line has its own settings, and the files are in order."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_pipeline import tiny_pipeline

from pinxit import drawing, pipeline
from pinxit.cli.main import main
from pinxit.model_loading import load_checkpoint, save_release
from pinxit.picture_files import picture_bytes, read_recipe
from pinxit.prompt_file import read_prompt_file

LINES = """# four prompts
red light --w 24 --d 7 --s 3 --l 2.5 --n fog

blue light
green light --size 24x16 --s 3 --l 2.5
red light -- from the left --h 8
"""


@pytest.fixture(scope="module")
def release(bundle, tmp_path_factory) -> str:
    """A release of a small model, 16 pixels wide."""
    directory = tmp_path_factory.mktemp("lines") / "toy"
    model = tiny_pipeline(bundle)
    return str(save_release(directory, model, text_encoder=str(bundle), vae=str(bundle)))


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text(LINES)
    return path


def generate(capsys, *words: object) -> list[Path]:
    """The paths that the command prints."""
    assert main(["generate", *map(str, words)]) == 0
    return [Path(line) for line in capsys.readouterr().out.splitlines()]


def test_each_line_has_its_settings_and_the_numbers_follow_the_file(
    release, file, tmp_path, capsys
):
    words = ["--prompts_file", file, "--checkpoint", release, "--n", 2, "--seed", 100]
    words += ["--negative_prompt", "snow", "--size", "16x32"]
    paths = generate(capsys, *words, "--out", tmp_path / "a")
    assert [path.name[:5] for path in paths] == [f"{i:05d}" for i in range(1, 9)]
    recipes = [read_recipe(path) for path in paths]
    names = ("seed", "size", "steps", "guidance_scale", "negative_prompt")
    assert [[recipe[name] for name in names] for recipe in recipes] == [
        [7, [24, 32], 3, 2.5, "fog"],
        [8, [24, 32], 3, 2.5, "fog"],
        [102, [16, 32], 2, 2.0, "snow"],
        [103, [16, 32], 2, 2.0, "snow"],
        [104, [24, 16], 3, 2.5, "snow"],
        [105, [24, 16], 3, 2.5, "snow"],
        [106, [16, 8], 2, 2.0, "snow"],
        [107, [16, 8], 2, 2.0, "snow"],
    ]
    assert recipes[-1]["prompt"] == "red light -- from the left"

    model = load_checkpoint(release)
    line = read_prompt_file(file)[0]
    how = {"seed": 8, "negative_prompt": line.negative_prompt, **line.sampling()}
    image = model.generate(line.prompt, size=line.size((16, 32)), **how)
    assert picture_bytes(image, recipes[1]) == paths[1].read_bytes()


def test_each_program_is_compiled_once(release, tmp_path, capsys):
    text = "red light --s 4\nblue light --w 24\n" * 3
    (tmp_path / "mixed.txt").write_text(text)
    words = ["--prompts_file", tmp_path / "mixed.txt", "--checkpoint", release]
    generate(capsys, *words, "--out", tmp_path / "warm", "--seed", 50)
    compiled = drawing.solve._cache_size()
    paths = generate(capsys, *words, "--out", tmp_path / "out")
    assert drawing.solve._cache_size() == compiled
    assert [read_recipe(path)["seed"] for path in paths] == list(range(6))


def test_one_order_for_each_size_and_sampling(release, file, tmp_path, capsys, monkeypatch):
    sizes = []
    order = pipeline.TextToImage.order

    def counted(self, prompt, **how):
        sizes.append((len(prompt), how["size"], how["steps"]))
        return order(self, prompt, **how)

    monkeypatch.setattr(pipeline.TextToImage, "order", counted)
    words = ["--prompts_file", file, "--checkpoint", release, "--n", 3]
    assert len(generate(capsys, *words, "--out", tmp_path / "out")) == 12
    # the first and the third line share a size and their settings
    assert sizes == [(6, (24, 16), 3), (3, (16, 16), 2), (3, (16, 8), 2)]


def test_an_interrupted_file_goes_on_to_the_same_folder(
    release, file, tmp_path, capsys, monkeypatch
):
    from pinxit import picture_files

    words = ["--prompts_file", str(file), "--checkpoint", release, "--n", "2"]
    whole = {
        path.name: path.read_bytes()
        for path in generate(capsys, *words, "--out", tmp_path / "whole")
    }
    save = picture_files.save_picture

    def interrupted(out, image, recipe, **how):
        if recipe["prompt"] == "blue light":
            raise KeyboardInterrupt
        return save(out, image, recipe, **how)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(picture_files, "save_picture", interrupted)
        assert main(["generate", *words, "--out", str(out)]) == 130
    assert "pinxit: in" in (said := capsys.readouterr().err) and "4 of 8 pictures" in said
    names = sorted(path.name[:5] for path in out.iterdir())
    assert names == ["00001", "00002", "00005", "00006"], "the third line is drawn with the first"
    generate(capsys, *words, "--out", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole


@pytest.mark.parametrize(
    ("line", "words", "message"),
    [
        ("a --s 0", [], "line 2: --s: 0 is too small; valid: at least 1"),
        ("a --g 3", [], "line 2: option: '--g' is not one of a line"),
        ("a --w 15", [], "line 2: size: 15 is not a multiple of 4"),
        ("a --l 1 --n fog", [], "line 2: --n: 'fog' is without effect, since the guidance scale 1"),
        ("a --n fog", ["--cfg_scale", 1], "line 2: --n: 'fog' is without effect"),
        ("a --d 4294967295", ["--n", 2], "line 2: seed: 4294967295 is too large for 2 pictures"),
        ("a", ["--cfg_scale", 1, "--negative_prompt", "fog"], "negative_prompt: 'fog' is without"),
    ],
)
def test_wrong_lines_are_named_before_anything_is_drawn(
    release, tmp_path, capsys, line, words, message
):
    (tmp_path / "p.txt").write_text(f"red light\n{line}\n")
    given = ["generate", "--prompts_file", tmp_path / "p.txt", "--checkpoint", release, *words]
    assert main([str(word) for word in [*given, "--out", tmp_path / "out"]]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_line_without_guidance_ignores_the_negative_prompt_of_the_command(
    release, tmp_path, capsys
):
    (tmp_path / "p.txt").write_text("red light --l 1\n")
    words = ["--prompts_file", tmp_path / "p.txt", "--checkpoint", release]
    (path,) = generate(capsys, *words, "--negative_prompt", "fog", "--out", tmp_path / "out")
    assert read_recipe(path)["guidance_scale"] == 1.0
