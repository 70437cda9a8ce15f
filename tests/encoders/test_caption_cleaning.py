"""Cleaned captions: fixed expectations, the documentation's table, agreement with diffusers."""

from __future__ import annotations

import pickle
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinxit.config import UsageError
from pinxit.encoders.caption_cleaning import (
    CLEANERS,
    STEPS,
    clean_caption,
    get_cleaner,
    light_clean,
)

PAGE = Path(__file__).parents[2] / "docs" / "captions.md"

CLEAN = {
    "": "",
    " \n\t ": "",
    "A Red Fox": "a red fox",
    "red%20fox+cub": "red fox cub",
    "a <person> on a bike": "a person on a bike",
    "fox https://a.b/c fox": "fox a. b c fox",
    "fox www:x fox": "fox fox",
    "fox shop.example.com/a-b_c?x=1 fox": "fox ?x=1 fox",
    "fox shop.com@ fox": "fox shop. com fox",
    "fox a.com/b.x.ru fox": "fox fox",
    "éa.b.com": "éa",
    "a.b.c.d": "a. b. c. d",
    "a.http://x": "a. x",
    "thanks @jane_doe and @joe": "thanks and",
    "猫 \u3231\u33ff\u31c0 cat ねこ": "cat ねこ",
    "1989\u20132001 \u2014 \u301c x\u2212y": "1989-2001 - - x\u2212y",
    "\u2e5d \U00010ead": "\u2e5d \U00010ead",
    "say «yes» `no\u00b4 now": 'say "yes" "no" now',
    "it\u2019s": "it's",
    "a &quot;b&quot c &amp d &amp;": "a b c d ;",
    "host 192.168.10.1 up": "host up",
    "see https://a.com at 1:23 http://b.com": "see at",
    "one\\ntwo": "one two",
    "#1 #123 #1234 #12345 123456 2019": "1234 2019",
    "a photo.of.cat.jpg b.PNG c": "a c",
    "x.jpg.y z.gif": ".y z. gif",
    "\"\"a\"\" and ''b'' now": '"a" and "b" now',
    "wait... what": "wait what",
    "***sale*** [new] {a} a/b\\c ½ #tag": "sale new a a b c tag",
    "end . start": "end start",
    "a-b-c_d": "a-b-c_d",
    "a-b-c_d-e": "a b c d e",
    "\uff26\uff2f\uff38 ﬁne": "fox fine",
    "abc123 abcd123 ab12 a1b 1a1 a1b2c": "abcd123 ab12",
    "ab12cdé ab12cd_e": "ab12cdé ab12cd_e",
    "free worldwide shipping, worldwide free shipping": "free ,",
    "free download free of it": "of it",
    "a click for more, click on it now": "a , now",
    "png images of jpgs, a mp4": "of s, a",
    "see page 12 and page": "see and page",
    "4x6 1.5\u00d72 3\u04454 5xx": "5xx",
    "who : me": "who: me",
    "red,green.blue": "red, green. blue",
    "1,5 m": "1,5 m",
    "'quoted'": "quoted",
    ", first": "first",
    ",,two": ", two",
    "last :": "last",
    "... -end-": "end",
    "ab123 -end-": "-end",
    ".hidden": "",
    "100%2525": "100%25",
}


@pytest.mark.parametrize("caption", CLEAN, ids=ascii)
def test_captions(caption):
    assert clean_caption(caption) == CLEAN[caption]


def test_light_cleaning_repairs_and_decodes_only():
    assert light_clean("  The cafÃ© &amp;amp; IT&#39;S <b> http://x.com \n") == (
        "The café & IT'S <b> http://x.com"
    )


def test_cleaning_is_one_pass():
    once = clean_caption("100%2525")
    assert (once, clean_caption(once)) == ("100%25", "100%")


WORDS = (
    *("a", "Red", "fox", "photo", "example", "page", "epsilon", "PNG", "jpgs", "eps", "a.com"),
    *("free", "shipping", "worldwide", "download", "click", "for", "on", "clicks", "person", "x"),
)
SEPARATORS = (" ", "  ", ", ", ",", ". ", ".", " . ", "\t", "")


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(SEPARATORS)), max_size=8))
@settings(max_examples=400, deadline=None)
def test_plain_captions_take_a_short_way_to_the_same_text(parts):
    caption = "".join(word + separator for word, separator in parts)
    text = caption
    for step in STEPS:
        text = step(text)
    assert clean_caption(caption) == text


def test_the_short_way_is_taken(monkeypatch):
    monkeypatch.setattr("pinxit.encoders.caption_cleaning.STEPS", ())
    assert clean_caption(" A small red house, at dawn. ") == "a small red house, at dawn."


@pytest.mark.parametrize("unit", ["a.", "-.", "x.p", "a1", "1", "\\ ", "é-a"])
def test_time_does_not_explode_with_length(unit):
    """Read again from every place, sixty thousand characters would take eight to eighty seconds."""
    start = time.process_time()
    long = (unit * 60_000)[:60_000]
    clean_caption(long)
    clean_caption(f"a1a{long}_")
    assert time.process_time() - start < 4


def test_cleaners_by_name():
    assert {name: get_cleaner(name)(" &amp;B ") for name in CLEANERS} == {
        "stock": "b",
        "light": "&B",
        "none": " &amp;B ",
    }
    with pytest.raises(
        UsageError, match=r"caption_cleaning: 'heavy' is unknown; valid: stock, light, none"
    ):
        get_cleaner("heavy")


@pytest.mark.parametrize("name", CLEANERS)
def test_cleaners_travel_to_other_processes(name):
    assert pickle.loads(pickle.dumps(get_cleaner(name))) is CLEANERS[name]


def rows() -> list[list[str]]:
    """The cells of the page's table; a cell is code, or says that it is empty."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    return [
        ["" if cell == "(empty)" else cell.removeprefix("`").removesuffix("`") for cell in cells]
        for cells in (line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines)
    ]


def test_the_page_shows_what_the_code_gives():
    table = rows()
    assert len(table) >= 10
    for caption, stock, light in table:
        assert [clean_caption(caption), light_clean(caption)] == [stock, light]


def test_the_page_names_every_cleaner_and_its_example_runs():
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^- `(\w+)`", page, re.MULTILINE) == list(CLEANERS)
    *lines, last = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0].strip().splitlines()
    expression, expected = last.split("  # ")
    names: dict = {}
    exec("\n".join(lines), names)
    assert repr(eval(expression, names)) == expected


# --- agreement with the pipeline ----------------------------------------------------------------

WEB = [
    "Vintage 1960's MOD Dress - Size M/L | Free Worldwide Shipping | Etsy.com/shop/retro-girl",
    "&quot;Le Petit Prince&quot; &amp;amp; friends \u2013 édition n°3 (French)",
    "IMG_20190412_sunset.jpg 4032\u00d73024 download free png images",
    "SALE!!! ***50% OFF*** #AUSVERKAUFT @shop_de http://www.shop.de/?id=123456&x=y",
    "http://a.b.co.uk/x-y_z/q?r#s www.a-b.ru, x.com@y.it. 10.0.0.1:8080/i.webp",
    "Â£20 â€œquotedâ€\x9d dâ€™Ã©tÃ© ï¼¡ï¼¢ï¼£",
    "\u3231\u4e2d\u6587\u5b57 \u30ab\u30bf\u30ab\u30ca \u1f9d \ud55c\uad6d\uc5b4 \u0645\u0631",
    "'''nested \"quotes\"''' \"all of it\"",
    "a\x00b\x1bc\x85d\u2028e\ufefff\u200bg\x1ch",
    "\U0001f600\u200d\U0001f468 x\ud800y \U00010ead",
    "jc6640 jc6640vc 6640vc231 j2d1a2a 1920x1080 3.5x\u04454 7\u04458 9\u00d710.",
    "click for more click on this page 12 page  13 1:23  ",
    "this-is-my-cute-cat this_is_my_cute_cat",
    "...ellipsis . . dots .. ,comma ,,commas , : colons :: -",
    "\uff06\uff41\uff4d\uff50\uff1b \uff06\uff03\uff16\uff15\uff1b",
    "\u0130STANBUL \u1e9e \u212a \ufb01 \u017f",
]
PARTS = [
    *"ab1_-.,:;'\"@#&%+/\\()[]|*~ \n\t\x1c\u3000x\u0445\u00d7é",
    *("http://", "https:", "www.", "www:", ".com", ".co", ".ru", ".it", "&quot;", "&amp;", "&lt;"),
    *("\u0663", "\u4e2d", "\u3231", "\u30fc", "\u301c", "\u2014", "`", "«", "<person>", "\\n"),
    *(".png", ".jpg", "png", " images", "free ", "shipping", "worldwide ", "download", "click "),
    *(
        "for ",
        "on ",
        "page ",
        "1:23",
        "%20",
        "%C3%A9",
        "Ã©",
        "â€™",
        "\uff06\uff41\uff4d\uff50\uff1b",
    ),
    *("\ud800", "İ", "ﬁ", "12", "123", "12345", "1234567", "10.0.0.1", "a1b2", "3.5x", "..", " . "),
]


@pytest.fixture(scope="module")
def pipeline():
    from diffusers.pipelines.prx.pipeline_prx import TextPreprocessor

    return TextPreprocessor()


@pytest.mark.parity
def test_the_pipeline_gives_the_same_on_captions(pipeline):
    """Whole captions, pieces of them in any order, and the fragments that the rules look for."""
    rng = random.Random(0)
    words = [word for caption in WEB for word in re.split(r"( )", caption)]
    captions = [*WEB, *CLEAN, *(row[0] for row in rows())]
    captions += ["".join(rng.choices(words, k=rng.randint(1, 20))) for _ in range(1000)]
    captions += ["".join(rng.choices(PARTS, k=rng.randint(1, 12))) for _ in range(3000)]
    for caption in captions:
        assert clean_caption(caption) == pipeline.clean_text(caption), ascii(caption)
        assert light_clean(caption) == pipeline.basic_clean(caption), ascii(caption)


@pytest.mark.parity
@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PARTS) | st.text(max_size=3)).map("".join)))
def test_the_pipeline_gives_the_same_on_any_text(pipeline, caption):
    assert clean_caption(caption) == pipeline.clean_text(caption)
    assert light_clean(caption) == pipeline.basic_clean(caption)
