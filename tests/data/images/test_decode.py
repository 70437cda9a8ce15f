"""From an image file to the right pixels."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, png, scene
from PIL import Image, ImageOps

from pinxit.config import from_json, to_json
from pinxit.data.images import decode as images
from pinxit.data.images.aspect_ratios import make_buckets
from pinxit.data.images.decode import (
    FORMATS,
    Decoded,
    ImageConfig,
    crop_box,
    decode,
    encode_image,
)

ALL = tuple(FORMATS)
SMALL = ImageConfig(size=32, formats=ALL)


def pixels(data: bytes, size: int) -> np.ndarray:
    decoded = decode(data, ImageConfig(size=size, formats=ALL))
    assert decoded.status == "ok", decoded.detail
    assert decoded.image is not None
    return decoded.image


# --- colour -----------------------------------------------------------------------------------


def test_lossless_pixels_come_through_unchanged():
    image = scene(32, 32)
    for kind in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(pixels(encoded(image, kind), 32), image)
    np.testing.assert_array_equal(pixels(encoded(image, "WEBP", lossless=True), 32), image)
    jpeg = encoded(image, "JPEG", quality=100, subsampling=0)
    assert np.abs(pixels(jpeg, 32).astype(int) - image).max() <= 3


def test_grey_palette_and_one_bit():
    image = Image.fromarray(scene(32, 32))
    for mode in ("L", "1", "P"):
        picture = image.convert(mode)
        np.testing.assert_array_equal(pixels(encoded(picture), 32), picture.convert("RGB"))
    grey = image.convert("L")
    np.testing.assert_array_equal(pixels(encoded(grey, "GIF"), 32), grey.convert("RGB"))


def test_transparency_is_laid_on_white():
    colour = np.zeros((8, 8, 4), np.uint8)
    colour[..., 0] = 200
    colour[:, :4, 3] = 255
    colour[:, 4:, 3] = np.arange(4) * 64
    expected = np.round(colour[..., 3:] / 255 * colour[..., :3] + 255 - colour[..., 3:])
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        found = pixels(encoded(colour, kind, **options), 8).astype(int)
        assert np.abs(found - expected).max() <= 1, kind
    la = Image.fromarray(colour).convert("LA")
    found = pixels(encoded(la), 8)
    assert (found[:, 4] == 255).all() and (found[:, 0] == np.asarray(la)[0, 0, 0]).all()


def test_a_transparent_edge_does_not_bleed():
    image = np.zeros((64, 64, 4), np.uint8)
    image[:32] = (255, 0, 0, 255)  # below: black, but transparent
    found = pixels(encoded(image), 8)
    assert (found[..., 0] == 255).all()  # from red to white, never through black


def test_one_colour_may_be_transparent():
    paletted = Image.new("P", (4, 2), 1)
    paletted.putpalette([0, 0, 0, 10, 20, 30])
    paletted.putpixel((0, 0), 0)
    for kind in ("PNG", "GIF"):
        found = pixels(encoded(paletted.resize((8, 8), 0), kind, transparency=0), 8)
        assert found[0, 0].tolist() == [255, 255, 255] and found[7, 7].tolist() == [10, 20, 30]
    rgb = Image.new("RGB", (2, 2), (1, 2, 3))
    assert (pixels(encoded(rgb, transparency=(1, 2, 3)), 2) == 255).all()
    assert (pixels(encoded(rgb.convert("L"), transparency=2), 2) == 255).all()


def test_sixteen_bits_keep_the_upper_eight():
    values = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    grey = Image.fromarray(values)
    assert grey.mode == "I;16"
    expected = np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(pixels(encoded(grey), 8), expected)
    np.testing.assert_array_equal(pixels(encoded(grey, "TIFF"), 8), expected)
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in values)
    np.testing.assert_array_equal(pixels(png(8, 8, depth=16, rows=rows), 8), expected)


def test_cmyk_and_values_of_unknown_range():
    cmyk = Image.new("CMYK", (8, 8), (255, 0, 0, 51))
    found = pixels(encoded(cmyk, "JPEG", quality=100), 8)
    assert np.abs(found.astype(int) - (0, 204, 204)).max() <= 3
    for value in (np.float32(0.5), np.int32(7)):
        data = encoded(Image.fromarray(np.full((8, 8), value)), "TIFF")
        assert decode(data, SMALL).status == "decode_error"


def test_only_the_first_frame_is_read():
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(first, kind, save_all=True, append_images=[second] * 3)
        assert np.abs(pixels(data, 8).astype(int) - (255, 0, 0)).max() <= 2, kind


# --- turning, cropping, scaling ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_picture_is_the_upright_one(kind: str, turn: int):
    exif = Image.Exif()
    exif[images.ORIENTATION] = turn
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    turned = encoded(scene(90, 61), kind, exif=exif, **options)
    with Image.open(io.BytesIO(turned)) as picture:
        upright = encoded(ImageOps.exif_transpose(picture).convert("RGB"))
    for place in ("center", "random"):
        config = ImageConfig(crop=place, formats=ALL, buckets=((20, 16),))
        found, expected = decode(turned, config, key="k"), decode(upright, config, key="k")
        assert (found.original, found.crop) == (expected.original, expected.crop)
        assert found.original == ((61, 90) if turn >= 5 else (90, 61))
        # a JPEG is decoded at half its size
        near = 4 if kind == "JPEG" else 1
        assert np.abs(found.image.astype(int) - expected.image).max() <= near


@given(
    original=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    target=st.tuples(st.integers(1, 512), st.integers(1, 512)),
    key=st.text(max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_a_crop_is_the_largest_part_of_the_right_shape(original, target, key):
    (width, height), (wide, high) = original, target
    for place in ("center", "random"):
        left, upper, right, lower = crop_box(original, target, place=place, key=key)
        assert 0 <= left < right <= width and 0 <= upper < lower <= height
        across, down = right - left, lower - upper
        assert across == width or down == height
        assert abs(across - min(width, max(1, height * wide / high))) <= 0.5
        assert abs(down - min(height, max(1, width * high / wide))) <= 0.5
        if place == "center":
            assert abs(left - (width - right)) <= 1 and abs(upper - (height - lower)) <= 1


def test_a_random_crop_depends_on_the_key_alone():
    data = encoded(scene(100, 40))
    config = ImageConfig(size=32, crop="random")
    lefts = [decode(data, config, key=str(i)).crop[0] for i in range(100)]
    assert lefts == [decode(data, config, key=str(i)).crop[0] for i in range(100)]
    assert min(lefts) < 8 and max(lefts) > 52 and len(set(lefts)) > 30
    assert {decode(data, SMALL, key=str(i)).crop for i in range(5)} == {(30, 0, 70, 40)}
    assert decode(data, config, key="\ud800").status == "ok"


def test_the_crop_says_what_the_image_shows():
    image = scene(96, 64)
    decoded = decode(encoded(image), ImageConfig(size=64, crop="random"), key="3")
    left, upper, right, lower = decoded.crop
    np.testing.assert_array_equal(decoded.image, image[upper:lower, left:right])


@pytest.mark.parametrize(("size", "scale"), [((501, 333), 2), ((1103, 803), 4), ((1999, 1501), 8)])
def test_a_scaled_decode_is_close_to_the_long_way(size, scale, monkeypatch: pytest.MonkeyPatch):
    coarse = scene(size[0] // 8, size[1] // 8, seed=2)
    data = encoded(Image.fromarray(coarse).resize(size), "JPEG", quality=90)
    asked = []
    shrink = images._shrink
    monkeypatch.setattr(images, "_shrink", lambda *a: asked.append(shrink(*a)) or asked[-1])
    fast = decode(data, ImageConfig(size=96))
    assert asked == [scale]
    monkeypatch.setattr(images, "SCALED_DECODE_GAP", 1e6)
    slow = decode(data, ImageConfig(size=96))
    assert asked == [scale, 1]
    assert (fast.original, fast.crop) == (slow.original, slow.crop)
    difference = fast.image.astype(float) - slow.image
    assert np.abs(difference).mean() < 0.7
    # not shifted: no better agreement one pixel to any side
    here = np.abs(difference[1:-1, 1:-1]).mean()
    for axis in (0, 1):
        for step in (-1, 1):
            moved = np.roll(fast.image.astype(float), step, axis) - slow.image
            assert np.abs(moved[1:-1, 1:-1]).mean() > 1.5 * here


@pytest.mark.parametrize("size", [(150, 100), (96, 288), (287, 287), (64, 80)])
@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGB"), ("PNG", "P"), ("JPEG", "RGB")])
@pytest.mark.parametrize("grey", [False, True])
def test_scaling_is_pillows_bicubic_filter(size, kind, mode, grey):
    """Up to a third of the size, where no format is reduced before the filter."""
    image = Image.fromarray(scene(*size)).convert("L" if grey else mode)
    data = encoded(image, kind)
    with Image.open(io.BytesIO(data)) as picture:
        plain = picture.convert("L" if grey else "RGB")
    box = crop_box(size, (96, 96), place="center")
    expected = plain.resize((96, 96), Image.Resampling.BICUBIC, box).convert("RGB")
    np.testing.assert_array_equal(pixels(data, 96), expected)


def test_cmyk_is_scaled_as_rgb():
    data = encoded(Image.fromarray(scene(150, 100)).convert("CMYK"), "JPEG")
    with Image.open(io.BytesIO(data)) as picture:
        rgb = picture.convert("RGB")
    expected = rgb.resize((96, 96), Image.Resampling.BICUBIC, (25, 0, 125, 100))
    np.testing.assert_array_equal(pixels(data, 96), expected)


def detailed(width: int, height: int) -> Image.Image:
    """Noise whose strength falls as one over the frequency, as in photographs, with edges."""
    rng = np.random.default_rng(5)
    frequency = np.hypot(*np.meshgrid(np.fft.rfftfreq(width), np.fft.fftfreq(height)))
    waves = np.exp(2j * np.pi * rng.random(frequency.shape)) / np.maximum(frequency, 0.001)
    noise = np.fft.irfft2(waves, (height, width))
    image = np.repeat(128 + 20 * noise[..., None] / noise.std(), 3, axis=2)
    image[height // 4 : height // 2, width // 3 : width // 2] = (220, 40, 60)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("size", [(400, 288), (290, 600), (700, 410), (1000, 700), (813, 1200)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_scaled_decode_keeps_the_details(size, mode):
    data = encoded(detailed(*size).convert(mode), "JPEG", quality=90)
    with Image.open(io.BytesIO(data)) as picture:
        rgb = picture.convert("RGB")
    box = crop_box(size, (96, 96), place="center")
    long = np.asarray(rgb.resize((96, 96), Image.Resampling.BICUBIC, box), float)
    fast = pixels(data, 96).astype(float)
    assert np.abs(fast - long).mean() < 1
    assert 10 * np.log10(255**2 / np.square(fast - long).mean()) > 45
    strength = [np.square(np.diff(image, axis=1)).mean() for image in (fast, long)]
    assert 0.9 < strength[0] / strength[1] < 1.1


def test_shrinking_averages():
    checkered = np.indices((256, 256)).sum(0) % 2 * 255
    image = np.repeat(checkered[..., None], 3, axis=2).astype(np.uint8)
    inner = pixels(encoded(image), 16)[1:-1, 1:-1].astype(int)
    assert np.abs(inner - 127).max() <= 2


def test_small_pictures_are_enlarged_unless_refused():
    data = encoded(scene(20, 30))
    assert decode(data, SMALL).image.shape == (32, 32, 3)
    assert decode(data, ImageConfig(min_side=20)).status == "ok"
    refused = decode(data, ImageConfig(min_side=21))
    assert (refused.status, refused.original) == ("too_small", (20, 30))
    assert decode(encoded(scene(1, 3000)), SMALL).status == "ok"


# --- encoding ---------------------------------------------------------------------------------


def test_encoding_is_faithful_and_repeatable():
    image = scene(64, 64)
    image[20:40, 20:40] = (255, 0, 0)
    data = encode_image(image)
    assert data == encode_image(image.copy())
    # the colour of a sharp red edge survives, since it has the full resolution
    assert np.abs(pixels(data, 64).astype(int) - image).mean() < 1.5
    assert len(encode_image(image, quality=50)) < len(data)
    with pytest.raises(ValueError, match="quality: 0"):
        encode_image(image, quality=0)


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 0),
        ("max_pixels", 0),
        ("min_side", -1),
        ("formats", ()),
        ("formats", ("JPEG", "PSD")),
        ("buckets", ((0, 64),)),
        ("bucket_step", -1),
        ("timeout", 0),
        ("workers", 0),
        ("memory_mb", 0),
    ],
)
def test_wrong_settings_are_named(field: str, value: object):
    with pytest.raises(ValueError, match=f"^{field}: "):
        from_json(ImageConfig, {field: value})


def test_settings_pass_through_json():
    config = ImageConfig(size=128, crop="random", buckets=make_buckets(128), timeout=3)
    assert from_json(ImageConfig, to_json(config)) == config
    assert isinstance(decode(b"", config), Decoded)
