"""`pinxit generate PICTURE` draws a picture again from the recipe inside it, to the same bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tiny_pipeline import tiny_pipeline

from pinxit import redraw
from pinxit.cli.main import main
from pinxit.config import UsageError
from pinxit.model_hash import hash_of_params
from pinxit.model_loading import load_checkpoint, save_release
from pinxit.picture_files import FORMATS, picture_bytes, read_recipe, save_picture
from pinxit.redraw import DrawnRecipe, checked_recipe

FORMAT_CHOICES = [("png", None), ("webp", None), ("webp", 70), ("jpeg", None), ("jpeg", 70)]


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory) -> Path:
    """A folder with the releases `toy` and `other` of small models, 16 pixels wide."""
    root = tmp_path_factory.mktemp("redraw")
    for seed, name in enumerate(("toy", "other")):
        model = tiny_pipeline(bundle, seed=seed, name=name)
        save_release(root / name, model, text_encoder=str(bundle), vae=str(bundle))
    return root


def generate(capsys, *words: object) -> tuple[list[Path], str]:
    """The paths that the command prints, and stderr."""
    assert main(["generate", *map(str, words)]) == 0
    shown = capsys.readouterr()
    return [Path(line) for line in shown.out.splitlines()], shown.err


def refused(capsys, *words: object) -> str:
    """The one line on stderr of a command that is refused."""
    assert main(["generate", *map(str, words)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("pinxit: error: ") and said.count("\n") == 1
    return said


@pytest.fixture
def drawn(folder, tmp_path, capsys) -> Path:
    """A picture of the model `toy`, with unusual settings."""
    words = ["red light", "--checkpoint", folder / "toy", "--out", tmp_path / "drawn"]
    more = ["--seed", 7, "--steps", 3, "--size", "24x16", "--negative_prompt", "fog"]
    guidance = ["--guidance_interval", 0.1, 0.9, "--shift", 1.5, "--solver", "heun"]
    return generate(capsys, *words, *more, *guidance)[0][0]


@pytest.mark.parametrize(("format", "quality"), FORMAT_CHOICES)
def test_the_same_bytes_in_each_format(folder, tmp_path, capsys, format, quality):
    words = ["red light", "blue light", "--checkpoint", folder / "toy", "--n", 2, "--steps", 3]
    more = ["--format", format, *([] if quality is None else ["--quality", quality])]
    paths, _ = generate(capsys, *words, *more, "--out", tmp_path / "a")
    assert {path.suffix for path in paths} == {FORMATS[format].suffix}
    again, err = generate(capsys, *paths, "--checkpoint", folder / "toy", "--out", tmp_path / "b")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]
    assert "drawing 4 pictures" in err and "warning" not in err and "may differ" not in err
    # the same command goes on: nothing is drawn a third time
    same, err = generate(capsys, *paths, "--checkpoint", folder / "toy", "--out", tmp_path / "b")
    assert same == again and "already in" in err and "drawing" not in err


def test_the_shipped_model_is_recognised(tmp_path, capsys):
    words = ["a small red house", "--steps", 2, "--out"]
    (path,), _ = generate(capsys, *words, tmp_path / "a")
    (again,), _ = generate(capsys, path, "--out", tmp_path / "b")
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("format", FORMATS)
def test_python_the_command_and_a_redraw_agree(folder, tmp_path, capsys, format):
    """Same seed, same prompt: same bytes, whichever way they are drawn."""
    words = ["red light", "--checkpoint", folder / "toy", "--seed", 4, "--format", format]
    paths, _ = generate(capsys, *words, "--n", 3, "--out", tmp_path / "command")
    model = load_checkpoint(folder / "toy")
    for path, (image, recipe) in zip(paths, model.stream("red light", n=3, seed=4), strict=True):
        assert save_picture(tmp_path / "python", image, recipe, format=format).read_bytes() == (
            path.read_bytes()
        )
    alone = model.generate("red light", seed=6)
    assert picture_bytes(alone, read_recipe(paths[2]), format=format) == paths[2].read_bytes()
    (again,), _ = generate(
        capsys, paths[2], "--checkpoint", folder / "toy", "--out", tmp_path / "redraw"
    )
    assert again.read_bytes() == paths[2].read_bytes()


def test_a_batch_of_one_and_of_eight_agree_on_a_cpu(folder, tmp_path, capsys):
    """On a CPU, batch_size changes neither the pictures nor the recipe."""
    words = ["red light", "--checkpoint", folder / "toy", "--n", 3]
    one, _ = generate(capsys, *words, "--batch_size", 1, "--out", tmp_path / "one")
    assert "batch_size" not in read_recipe(one[0])
    eight, _ = generate(capsys, *words, "--batch_size", 8, "--out", tmp_path / "eight")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in eight]
    (again,), _ = generate(
        capsys, one[1], "--checkpoint", folder / "toy", "--batch_size", 8, "--out", tmp_path / "r"
    )
    assert again.read_bytes() == one[1].read_bytes()


def test_options_change_the_recipe(folder, drawn, tmp_path, capsys):
    words = [drawn, "--checkpoint", folder / "toy", "--out", tmp_path / "b"]
    old = read_recipe(drawn)
    paths, _ = generate(capsys, *words, "--seed", 8, "--n", 2)
    assert [read_recipe(path) for path in paths] == [old | {"seed": 8}, old | {"seed": 9}]
    (path,), _ = generate(capsys, *words, "--steps", 2, "--size", 16, "--cfg_scale", 3)
    assert read_recipe(path) == old | {"steps": 2, "size": [16, 16], "guidance_scale": 3.0}
    (path,), _ = generate(capsys, *words, "--negative_prompt", "", "--format", "jpeg")
    assert read_recipe(path) == old | {"negative_prompt": "", "quality": 95}
    (path,), _ = generate(capsys, path, *words[1:], "--quality", 50)
    assert path.suffix == ".jpg" and read_recipe(path)["quality"] == 50
    (path,), _ = generate(capsys, path, *words[1:], "--format", "webp")
    assert read_recipe(path)["quality"] == 100, "another format has its own default"


def test_the_run_of_the_models_name_is_found(folder, drawn, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(capsys, drawn, "--out", "b")
    digest = read_recipe(drawn)["model_hash"]
    assert f"drawn by the model 'toy' with the hash '{digest}', which is neither the shipped" in (
        message
    )
    assert "valid: --checkpoint and the path of a run" in message and not Path("b").exists()
    shutil.copytree(folder / "other", "runs/toy")
    assert "neither the shipped one nor in runs/toy" in refused(capsys, drawn, "--out", "b")
    shutil.copytree(folder / "toy", "runs/toy/model")
    (again,), _ = generate(capsys, drawn, "--out", "b")
    assert again.read_bytes() == drawn.read_bytes()


@pytest.mark.slow
def test_each_average_of_a_run_is_found(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "--dataset_name", "mock", "--vae", bundle, "--text_encoder", bundle]
    words += ["--image_size", 16, "--max_steps", 2, "--batch_size", 4, "--use_amp", 0]
    words += ["--model.hidden_size", 16, "--evaluation.images", 0, "--name", "small"]
    words += ["--learning_rate", 0.1, "--save_interval", 1, "--sampling.steps", 1]
    assert main([str(word) for word in words]) == 0
    capsys.readouterr()
    for number, more in enumerate((["--ema", "raw"], [], ["--ema", "0.1"])):
        words = ["red light", "--checkpoint", "runs/small", *more]
        if number == 2:
            step = min(Path("runs/small/checkpoints").iterdir())
            words = ["red light", "--checkpoint", step, "--ema", "raw"]
        (path,), _ = generate(capsys, *words, "--out", f"a{number}")
        (again,), err = generate(capsys, path, "--out", f"b{number}")
        assert again.read_bytes() == path.read_bytes() and "warning" not in err
        (again,), err = generate(capsys, path, "--checkpoint", "runs/small", "--out", f"c{number}")
        assert again.read_bytes() == path.read_bytes() and "warning" not in err
    assert len({read_recipe(path)["model_hash"] for path in Path().glob("a*/*.png")}) == 3


def test_another_model_draws_with_a_warning(folder, drawn, tmp_path, capsys):
    paths, err = generate(capsys, drawn, "--checkpoint", folder / "other", "--out", tmp_path / "b")
    old, new = read_recipe(drawn), read_recipe(paths[0])
    lines = [line for line in err.splitlines() if "warning" in line]
    assert lines == [
        f"pinxit: warning: {drawn} was drawn by another model, 'toy' (hash '{old['model_hash']}'), "
        f"than 'other' (hash '{new['model_hash']}'): the picture will differ"
    ]
    assert new == old | {"model": "other", "model_hash": new["model_hash"]}


def changed(picture: Path, tmp_path: Path, format: str = "png", **changes: object) -> Path:
    """A copy of a picture with another recipe; a value of ... removes an entry."""
    recipe = {**read_recipe(picture), **changes}
    recipe = {name: value for name, value in recipe.items() if value is not ...}
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("pinxit", json.dumps(recipe))
    with Image.open(picture) as image:
        image.save(tmp_path / "changed.png", pnginfo=info)
    return tmp_path / "changed.png"


def test_recipes_of_other_versions(folder, drawn, tmp_path, capsys):
    old = changed(
        drawn, tmp_path, version="0.0.9", spacing=..., zero_init=..., batch_size=1, model=...
    )
    (path,), err = generate(capsys, old, "--checkpoint", folder / "toy", "--out", tmp_path / "b")
    with Image.open(path) as image, Image.open(drawn) as first:
        assert image.tobytes() == first.tobytes()
    assert "drawn by pinxit '0.0.9', this is" in err and "the bytes may differ" in err
    newer = changed(drawn, tmp_path, version="9.1", eta=0.5, churn=1)
    message = refused(capsys, newer, "--checkpoint", folder / "toy")
    assert "that this version of Pinxit lacks: 'churn', 'eta'; valid: the version" in message
    assert "('9.1')" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": 3}, "its recipe is wrong: prompt: 3 is not text"),
        ({"prompt": "\ud800"}, "its recipe is wrong: prompt: '?' is not valid Unicode"),
        ({"prompt": ...}, "its recipe lacks prompt"),
        ({"seed": ..., "size": ...}, "its recipe lacks seed, size"),
        ({"seed": "7"}, "seed: '7' is not a whole number"),
        ({"seed": -1}, "seed: -1 is out of range"),
        ({"seed": 10**30}, "is out of range"),
        ({"size": [16]}, "size: 16 is not understood; valid: 2 of a whole number"),
        ({"size": ["16", 16]}, "size: 16 16 is not understood"),
        ({"size": [0, 16]}, "size: 0 is too small"),
        ({"size": [2**20, 2**20]}, "size: 1099511627776 is too large for a recipe"),
        ({"size": 16}, "size: 16 is not a list"),
        ({"size": [15, 16]}, "size: 15 is not a multiple of 4"),
        ({"steps": 10**9}, "steps: 1000000000 is too large for a recipe; valid: up to 10000"),
        ({"steps": 2.5}, "steps: 2.5 is not a whole number"),
        ({"batch_size": 10**6}, "batch_size: 1000000 is too large for a recipe"),
        ({"batch_size": -1}, "batch_size: -1 is too small"),
        ({"guidance_scale": "big"}, "guidance_scale: 'big' is not a number"),
        (
            {"guidance_interval": ["a", "b"]},
            "a b is not understood; valid: 2 of a number",
        ),
        ({"guidance_interval": [0.1]}, "guidance_interval: 0.1 is not understood"),
        ({"guidance_interval": [[0], {}]}, "its recipe is wrong: guidance_interval"),
        ({"solver": "magic"}, "solver: unknown 'magic'"),
        ({"solver": ["euler"]}, "solver: ['euler'] is not text"),
        ({"shift": -1}, "shift: -1.0 is not positive"),
        ({"encoder_dtype": "int8"}, "encoder_dtype: 'int8' is unknown"),
        ({"image": "a.png"}, "image: 'a.png' is not an object with settings"),
        ({"image": {"sha256": "0"}}, "image: sha256=0 is without strength"),
        ({"image": {"sha256": 0, "strength": 1}}, "image.sha256: 0 is not text"),
        ({"image": {"sha256": "0", "strength": 1, "x": 1}}, "'x' is unknown"),
        ({"model": 3}, "model: 3 is not text"),
    ],
)
def test_wrong_recipes_are_refused_in_one_line(folder, drawn, tmp_path, capsys, changes, message):
    path = changed(drawn, tmp_path, **changes)
    out = tmp_path / "b"
    said = refused(capsys, path, "--checkpoint", folder / "toy", "--out", out)
    assert f"pinxit: error: {path}: " in said
    assert message in said
    assert not out.exists()


@pytest.mark.parametrize("name", ["../toy", "/", "..", "", "a\0b", "x/../toy"])
def test_a_recipe_names_no_folder_outside_runs(drawn, tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(redraw, "match_in", lambda *_: pytest.fail("looked there"))
    path = changed(drawn, tmp_path, model=name)
    assert "which is not the shipped one; valid: --checkpoint" in refused(capsys, path)


def test_words_that_are_refused(folder, drawn, tmp_path, capsys, monkeypatch):
    toy = ["--checkpoint", folder / "toy", "--out", tmp_path / "b"]
    message = refused(capsys, drawn, "a tent", *toy)
    assert f"prompt: 'a tent' is beside the picture '{drawn}'; valid: only prompts, or" in message
    (tmp_path / "p.txt").write_text("a tent")
    message = refused(capsys, drawn, "--prompts_file", tmp_path / "p.txt", *toy)
    assert "is beside the picture" in message
    assert "none.png: No such file" in refused(capsys, "none.png", *toy)
    (tmp_path / "plain.webp").write_bytes(b"RIFF")
    assert "plain.webp is no picture, or damaged" in refused(capsys, tmp_path / "plain.webp", *toy)
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.jpg")
    assert "contains no recipe of Pinxit" in refused(capsys, tmp_path / "plain.jpg", *toy)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif")
    assert "a PNG, WebP or JPEG picture" in refused(capsys, tmp_path / "a.gif", *toy)
    message = refused(capsys, drawn, "--ema", "raw", "--out", tmp_path / "b")
    assert "ema: 'raw' is without effect" in message and "with --checkpoint" in message
    assert "quality: 5 is without effect" in refused(capsys, "a", "--quality", 5, *toy)
    assert "mask: 'm.png' is without effect" in refused(capsys, "a", "--mask", "m.png", *toy)
    assert "image: 'm.png' is not a file" in refused(capsys, "a", "--image", "m.png", *toy)
    (path,), _ = generate(capsys, "a tent in logo.png", *toy)
    assert read_recipe(path)["prompt"] == "a tent in logo.png", "a prompt with blanks is no file"


def test_pictures_of_two_models_need_two_commands(folder, drawn, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["red light", "--checkpoint", folder / "other", "--out", tmp_path / "a"]
    (second,), _ = generate(capsys, *words)
    shutil.copytree(folder, "runs")
    message = refused(capsys, drawn, second)
    assert f"drawn by another model, or with another encoder_dtype, than '{drawn}'" in message


def test_the_dtype_of_the_encoders_is_in_the_recipe(folder, tmp_path, capsys):
    words = ["red light", "--checkpoint", folder / "toy", "--encoder_dtype", "bfloat16"]
    (path,), _ = generate(capsys, *words, "--out", tmp_path / "a")
    assert read_recipe(path)["encoder_dtype"] == "bfloat16"
    words = ["--checkpoint", folder / "toy", "--out", tmp_path / "b"]
    (again,), _ = generate(capsys, path, *words)
    assert again.read_bytes() == path.read_bytes()
    (other,), _ = generate(capsys, path, *words, "--encoder_dtype", "float32")
    assert "encoder_dtype" not in read_recipe(other)


def test_the_hash_is_that_of_the_pipeline(folder):
    model = load_checkpoint(folder / "toy")
    assert hash_of_params(model.params) == model.model_hash
    other = load_checkpoint(folder / "other")
    assert hash_of_params(other.params) != model.model_hash


# --- image to image ---


def test_a_picture_from_a_picture_needs_its_source(folder, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    image, mask = tmp_path / "in" / "photo.png", tmp_path / "in" / "mask.png"
    Image.linear_gradient("L").convert("RGB").save(image)
    Image.linear_gradient("L").rotate(90).save(mask)
    toy = ["--checkpoint", folder / "toy"]
    words = ["red light", *toy, "--image", image, "--mask", mask, "--strength", 0.5, "--steps", 4]
    (path,), _ = generate(capsys, *words, "--out", tmp_path / "a")
    about = read_recipe(path)["image"]
    assert (about["name"], about["mask_name"], about["strength"]) == ("photo.png", "mask.png", 0.5)
    digest = about["sha256"][:12]

    out = ["--out", tmp_path / "b"]
    message = refused(capsys, path, *toy, *out)
    assert f"drawn from the image 'photo.png' (SHA-256 '{digest}'), which is not beside" in message
    (again,), _ = generate(capsys, path, *toy, "--image", image, "--mask", mask, *out)
    assert again.read_bytes() == path.read_bytes()
    assert "drawn from the mask 'mask.png'" in refused(capsys, path, *toy, "--image", image, *out)
    message = refused(capsys, path, *toy, "--image", mask, "--mask", mask, *out)
    assert "its image is another file than the one that it was drawn from" in message
    message = refused(capsys, path, *toy, "--image", image, "--mask", image, *out)
    assert "its mask is another file than the one that it was drawn from" in message
    for file in (image, mask):
        shutil.copy(file, path.parent)
    (again,), _ = generate(capsys, path, *toy, "--out", tmp_path / "c")
    assert again.read_bytes() == path.read_bytes()
    (other,), _ = generate(capsys, path, *toy, "--strength", 0.9, "--out", tmp_path / "c")
    assert read_recipe(other)["image"]["strength"] == 0.9
    (other,), _ = generate(capsys, path, *toy, "--size", 24, "--out", tmp_path / "c")
    assert read_recipe(other)["size"] == [24, 24], "the source is compared at the old size"


def recipe_of(**source: object) -> DrawnRecipe:
    sampling = {"steps": 2, "guidance_scale": 2.0}
    about = {"sha256": "a", "strength": 0.5, **source}
    plain = {"prompt": "a", "seed": 0, "size": [8, 8], **sampling, "image": about}
    return checked_recipe(plain, where="x.png")


@pytest.mark.parametrize("name", ["", "../photo.png", "/etc/passwd", "a/b.png", "a\0"])
def test_a_source_is_looked_for_beside_the_picture_only(tmp_path, name):
    with pytest.raises(UsageError, match="which is not beside it; valid: --image"):
        redraw.source_arguments(recipe_of(name=name), tmp_path / "x.png")
