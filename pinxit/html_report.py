"""The parts of the HTML reports: one page with embedded style and pictures, and without scripts.

Every function escapes its text, because captions and error messages come from untrusted sources.
Text that is already HTML has the type `Html` and is not escaped.
"""

from __future__ import annotations

import base64
import html
import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from pinxit.plain_json import plain_values

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd }
img { max-width: 100%; height: auto }
pre { background: #f4f5f7; padding: .8rem; overflow-x: auto }
table { border-collapse: collapse }
td, th { padding: .25rem .9rem; border-bottom: 1px solid #e3e3e3; text-align: right }
td:first-child, th:first-child { text-align: left }
.note { background: #fff3cd; padding: .5rem .8rem }
"""


class Html(str):
    """Text that is already HTML."""

    __slots__ = ()


def escaped(value: object) -> Html:
    """Returns a value as escaped text, or unchanged if it is `Html`."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def page(title: str, parts: Iterable[Html], *, style: str = "") -> str:
    """Returns the page: a heading, then the parts. `style` is CSS that follows the common style."""
    head = f"<meta charset='utf-8'><title>{escaped(title)}</title><style>{STYLE}{style}</style>"
    body = "".join([Html(f"<h1>{escaped(title)}</h1>"), *parts])
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{body}</body>"


def heading(text: object) -> Html:
    """Returns the heading of a section."""
    return Html(f"<h2>{escaped(text)}</h2>")


def paragraph(text: object) -> Html:
    """Returns a paragraph."""
    return Html(f"<p>{escaped(text)}</p>")


def note(text: object) -> Html:
    """Returns a highlighted paragraph."""
    return Html(f"<p class='note'>{escaped(text)}</p>")


def command_line(words: Sequence[str]) -> Html:
    """Returns a command in shell syntax."""
    return Html(f"<pre>{escaped(shlex.join(words))}</pre>")


def bullets(items: Iterable[object]) -> Html:
    """Returns a list."""
    return Html(f"<ul>{''.join(f'<li>{escaped(item)}</li>' for item in items)}</ul>")


def folded_json(summary: str, value: Any) -> Html:
    """Returns a value as JSON that unfolds when its `summary` is clicked."""
    text = escaped(json.dumps(plain_values(value), indent=2, ensure_ascii=False))
    return Html(f"<details><summary>{escaped(summary)}</summary><pre>{text}</pre></details>")


def picture(png: bytes, caption: str) -> Html:
    """Returns a PNG that is embedded in the page."""
    data = base64.b64encode(png).decode()
    return Html(
        f'<figure><img alt="{escaped(caption)}" src="data:image/png;base64,{data}"></figure>'
    )


def gallery(cells: Iterable[tuple[bytes, str]]) -> Html:
    """Returns PNGs that are embedded in the page, in rows, each with its caption below it."""
    figures = []
    for png, caption in cells:
        data = base64.b64encode(png).decode()
        image = f'<img alt="" src="data:image/png;base64,{data}">'
        text = f'<figcaption dir="auto">{escaped(caption)}</figcaption>'
        figures.append(f"<figure>{image}{text}</figure>")
    return Html(f'<div class="gallery">{"".join(figures)}</div>')


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, best: int | None = None
) -> Html:
    """Returns a table with row `best` highlighted. Floats are shown with three decimals."""
    lines = ["<tr>" + "".join(f"<th>{escaped(name)}</th>" for name in head) + "</tr>"]
    for number, row in enumerate(rows):
        mark = ' class="best"' if number == best else ""
        cells = (f"{cell:.3f}" if isinstance(cell, float) else escaped(cell) for cell in row)
        lines.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return Html(f"<table>{''.join(lines)}</table>")
