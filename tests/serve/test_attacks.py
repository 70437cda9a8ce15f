"""Attacks on every route of the real app: paths, symlinks, the token, foreign pages, headers.

The routes are enumerated from the app, so a new route is attacked without a change here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from attacked_studio import SECRET, Attacked, attacked

TOKEN = "a-token-for-the-attacks-0123456789"
BEARER = ("authorization", f"Bearer {TOKEN}")
JSON = ("content-type", "application/json")


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A studio without a token."""
    victim = attacked(tmp_path_factory.mktemp("attacked"))
    yield victim
    victim.app.state.studio.close()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A studio with a token."""
    locked = attacked(tmp_path_factory.mktemp("locked"), token=TOKEN)
    yield locked
    locked.app.state.studio.close()


def filled(path: str, name: str) -> str:
    """A route's path with an attack in place of every name."""
    return re.sub(r"\{[^}]*\}", lambda _: name, path)


def harmless(answer: Any, method: str = "") -> None:
    """Fails if an answer shows the secret, is an error of the server, or lacks the headers."""
    text = answer.body + b"".join(name + value for name, value in answer.headers)
    assert SECRET not in text and b"Traceback" not in text
    assert answer.status < 500 or answer.status in (501, 503), (answer.status, answer.body[:300])
    assert answer.header("x-content-type-options") == "nosniff"
    policy = answer.header("content-security-policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    if answer.status >= 400 and method != "HEAD":
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"} and len(answer.body) <= 4096


def test_every_route_is_enumerated(victim):
    """Also those of included routers, which the description of the API lists."""
    described = {
        (method.upper(), path)
        for path, methods in victim.app.openapi()["paths"].items()
        for method in methods
    }
    paths = {(method, re.sub(r":\w+\}", "}", path)) for method, path in victim.routes()}
    assert described <= paths and len(paths) >= 6


# --- paths ------------------------------------------------------------------------------------

DEEP = "../" * 12
TRAVERSALS = [
    *("..", ".", "../secret/canary.txt", "../../secret/canary.txt", f"{DEEP}etc/passwd"),
    *("..%2fsecret%2fcanary.txt", "..%2Fsecret%2Fcanary.png", "%2e%2e/secret/canary.txt"),
    *("%2e%2e%2fsecret%2fcanary.txt", "..%252fsecret%252fcanary.txt", "%252e%252e%252fsecret"),
    *("..%5csecret%5ccanary.txt", "..\\secret\\canary.txt", "..%c0%afsecret%c0%afcanary.txt"),
    *("%c0%ae%c0%ae/secret/canary.txt", "..%ef%bc%8fsecret", "....//secret//canary.txt"),
    *("..;/secret/canary.txt", ".%00./secret/canary.txt", "canary.txt%00.png", "link.png%00"),
    *("%2fetc%2fpasswd", "//etc/passwd", "%2f%2fetc%2fpasswd", "file:%2f%2f%2fetc%2fpasswd"),
    *("~", "~root", "~%2fsecret", "$HOME", "%24%7bHOME%7d", "C:%5cWindows%5cwin.ini", "CON", "nul"),
    *("link.png", "relative.png", "linked", "linked%2fcanary.txt", "linked/canary.txt", "loop"),
    *(
        "LINK.PNG",
        "link.png.",
        "link.png%20",
        "%20link.png",
        "link.png%2f",
        "link.png/..",
        "LiNkEd",
    ),
    *("linked-files", "honest%2f..%2f..%2fsecret", "honest%2fsamples%2flink.png", ".partial"),
    *("a" * 255, "a" * 256, "a" * 2000, "a%2f" * 500, "%f0%9f%92%a9", "%ff%fe", "%e2%80%ae"),
    *("%0d%0aSet-Cookie:%20a=1", "%0aX:1", "a%09b", "%7f", "-rf", "--help", "*", "?", "%25", "''"),
    *(
        "<img src=x onerror=alert(1)>",
        "';DROP TABLE runs;--",
        "{{7*7}}",
        "%s%n",
        "0",
        "-1",
        "1e999",
    ),
    *("__class__", "9" * 400, "NaN", "True", "None", "%E2%80%8B", "index.html%3f", "..%00"),
]


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_name_in_a_path_leaves_its_folder(name, victim):
    """Neither reads, nor writes, nor deletes anything, on any route with a name in its path."""
    target = name if "%" in name or "/" in name else quote(name, safe="%/")
    before = victim.files()
    routes = [(method, path) for method, path in victim.routes() if "{" in path]
    assert len(routes) >= 1
    for method, path in routes:
        body = b"{}" if method in ("POST", "PUT", "PATCH") else b""
        answer = victim.ask(method, filled(path, target), [JSON], body)
        harmless(answer, method)
        assert answer.status != 200 or "honest" in name, (method, path, answer.body[:200])
    assert victim.files() == before


def test_listings_do_not_follow_links(victim):
    """Every route without a name in its path is asked, with the links in all folders."""
    for method, path in victim.routes():
        if method == "GET" and "{" not in path:
            answer = victim.ask("GET", path)
            text = answer.body
            assert (SECRET not in text and answer.status < 500) or answer.status == 503, path


# --- the token --------------------------------------------------------------------------------


def test_every_route_but_health_needs_the_token(locked):
    """Also the page, its files, the description of the API, figures, and addresses of nothing."""
    asked = 0
    for method, path in [*locked.routes(), ("GET", "/no/such"), ("POST", "/"), ("OPTIONS", "*")]:
        for target in {filled(path, "a"), filled(path, "css/base.css"), filled(path, "1")}:
            answer = locked.ask(method, target, [JSON])
            assert (answer.status == 401) != (path == "/health"), (method, target, answer.status)
            asked += 1
    assert asked >= 10
    assert locked.ask("GET", "/v1/anything", type="websocket").status == 1008
    for target in ("/health/", "/health/x", "//health", "/x/../health", "/%68ealth/..", "/Health"):
        assert locked.ask("GET", target).status in (400, 401)


def test_no_answer_shows_the_token(locked):
    for method, path in locked.routes():
        answer = locked.ask(method, filled(path, "x"), [BEARER, JSON], b"")
        assert answer.status != 401 and TOKEN.encode() not in answer.body, path
        assert TOKEN not in str(answer.headers)


# --- foreign pages ----------------------------------------------------------------------------

OWN = "http://127.0.0.1:7860"
PAGES: list[list[tuple[str, str]]] = [
    [("origin", "https://evil.example")],
    [("origin", "null")],
    [("origin", "http://127.0.0.1:1")],
    [("origin", f"{OWN}.evil.example")],
    [("origin", OWN), ("sec-fetch-site", "cross-site")],
    [("origin", OWN), ("origin", "https://evil.example")],
    [("sec-fetch-site", "cross-site")],
    [("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")],
    [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "embed")],
    [("host", "evil.example"), ("origin", "http://evil.example")],
    [("host", "evil.example:7860"), ("origin", "http://evil.example:7860")],
    [("host", "127.0.0.1.nip.example"), ("sec-fetch-site", "same-origin")],
    [("host", "localhost:7860"), ("x-forwarded-host", "x"), ("origin", "http://x")],
    [("host", "x"), ("x-forwarded-host", "localhost"), ("forwarded", "host=localhost")],
]


@pytest.mark.parametrize("headers", PAGES, ids=str)
def test_no_foreign_page_reaches_a_route(headers, victim):
    """Reads as well as writes, streams of events as well as pictures."""
    before = victim.files()
    for method, path in victim.routes():
        answer = victim.ask(method, filled(path, "honest"), [*headers, JSON], b"")
        assert answer.status in (400, 403, 421), (method, path)
        harmless(answer, method)
        assert not any(name.startswith(b"access-control-") for name, _ in answer.headers)
    assert victim.files() == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_form_of_a_foreign_page_cannot_pass_for_json(kind, victim):
    """Even where the browser sends neither origin nor site, as very old ones do."""
    body = json.dumps({"prompt": "p"}).encode()
    for method, path in victim.routes():
        if method == "POST" and path in ("/v1/images/generations", "/v1/jobs"):
            headers = [("content-type", kind)] if kind else []
            assert victim.ask(method, path, headers, body).status in (400, 415, 422)


# --- texts ------------------------------------------------------------------------------------

SCRIPTS = ["<img src=x onerror=alert(1)>", "<script>alert(1)</script>", '"><svg/onload=alert(1)>']


@pytest.mark.parametrize("text", SCRIPTS)
def test_texts_come_back_as_data_and_never_as_a_page(text, victim):
    """In names, in queries, and in bodies that are refused."""
    body = {"prompt": text, "n": text, "model": text, text: text}
    for method, path in victim.routes():
        target = filled(path, quote(text, safe="")) + "?q=" + quote(text, safe="")
        answer = victim.ask(method, target, [JSON], json.dumps(body).encode())
        kind = answer.header("content-type")
        if text.encode() in answer.body:
            assert kind.startswith(("application/json", "text/event-stream", "text/plain")), kind
        assert text not in str(answer.headers)
        assert "sandbox" in answer.header("content-security-policy") or answer.status == 200


def test_own_pages_allow_no_inline_code(victim: Attacked):
    """The page's files have no inline script, no inline style and no handler in an attribute."""
    import pinxit

    folder = Path(pinxit.__file__).parent / "assets" / "studio"
    pages = list(folder.rglob("*.html"))
    assert len(pages) >= 2
    for page in pages:
        text = page.read_text("utf-8")
        inline = r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=|https?://(?!www.w3)"
        assert not re.search(inline, text)
    for script in folder.rglob("*.js"):
        text = script.read_text("utf-8")
        forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        assert not re.search(forbidden, text), script.name
