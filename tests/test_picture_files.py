import numpy as np
import pytest
from PIL import Image

from pinxit.picture_files import (
    parameters_text,
    picture_bytes,
    read_recipe,
    save_picture,
    slug,
    stored_pictures,
)

RECIPE = {
    "prompt": "a hüt, small\nby the sea",
    "negative_prompt": "fog",
    "steps": 8,
    "solver": "euler",
    "guidance_scale": 4.0,
    "shift": 1.5,
    "seed": 7,
    "size": [16, 8],
    "model": "scenes",
    "model_hash": "0123456789",
    "version": "0.1.0",
}


def picture() -> Image.Image:
    return Image.fromarray(np.arange(16 * 8 * 3, dtype=np.uint8).reshape(8, 16, 3))


def test_the_text_reads_as_other_tools_expect():
    first, second, negative, settings = parameters_text(RECIPE).splitlines()
    assert (first, second) == ("a hüt, small", "by the sea")
    assert negative == "Negative prompt: fog"
    assert settings.startswith("Steps: 8, Sampler: euler, CFG scale: 4, Seed: 7, Size: 16x8")
    assert "Shift: 1.5" in settings


def test_the_recipe_comes_back_and_the_pixels_are_untouched(tmp_path):
    path = save_picture(tmp_path / "new", picture(), RECIPE)
    assert path.name == "00001-7-a-h-t-small-by-the-sea.png"
    assert read_recipe(path) == RECIPE
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(picture()))
        assert image.text["parameters"] == parameters_text(RECIPE)


def test_the_same_recipe_gives_the_same_bytes():
    assert picture_bytes(picture(), RECIPE) == picture_bytes(
        picture(), dict(reversed(RECIPE.items()))
    )


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "00007-something.png").write_bytes(b"mine")
    paths = [save_picture(tmp_path, picture(), RECIPE) for _ in range(3)]
    assert [path.name[:5] for path in paths] == ["00008", "00009", "00010"]
    assert (tmp_path / "00007-something.png").read_bytes() == b"mine"


def test_stored_pictures_are_recognised_by_their_recipes(tmp_path):
    recipes = [RECIPE | {"seed": seed, "size": (16, 8)} for seed in (7, 8, 7)]
    assert stored_pictures(tmp_path / "none", recipes) == {}
    first, second = (save_picture(tmp_path, picture(), recipe) for recipe in recipes[:2])
    assert stored_pictures(tmp_path, recipes) == {0: first, 1: second}
    third = save_picture(tmp_path, picture(), recipes[2])
    assert stored_pictures(tmp_path, recipes) == {0: first, 1: second, 2: third}
    assert stored_pictures(tmp_path, [recipe | {"steps": 9} for recipe in recipes]) == {}
    first.write_bytes(first.read_bytes()[:-60])
    second.write_text("no picture")
    picture().save(third)
    assert stored_pictures(tmp_path, recipes) == {}


def test_a_png_without_recipe_is_named(tmp_path):
    picture().save(tmp_path / "plain.png")
    with pytest.raises(ValueError, match=r"plain\.png contains no recipe"):
        read_recipe(tmp_path / "plain.png")


def test_slugs_are_plain():
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug("!?") == "image"
    assert len(slug("word " * 40)) <= 48
