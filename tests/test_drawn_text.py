"""Text is drawn in every script that a font covers, and never as boxes."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pinxit import drawn_text
from pinxit.drawn_text import draw_text, drawable, font_file, text_width, wrapped

CHINESE, THAI = "红色的房子", "แมวสีส้ม"


@pytest.fixture
def bare(monkeypatch):
    """A system without fonts beside DejaVu."""
    monkeypatch.setattr(drawn_text, "_installed", tuple)
    font_file.cache_clear()
    yield
    font_file.cache_clear()


def test_text_that_the_font_covers_stays(bare):
    for text in ("a small red house", "красный дом", "ein Café — “quoted”…", "بيت أحمر"):
        assert drawable(text) == text


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        (CHINESE, "[5 CJK characters]"),
        ("猫", "[1 CJK character]"),
        ("京都の寺院", "[5 CJK/Hiragana characters]"),
        (THAI, "[8 Thai characters]"),  # its marks above and below, too
        ("빨간 집 앞", "[4 Hangul characters]"),
        ("iPhone 15 手机壳, blue", "iPhone 15 [3 CJK characters], blue"),
        ("雪山\uff0c湖面", "[5 CJK characters]"),
        ("a\tb\nc\u2028d\u200be\u00a0f", "a b c de f"),
        ("", ""),
    ],
)
def test_characters_without_a_font_are_counted(bare, text, drawn):
    assert drawable(text) == drawn


def test_no_box_is_drawn(bare):
    box = ImageFont.truetype(font_file("a"), 24).getmask(CHINESE[0])
    assert box.getbbox() is not None  # what Pillow draws by itself

    def picture(text: str) -> np.ndarray:
        image = Image.new("L", (600, 40), "white")
        draw_text(ImageDraw.Draw(image), (0, 0), text, size=24, fill="black")
        return np.asarray(image)

    assert np.array_equal(picture(CHINESE), picture("[5 CJK characters]"))
    assert picture("a").min() < 100 < picture("").min()


def test_an_installed_font_is_used_for_what_the_first_lacks(monkeypatch):
    """The characters of two fonts are pretended, since a system need not have others."""
    other = drawn_text._default().with_name("DejaVuSerif.ttf")
    have = {str(drawn_text._default()): {ord("a")}, str(other): {ord("a"), ord("红")}}
    monkeypatch.setattr(drawn_text, "_characters", lambda path: frozenset(have[path]))
    monkeypatch.setattr(drawn_text, "_installed", lambda: (str(other),))
    font_file.cache_clear()
    try:
        assert font_file("a") == str(drawn_text._default()) and font_file("红") == str(other)
        assert font_file("色") is None
        runs = [(font.path, run) for font, run in drawn_text._runs("a红a", 12)]
        assert [run for _, run in runs] == ["a", "红", "a"] and str(other) == runs[1][0]
    finally:
        font_file.cache_clear()


def test_lines_are_as_wide_as_they_may_be(bare):
    for text in ("a small red house under a full moon by the lake", "x" * 90, f"{CHINESE} " * 20):
        lines = wrapped(text, width=128, size=9)
        assert all(text_width(line, 9) <= 128 for line in lines)
        assert "".join(lines).replace(" ", "") == drawable(text).replace(" ", "")
        cut = wrapped(text, width=128, size=9, lines=2)
        assert len(cut) <= 2 and (len(lines) <= 2 or cut[1].endswith("…"))
        assert all(text_width(line, 9) <= 128 for line in cut)
    assert wrapped("", width=128, size=9) == [""]
