"""Captions as they are found in the wild, for comparing tokenizers."""

from __future__ import annotations

import numpy as np

PLAIN = [
    "a small red house on the left under a full moon",
    "A beautiful sunset over mountains",
    "two clouds, a sailing boat and the sun's last light",
    "a tiny house on a hill at dawn; don't look away",
]
ODD = [
    "",
    " ",
    "\t\r\n\v\f",
    "  Many   spaces\tand\nlines ",
    "no-break\u00a0space, thin\u2009space, ideographic\u3000space, line\u2028separator",
    "zero\u200bwidth, joiner\u200d, \ufeffbyte order mark, soft\u00adhyphen, \u202eright to left",
    "control \x00\x01\x07\x08\x0b\x1b[31m\x7f\x80\x85\x9f characters",
    "UPPER lower MiXeD 1234 5.6 1,000,000",
    "it's we're I'll they've I'd I'm can't 'quoted' \u2018curly\u2019 \u201cdouble\u201d",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m \u0130stanbul stra\u00dfe \ufb01ne \u017f",
    "\u00bd \u2163 \u0663 \u2460 \u33a1 \u210c \uff21\uff22\uff23 \u2126 x\u00b2",
    "\u65e5\u672c\u8a9e\u306e\u98a8\u666f\u5199\u771f",
    "\u4e00\u5ea7\u7ea2\u8272\u7684\u5c0f\u623f\u5b50",
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab",
    "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0639\u0631\u0628\u064a \u05e2\u05d1\u05e8\u05d9",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \u2764\ufe0f emoji",
    "a <|endoftext|> b <|startoftext|> c",
    "a </s> b <pad> c <unk> d <extra_id_0> <extra_id_99>",
    "\uff1c/s\uff1e \u2581 \u2581a \u2581\u2581",
    "&lt;b&gt; fish &amp; chips &quot;now&quot; &#39;here&#39; &nbsp;&hellip; &amp;amp; &eacute;",
    "<p>a <b>house</b></p><br/> <img src='x.jpg' alt=\"y\">",
    "hyphen-ated under_score @at #12 http://x.y/z?q=1&r=2 a.b@c.de IMG_0123.JPG",
    "!!! ... --- ??? :-) ;) $5 5% 3/4 10\u00d710 \u20ac9.99 \u00a9\u00ae\u2122 c++ c#",
    "word " * 300,
    "\u732b" * 300,
    "antidisestablishmentarianism" * 12,
    "a" * 400,
]
POOL = [
    *map(chr, range(32, 127)),
    *map(chr, range(0, 32)),
    *"          etaoinshrdlu",
    *"\u00e9\u00fc\u00df\u0131\u0130\u0301\u4e2d\u0416\u06f5\u20ac\u2028\u00a0\u200b\u3000\ufb01",
    *("\U0001f600", "&amp;", "&#39;", "</s>", "<pad>", "<|endoftext|>", "\u2581", " house", " The"),
]


def strange_captions(count: int = 520) -> list[str]:
    """`count` captions: the ones above, then random ones, the same every time."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 60, count - len(PLAIN) - len(ODD))
    return [*PLAIN, *ODD, *("".join(rng.choice(POOL, length)) for length in lengths)]
