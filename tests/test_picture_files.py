"""Picture files: the recipe comes back from each format, and other files are named in one line."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pinxit.config import UsageError
from pinxit.picture_files import (
    FORMATS,
    parameters_text,
    picture_bytes,
    read_picture,
    read_recipe,
    save_picture,
    slug,
    stored_pictures,
    stored_recipe,
)

RECIPE = {
    "prompt": "a hüt, small\nby the sea 🌊",
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
EVERY = [("png", None), ("webp", None), ("webp", 60), ("jpeg", None), ("jpeg", 60)]


def picture() -> Image.Image:
    return Image.fromarray(np.arange(16 * 8 * 3, dtype=np.uint8).reshape(8, 16, 3))


def comment_of(data: bytes) -> tuple[int, bytes]:
    """The type and the bytes of the EXIF user comment of a WebP or JPEG, read without Pillow."""
    tiff = data[data.index(b"MM\0*") :]

    def entries(offset: int) -> dict[int, tuple[int, int, int]]:
        (count,) = struct.unpack_from(">H", tiff, offset)
        rows = (struct.unpack_from(">HHII", tiff, offset + 2 + 12 * i) for i in range(count))
        return {tag: (kind, length, value) for tag, kind, length, value in rows}

    inner = entries(entries(struct.unpack_from(">I", tiff, 4)[0])[0x8769][2])
    kind, length, offset = inner[0x9286]
    return kind, tiff[offset : offset + length]


def test_the_text_reads_as_other_tools_expect():
    first, second, negative, settings = parameters_text(RECIPE).splitlines()
    assert (first, second) == ("a hüt, small", "by the sea 🌊")
    assert negative == "Negative prompt: fog"
    assert settings.startswith("Steps: 8, Sampler: euler, CFG scale: 4, Seed: 7, Size: 16x8")
    assert "Shift: 1.5" in settings and "Denoising" not in settings
    edited = parameters_text(RECIPE | {"image": {"name": "a.png", "strength": 0.6}})
    assert "Denoising strength: 0.6" in edited


def test_the_recipe_comes_back_and_the_pixels_are_untouched(tmp_path):
    path = save_picture(tmp_path / "new", picture(), RECIPE)
    assert path.name == "00001-7-a-h-t-small-by-the-sea.png"
    assert read_recipe(path) == RECIPE
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(picture()))
        assert image.text["parameters"] == parameters_text(RECIPE)


@pytest.mark.parametrize(("format", "quality"), EVERY)
def test_each_format_has_both_forms_of_the_recipe(format, quality, tmp_path):
    path = save_picture(tmp_path, picture(), RECIPE, format=format, quality=quality)
    assert path.suffix == FORMATS[format].suffix
    stored = read_picture(path)
    used = quality or FORMATS[format].quality
    assert stored.format == format
    assert stored.recipe == RECIPE | ({} if used is None else {"quality": used})
    with Image.open(path) as image:
        exact = np.array_equal(np.asarray(image), np.asarray(picture()))
        assert image.mode == "RGB" and exact == (format == "png" or used == 100)
    if format != "png":
        kind, comment = comment_of(path.read_bytes())
        assert kind == 7, "other programs refuse a user comment that is not UNDEFINED"
        assert comment[:8] == b"UNICODE\0"
        assert comment[8:].decode("utf-16-be") == parameters_text(RECIPE)


@pytest.mark.parametrize(("format", "quality"), EVERY)
def test_the_same_recipe_gives_the_same_bytes(format, quality, tmp_path):
    data = picture_bytes(picture(), RECIPE, format=format, quality=quality)
    backwards = dict(reversed(RECIPE.items()))
    assert data == picture_bytes(picture(), backwards, format=format, quality=quality)
    assert data != picture_bytes(picture(), RECIPE | {"seed": 8}, format=format, quality=quality)
    path = tmp_path / "a"
    path.write_bytes(data)
    assert data == picture_bytes(picture(), read_recipe(path), format=format)


@pytest.mark.parametrize("first", ["jpeg", "webp"])
@pytest.mark.parametrize("second", ["JPEG", "WEBP", "PNG"])
def test_the_recipe_outlives_another_program_that_keeps_exif(first, second, tmp_path):
    with Image.open(save_picture(tmp_path, picture(), RECIPE, format=first)) as image:
        image.save(tmp_path / "copy", format=second, exif=image.getexif())
    quality = FORMATS[first].quality
    assert read_recipe(tmp_path / "copy") == RECIPE | {"quality": quality}
    if second != "PNG":
        text = comment_of((tmp_path / "copy").read_bytes())[1][8:].decode("utf-16-be")
        assert text == parameters_text(RECIPE)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"format": "gif"}, "format: 'gif' is unknown; valid: png, webp, jpeg"),
        ({"format": "jpeg", "quality": 0}, "quality: 0 is out of range; valid: 1 to 100"),
        ({"format": "webp", "quality": 101}, "quality: 101 is out of range"),
        ({"quality": 90}, "quality: 90 is without effect, since png is always exact"),
    ],
)
def test_a_wrong_format_or_quality_is_refused(how, message):
    with pytest.raises(UsageError, match=message):
        picture_bytes(picture(), RECIPE, **how)


def test_other_modes_are_refused():
    with pytest.raises(UsageError, match="image: 'RGBA' is not the mode of a picture; valid: RGB"):
        picture_bytes(picture().convert("RGBA"), RECIPE, format="jpeg")


def test_a_recipe_too_long_for_a_jpeg_is_refused_and_the_longest_is_kept(tmp_path):
    long = RECIPE | {"prompt": "x" * 30_000}
    for format in ("png", "webp"):
        assert (
            read_recipe(save_picture(tmp_path, picture(), long, format=format))["prompt"]
            == (long["prompt"])
        )
    message = r"'jpeg' is unable to hold the recipe of this picture, \d\d,\d{3} bytes of EXIF; val"
    with pytest.raises(UsageError, match=message):
        stored_recipe(long, "jpeg")
    most = 21_000
    while True:  # the longest prompt that is accepted
        try:
            stored_recipe(RECIPE | {"prompt": "x" * (most + 1)}, "jpeg")
        except UsageError:
            break
        most += 1
    assert most > 21_500
    longest = RECIPE | {"prompt": "x" * most}
    path = save_picture(tmp_path, picture(), longest, format="jpeg")
    assert read_recipe(path) == longest | {"quality": 95}


def test_a_picture_too_large_for_a_format_is_refused():
    with pytest.raises(UsageError, match="size: 20000 is too long for webp; valid: up to 16383"):
        stored_recipe(RECIPE | {"size": [20_000, 8]}, "webp")
    assert stored_recipe(RECIPE | {"size": [20_000, 8]}, "jpeg")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "00007-something.png").write_bytes(b"mine")
    paths = [save_picture(tmp_path, picture(), RECIPE) for _ in range(3)]
    paths.append(save_picture(tmp_path, picture(), RECIPE, number=2))
    paths.append(save_picture(tmp_path, picture(), RECIPE, number=7))
    assert [path.name[:5] for path in paths] == ["00008", "00009", "00010", "00002", "00011"]
    assert (tmp_path / "00007-something.png").read_bytes() == b"mine"


@pytest.mark.parametrize(("format", "quality"), EVERY)
def test_stored_pictures_are_recognised_by_their_recipes(format, quality, tmp_path):
    how = {"format": format, "quality": quality}
    recipes = [RECIPE | {"seed": seed, "size": (16, 8)} for seed in (7, 8, 7)]
    assert stored_pictures(tmp_path / "none", recipes, format=format) == {}
    first, second = (save_picture(tmp_path, picture(), recipe, **how) for recipe in recipes[:2])
    expected = [stored_recipe(recipe, **how) for recipe in recipes]
    assert stored_pictures(tmp_path, expected, format=format) == {0: first, 1: second}
    third = save_picture(tmp_path, picture(), recipes[2], **how)
    assert stored_pictures(tmp_path, expected, format=format) == {0: first, 1: second, 2: third}
    formats = [format, "png" if format == "jpeg" else "jpeg", format]
    assert stored_pictures(tmp_path, expected, format=formats) == {0: first, 2: third}
    other = [recipe | {"steps": 9} for recipe in expected]
    assert stored_pictures(tmp_path, other, format=format) == {}
    first.write_bytes(first.read_bytes()[:-60])
    second.write_text("no picture")
    picture().save(third)
    assert stored_pictures(tmp_path, expected, format=format) == {}


def texts_png(**texts: str) -> bytes:
    """A PNG with these text chunks."""
    info, buffer = PngInfo(), io.BytesIO()
    for name, text in texts.items():
        info.add_itxt(name, text)
    picture().save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def exif_webp(tag: int, value: object) -> bytes:
    """A WebP with one EXIF tag, in the inner directory if it is the user comment."""
    exif, buffer = Image.Exif(), io.BytesIO()
    (exif.get_ifd(0x8769) if tag == 0x9286 else exif)[tag] = value
    picture().save(buffer, "WEBP", exif=exif)
    return buffer.getvalue()


A1111 = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 8x8"
JPEG = picture_bytes(picture(), RECIPE, format="jpeg")
PNG = picture_bytes(picture(), RECIPE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (texts_png(), "contains no recipe of Pinxit; valid: a picture written by pinxit generate"),
        (texts_png(parameters=A1111), r"of A1111, Forge or a similar program \('Steps: 20, Sampl"),
        (exif_webp(0x9286, b"UNICODE\0" + A1111.encode("utf-16-be")), r"\('Steps: 20, Sampler"),
        (exif_webp(0x9286, b"ASCII\0\0\0" + A1111.encode()), r"\('Steps: 20, Sampler: Euler a"),
        (texts_png(prompt="{}", workflow="{}"), r"graph of ComfyUI \('prompt' and 'workflow'\)"),
        (exif_webp(0x010F, 'workflow:{"a": 1}'), r"graph of ComfyUI \('workflow'\)"),
        (texts_png(Comment="\x1b[2J", Title="x"), "it has the texts 'Comment', 'Title'"),
        (texts_png(pinxit="[1]"), "has a damaged recipe: a list, not an object"),
        (texts_png(pinxit="{"), "has a damaged recipe: Expecting property name"),
        (texts_png(pinxit='{"shift": NaN}'), "has a damaged recipe: NaN is not a finite number"),
        (texts_png(pinxit='{"shift": 1e999}'), "damaged recipe: 1e999 is not a finite number"),
        (texts_png(pinxit="[" * 100_000), "has a damaged recipe: "),
        (texts_png(pinxit='{"steps": ' + "9" * 5000 + "}"), "has a damaged recipe: Exceeds"),
        (b"", "is empty; valid: a PNG, WebP or JPEG picture"),
        (b"a text", "is no picture, or damaged; valid: a PNG, WebP or JPEG picture"),
        (b"GIF89a\1\0\1\0\0\0\0;", "is no picture, or damaged"),
        (PNG[:-60], "is no picture, or damaged"),
        (PNG[:20], "is damaged"),
        (JPEG[: len(JPEG) * 2 // 3], "is damaged"),
        (PNG[:50] + b"\0\0\0\0" + PNG[54:], "damaged"),
    ],
)
def test_other_files_are_named_in_one_line(data, message, tmp_path):
    path = tmp_path / "other.png"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=message) as error:
        read_recipe(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    path = save_picture(tmp_path, picture(), RECIPE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(UsageError, match="is too large to be read"):
        read_recipe(path)


@pytest.mark.parametrize("format", FORMATS)
def test_no_damage_is_a_bug(format, tmp_path):
    """Whatever byte of a file changes, it is read or refused as a usage error."""
    data = bytearray(picture_bytes(picture(), RECIPE, format=format))
    path, random, refused = tmp_path / "a", np.random.default_rng(0), 0
    for _ in range(400):
        changed = bytearray(data)
        for at in random.integers(0, len(data), random.integers(1, 6)):
            changed[at] = random.integers(256)
        path.write_bytes(
            changed[: random.integers(1, len(data) + 1)] if random.random() < 0.3 else changed
        )
        try:
            read_recipe(path)
        except UsageError:
            refused += 1
    assert refused > 100


def test_a_missing_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_recipe(tmp_path / "none.png")


def test_slugs_are_plain():
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug("!?") == "image"
    assert len(slug("word " * 40)) <= 48


def test_the_json_in_exif_is_ascii():
    data = picture_bytes(picture(), RECIPE, format="jpeg")
    start = data.index(b"pinxit:{") + len("pinxit:")
    stored = json.loads(data[start : data.index(b"}\0", start) + 1].decode("ascii"))
    assert stored == RECIPE | {"quality": 95}
