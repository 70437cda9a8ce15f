"""Image to image and inpainting: what is read, what is refused, and what is drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_pipeline import compilations, pixels, toy_model

from pinxit.config import UsageError
from pinxit.data.images.image_config import ImageConfig
from pinxit.encoders.autoencoder import IdentityAutoencoder
from pinxit.model_loading import load_checkpoint
from pinxit.source_image import SourceImage

SIZE = (16, 16)
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (16, 16, 3), np.uint8)
HALF = np.zeros((16, 16), np.uint8)
HALF[:8] = 255


@pytest.fixture(scope="module")
def model():
    return toy_model()


def opened(image, **how) -> SourceImage:
    return SourceImage.open(image, **{"size": SIZE} | how)


def test_a_file_an_image_and_an_array_are_the_same_source(tmp_path: Path):
    path = tmp_path / "a cat.png"
    Image.fromarray(NOISE).save(path)
    sources = [opened(image) for image in (path, str(path), Image.fromarray(NOISE), NOISE)]
    for source in sources:
        np.testing.assert_array_equal(source.pixels, NOISE)
        assert (source.mask, source.strength, source.mask_sha256) == (None, 0.6, "")
    assert len({source.sha256 for source in sources}) == 1
    assert [source.name for source in sources] == ["a cat.png", "a cat.png", "", ""]


def test_the_hash_is_that_of_the_pixels(tmp_path: Path):
    for level, name in ((0, "a.png"), (9, "b.png")):
        Image.fromarray(NOISE).save(tmp_path / name, compress_level=level)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    hashes = {opened(tmp_path / name).sha256 for name in ("a.png", "b.png")}
    assert len(hashes) == 1
    assert opened(NOISE ^ 1).sha256 not in hashes
    assert opened(NOISE[:8], size=(16, 8)).sha256 != opened(NOISE[:8].reshape(16, 8, 3)).sha256


def test_images_are_turned_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the picture is on the right-hand side of the stored one
    turned = Image.fromarray(np.rot90(NOISE).copy())
    turned.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        for source in (opened(tmp_path / "turned.png"), opened(image)):
            np.testing.assert_array_equal(source.pixels, NOISE)


def test_transparent_parts_are_white():
    alpha = np.full((16, 16, 1), 255, np.uint8)
    alpha[:8] = 0
    expected = NOISE.copy()
    expected[:8] = 255
    np.testing.assert_array_equal(opened(np.concatenate([NOISE, alpha], -1)).pixels, expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"])
def test_every_kind_of_image_becomes_rgb(mode: str):
    grey = Image.fromarray(HALF)
    image = grey.convert("RGB").convert(mode) if mode != "I;16" else grey.convert("I").convert(mode)
    if mode == "I;16":
        image = Image.fromarray(HALF.astype(np.uint16) * 257)
    assert image.mode == mode
    np.testing.assert_allclose(opened(image).pixels[..., 0].astype(int), HALF, atol=2)


def test_an_image_is_cropped_around_its_centre_and_scaled():
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 30:66] = 255
    assert opened(wide).pixels.min() == 255
    tall = opened(wide.transpose(1, 0, 2), size=(16, 48))
    assert tall.pixels.shape == (48, 16, 3) and tall.pixels[:12].max() == 0


def test_a_mask_is_cropped_as_the_image_is():
    mask = np.zeros((32, 96), np.uint8)
    mask[:16, 30:66] = 255
    source = opened(np.zeros((32, 96, 3), np.uint8), mask=mask)
    assert source.strength == 1.0
    np.testing.assert_array_equal(source.mask[:6], 1)
    np.testing.assert_array_equal(source.mask[10:], 0)


def test_erased_parts_of_a_mask_are_repainted():
    picture = Image.fromarray(np.zeros_like(NOISE)).convert("RGBA")
    picture.putalpha(Image.fromarray(255 - HALF))
    np.testing.assert_array_equal(opened(NOISE, mask=picture).mask, HALF / 255)


@pytest.mark.parametrize(
    ("strength", "steps", "count"),
    [(0.6, 10, 6), (0.01, 10, 1), (1, 10, 10), (0.5, 1, 1), (0.34, 32, 11)],
)
def test_the_strength_is_the_fraction_of_the_steps(strength, steps, count):
    assert opened(NOISE, strength=strength).steps_of(steps) == count


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"strength": 0}, "strength: 0 is not a strength; valid: a number above 0 and at most 1"),
        ({"strength": 1.01}, "strength: 1.01 is not"),
        ({"strength": float("nan")}, "strength: nan is not"),
        ({"strength": True}, "strength: 1 is not"),
        ({"mask": HALF[:8]}, "mask: '16x8' is not the size of the image; valid: 16x16"),
        ({"mask": 0 * HALF}, "mask: 'the mask' is black throughout; valid: a mask with a white"),
        ({"mask": 0 * HALF + 255}, "mask: 'the mask' is white throughout; valid: a mask with a bl"),
        ({"mask": HALF / 255}, r"mask: 'float64 array of shape \(16, 16\)' is not an image"),
        ({"image": NOISE[None]}, r"image: 'uint8 array of shape \(1, 16, 16, 3\)' is not an im"),
        ({"image": NOISE[:0]}, "image: 'uint8 array of shape"),
        ({"image": {"name": "cat.png"}}, "image: 'cat.png' is the description in a recipe, which"),
        ({"image": [1]}, "image: 'list' is not an image; valid: the path of an image, a PIL image"),
        ({"image": "missing.png"}, "image: 'missing.png' is missing"),
        ({"image": "."}, "image: '.' is not a file"),
        ({"image": __file__}, r"image: '.*test_source_image.py' is not usable \(not_image: "),
        ({"image": Image.new("F", SIZE)}, "image: 'F image of 16x16' is of an unknown range"),
        ({"image": None, "mask": HALF}, "mask: 'ndarray' is without effect, since no image is"),
        ({"image": None, "strength": 0.5}, "strength: 0.5 is without effect, since no image is"),
    ],
)
def test_wrong_input_is_named(model, how, message):
    with pytest.raises(UsageError, match=message) as error:
        model.order("a tree", **{"image": NOISE} | how)
    assert error.value.field in ("image", "mask", "strength") and "\n" not in str(error.value)


def test_damaged_and_huge_images_are_named(tmp_path: Path):
    path = tmp_path / "cut.png"
    Image.fromarray(NOISE).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UsageError, match=r"image: .*cut.png' is not usable \(decode_error"):
        opened(path)
    with Image.open(path) as image, pytest.raises(UsageError, match=r"image: .* is damaged"):
        opened(image)
    side = int(ImageConfig().max_pixels ** 0.5) + 1
    Image.new("1", (side, side)).save(path)
    with pytest.raises(UsageError, match=r"not usable \(too_many_pixels: 8193 x 8193\)"):
        opened(path)
    with pytest.raises(UsageError, match="'1 image of 8193x8193' is too large"):
        opened(Image.new("1", (side, side)))


def test_a_recipe_names_the_source(model):
    order = model.order("a tree", image=NOISE, mask=HALF, strength=0.5, steps=4)
    source, recipe = order.source, model.recipe(order, 0)["image"]
    assert recipe == {
        "name": "",
        "sha256": source.sha256,
        "mask_name": "",
        "mask_sha256": source.mask_sha256,
        "strength": 0.5,
    }
    assert order.steps == 2 and len(source.mask_sha256) == 64
    assert "image" not in model.recipe(model.order("a tree"), 0)


def test_at_full_strength_the_picture_is_that_of_no_image(model):
    """The size is the model's, not the image's."""
    plain = model.generate("a tree", n=2)
    large = NOISE.repeat(2, 0).repeat(2, 1)
    assert pixels(model.generate("a tree", n=2, image=large, strength=1)) == pixels(plain)
    part = model.generate("a tree", n=2, image=large, strength=0.5)
    assert not set(pixels(part)) & set(pixels(plain))


@pytest.mark.parametrize("solver", ["euler", "heun", "midpoint", "dpmpp_2m"])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_pixels_outside_the_mask_are_the_sources_own(model, solver, strength):
    how = {"image": NOISE, "mask": HALF, "strength": strength, "solver": solver, "steps": 4}
    picture = model.generate("a tree", output_type="np", **how)
    np.testing.assert_array_equal(picture[8:], NOISE[8:])
    assert (picture[:8] != NOISE[:8]).mean() > 0.5
    latents = np.asarray(model.generate("a tree", output_type="latent", **how))
    known = model.vae.encode(NOISE)
    np.testing.assert_allclose(latents[4:], known[4:], rtol=0, atol=1e-5)


def test_a_soft_mask_blends():
    source = opened(NOISE, mask=HALF)
    soft = dataclasses.replace(source, mask=np.full((16, 16), 0.25, np.float32))
    drawn = np.full_like(NOISE, 200)
    expected = np.round(0.25 * 200 + 0.75 * NOISE.astype(np.float32))
    np.testing.assert_array_equal(soft.kept(drawn), expected)


def test_one_program_serves_all_images_masks_and_prompts(model):
    how = {"strength": 0.5, "steps": 6, "size": 12}
    model.generate("a tree", image=NOISE, **how)
    model.generate("a tree", image=NOISE, mask=HALF, **how)
    with compilations() as events:
        model.generate("a house", seed=4, image=255 - NOISE, **how)
        model.generate(["a hill", "a hut"], image=NOISE, mask=255 - HALF, **how | {"shift": 2.0})
        model.generate("a house", image=NOISE, **how | {"strength": 0.52})
    assert not events


def test_models_of_pixels_repaint_too():
    pixel = toy_model(IdentityAutoencoder(), steps=4)
    np.testing.assert_array_equal(pixel.vae.decode(pixel.vae.encode(NOISE)), NOISE)
    picture = pixel.generate("a tree", image=NOISE, mask=HALF, strength=0.5, output_type="np")
    np.testing.assert_array_equal(picture[8:], NOISE[8:])
    assert (picture[:8] != NOISE[:8]).mean() > 0.5


def test_pictures_from_a_source_do_not_depend_on_their_batch(model, monkeypatch):
    how = {"image": NOISE, "mask": HALF, "strength": 0.7, "steps": 4}
    three = pixels(model.generate("a tree", n=3, **how))
    assert pixels([model.generate("a tree", seed=2, **how)]) == three[2:]
    for place in ("pinxit.pipeline", "pinxit.drawing"):
        monkeypatch.setattr(f"{place}.one_by_one", lambda: False)
    three = pixels(model.generate("a tree", n=3, batch_size=2, **how))
    assert pixels([model.generate("a tree", seed=2, batch_size=2, **how)]) == three[2:]


# --- the shipped model ---


@pytest.fixture(scope="module")
def shipped():
    return load_checkpoint()


@pytest.fixture(scope="module")
def night(shipped):
    prompt = "a small red house on the left, a forest at night, under a full moon"
    return shipped.generate(prompt, seed=3, output_type="np")


DAY = "a small red house on the left, in the day, with a yellow sun"
TENT = "a small blue tent on the left, a forest at night, under a full moon"


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference, in grey levels."""
    return float(np.abs(one.astype(float) - other).mean())


def blueness(image: np.ndarray) -> float:
    """How much bluer than red the place of the house is, in grey levels."""
    house = image[40:60, 4:22].astype(float)
    return float((house[..., 2] - house[..., 0]).mean())


def test_the_strength_leads_from_the_source_to_the_prompt(shipped, night):
    """A blue tent replaces a red house. The forest and the moon stay."""
    low, middle, high = (
        shipped.generate(TENT, n=2, seed=1, image=night, strength=strength, output_type="np")
        for strength in (0.1, 0.6, 0.9)
    )
    fresh = shipped.generate(TENT, n=2, seed=1, output_type="np")
    assert blueness(night) < -50
    for i in range(2):
        away = [distance(image, night) for image in (low[i], middle[i], high[i], fresh[i])]
        assert away == sorted(away) and away[0] < 3
        assert blueness(low[i]) < -50 < 30 < blueness(middle[i]) < 50
        assert distance(middle[i][:30], night[:30]) < 4


def test_the_sky_is_repainted_and_the_ground_keeps_its_bytes(shipped, night):
    mask = np.zeros((64, 64), np.uint8)
    mask[:32] = 255
    how = {"image": night, "mask": mask, "output_type": "np"}
    day = shipped.generate(DAY, n=2, **how)
    assert day[0].tobytes() != day[1].tobytes()
    for picture in day:
        np.testing.assert_array_equal(picture[32:], night[32:])
        assert picture[:16, :, 2].mean() > night[:16, :, 2].mean() + 80, "the sky is not blue"
    same = shipped.generate(DAY, strength=0.1, **how)
    assert distance(same[:32], night[:32]) < 6
