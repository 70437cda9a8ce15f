"""The skeleton of the reports: whatever the text is, it cannot become part of the page's markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from pinxit import html_report
from pinxit.html_report import Html, page, picture, table

EVIL = "</td><script>alert('x')</script>\"'&"


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= dict(attrs)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


PARTS = {
    "heading": html_report.heading(EVIL),
    "paragraph": html_report.paragraph(EVIL),
    "note": html_report.note(EVIL),
    "command": html_report.command_line([EVIL]),
    "list": html_report.bullets([EVIL]),
    "json": html_report.folded_json(EVIL, {EVIL: EVIL}),
    "table": table([EVIL], [[EVIL]]),
    "picture": picture(b"png", EVIL),
}


@pytest.mark.parametrize("name", PARTS)
def test_text_is_escaped_in_every_part(name: str):
    parsed = Tags(page(EVIL, [PARTS[name]]))
    assert "script" not in parsed.tags
    assert name == "picture" or "alert" in "".join(parsed.words[-1:])
    assert name != "picture" or parsed.attributes["alt"] == EVIL


def test_html_stays_as_it_is_and_floats_are_short():
    text = table(["a", "b"], [["x", 0.12345], [Html("<b>y</b>"), 1]], best=1)
    assert text == (
        "<table><tr><th>a</th><th>b</th></tr><tr><td>x</td><td>0.123</td></tr>"
        '<tr class="best"><td><b>y</b></td><td>1</td></tr></table>'
    )


def test_a_page_holds_all_that_it_shows():
    text = page("t", [picture(b"bytes", "c")], style="body { color: red }")
    assert "body { color: red }</style>" in text and text.count("<h1>t</h1>") == 1
    assert 'src="data:image/png;base64,Ynl0ZXM="' in text and "http" not in text
