"""The layers around the app: host, origin, token, headers and bodies, on a tiny app."""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import statistics
import time
from typing import Any

import pytest
from asgi_client import Answer, ask, ask_async

from pinxit.config import UsageError
from pinxit.serve.access import access_token
from pinxit.serve.access.access_rules import (
    AccessRules,
    checked_hosts,
    checked_origins,
    checked_root,
)
from pinxit.serve.access.access_token import AccessToken, chosen_token
from pinxit.serve.access.body_sizes import BodySizes
from pinxit.serve.access.failed_attempts import BURST, REFILL_SECONDS, FailedAttempts
from pinxit.serve.access.guard import StudioGuard

TOKEN = "a-token-for-the-tests-0123456789"
SMALL = BodySizes(
    plain=1000, upload=5000, all=4000, idle_seconds=0.05, grace_seconds=0.2, least_rate=1e5
)
BEARER = ("authorization", f"Bearer {TOKEN}")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the size of the body, as an app that knows nothing of the layers."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    size, more = 0, True
    while more and scope["method"] == "POST":
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left")
        size, more = size + len(message["body"]), message["more_body"]
    kind = b"text/html" if scope["path"] == "/" else b"image/svg+xml"
    headers = [(b"content-type", kind), (b"x-frame-options", b"ALLOWALL")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(size).encode(), "more_body": False})


def guarded(token: str | None = None, **changes: Any) -> StudioGuard:
    """The tiny app inside the layers."""
    rules = dataclasses.replace(AccessRules(token=token, sizes=SMALL), **changes)
    return StudioGuard(echo, rules, None if token is None else AccessToken(token))


def refused(answer: Answer, status: int) -> bool:
    """Whether an answer is a refusal in OpenAI's form, with the headers that protect it."""
    error = answer.json()["error"]
    complete = set(error) == {"message", "type", "param", "code"} and bool(error["message"])
    small = len(answer.body) <= 4096 and answer.header("x-content-type-options") == "nosniff"
    return answer.status == status and complete and small and answer.complete


# --- host and origin --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:7860", "127.0.0.1:1", "127.9.9.9", "[::1]:7860", "localhost.:80"],
)
def test_the_loopback_names_are_accepted_as_the_host(host):
    assert ask(guarded(), "GET", "/", [("host", host)]).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:7860"),
        *("localhost@evil.example", "localhost, evil.example", "192.0.2.1", "0.0.0.0:7860", "[::]"),
        *("127.1", "2130706433", "localhost:7860:80", "local host", "localhost#", "löcalhost", ""),
    ],
)
def test_any_other_host_is_refused(host):
    """As after DNS rebinding. An empty text stands for no host at all."""
    assert refused(ask(guarded(), "GET", "/", [("host", host)]), 421)


def test_further_hosts_are_accepted_by_name_and_every_number_where_all_are_listened_on():
    app = guarded(hosts=checked_hosts(["Studio.example.org"]), any_address=True)
    for host in ("studio.example.org:443", "192.0.2.1:7860", "[2001:db8::1]"):
        assert ask(app, "GET", "/", [("host", host)]).status == 200
    for host in ("example.org", "0.0.0.0", "[::]"):
        assert refused(ask(app, "GET", "/", [("host", host)]), 421)


OWN = f"http://{'127.0.0.1:7860'}"
FOREIGN = [
    [("origin", "https://evil.example")],
    [("origin", "null")],
    [("origin", "")],
    [("origin", "http://127.0.0.1:7861")],
    [("origin", "http://localhost:7860")],
    [("origin", "http://127.0.0.1")],
    [("origin", "http://127.0.0.1:7860.evil.example")],
    [("origin", "http://127.0.0.1:7860/")],
    [("origin", "file://127.0.0.1:7860")],
    [("origin", OWN), ("sec-fetch-site", "cross-site")],
    [("sec-fetch-site", "cross-site")],
    [("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_requests_of_foreign_pages_are_refused(headers, method):
    answer = ask(guarded(), method, "/v1/jobs", headers)
    assert refused(answer, 403) and answer.header("access-control-allow-origin") == ""


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("origin", OWN)],
        [("origin", OWN), ("sec-fetch-site", "same-origin")],
        [("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
        [("origin", "https://127.0.0.1:7860")],  # behind a proxy that ends the encryption
    ],
)
def test_own_pages_and_programs_are_accepted(headers):
    answer = ask(guarded(), "POST", "/v1/jobs", headers, b"12345")
    assert (answer.status, answer.body) == (200, b"5")


def test_a_foreign_page_may_link_to_the_studio_but_not_embed_it_or_send_a_form():
    link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]
    assert ask(guarded(), "GET", "/", [*link, ("sec-fetch-dest", "document")]).status == 200
    assert refused(ask(guarded(), "GET", "/", [*link, ("sec-fetch-dest", "iframe")]), 403)
    assert refused(ask(guarded(), "POST", "/", [*link, ("sec-fetch-dest", "document")]), 403)


def test_an_accepted_origin_gets_the_headers_it_needs_and_no_other_does():
    app = guarded(TOKEN, origins=checked_origins(["https://Page.example:443"]))
    origin = ("origin", "https://page.example")
    cross = ("sec-fetch-site", "cross-site")
    asked = ("access-control-request-headers", "authorization, content-type")
    preflight = ask(app, "OPTIONS", "/v1/jobs", [origin, cross, asked])
    assert preflight.status == 204
    assert preflight.header("access-control-allow-headers") == asked[1]
    answer = ask(app, "POST", "/v1/jobs", [origin, cross, BEARER], b"1")
    assert answer.status == 200
    assert answer.header("access-control-allow-origin") == "https://page.example"
    assert answer.header("access-control-allow-credentials") == ""
    assert refused(ask(app, "POST", "/v1/jobs", [("origin", "https://page.example:8443")]), 403)
    assert refused(ask(app, "POST", "/v1/jobs", [origin, cross], b"1"), 401)


@pytest.mark.parametrize("origin", ["*", "null", "example.org", "https://example.org/path", ""])
def test_an_option_that_is_no_origin_is_refused(origin):
    with pytest.raises(UsageError, match="allow_origin"):
        checked_origins([origin])


@pytest.mark.parametrize("host", ["*", "https://example.org", "example.org:80", ".*", ""])
def test_an_option_that_is_no_host_is_refused(host):
    if host == ".*":
        host = "*.example.org"
    with pytest.raises(UsageError, match="allow_host"):
        checked_hosts([host])


# --- the token --------------------------------------------------------------------------------


def test_the_token_is_needed_everywhere_but_for_health():
    app = guarded(TOKEN)
    assert ask(app, "GET", "/health").status == 200
    for method, path in (("GET", "/"), ("POST", "/v1/jobs"), ("GET", "/no/such"), ("GET", "//")):
        answer = ask(app, method, path)
        assert refused(answer, 401) and answer.header("www-authenticate").startswith("Bearer")
        assert ask(app, method, path, [BEARER]).status == 200
    for path in ("/health/", "/health/../v1/jobs", "/HEALTH", "/health%2f", "/health;x"):
        assert ask(app, "GET", path).status in (400, 401)
    closed = ask(app, "GET", "/v1/jobs", type="websocket")
    assert closed.status == 1008


@pytest.mark.parametrize(
    "value",
    [
        *("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer"),
        *(f"Bearer {TOKEN.upper()}", f"Bearer  {TOKEN} x", "Bearer null", "Bearer \xff" * 9),
    ],
)
def test_wrong_tokens_are_refused(value):
    answer = ask(guarded(TOKEN), "GET", "/v1/models", [("authorization", value)])
    assert refused(answer, 401) and TOKEN not in answer.body.decode()


def test_a_browser_exchanges_a_link_for_a_cookie():
    app = guarded(TOKEN)
    answer = ask(app, "GET", f"/?a=1&token={TOKEN}")
    assert (answer.status, answer.header("location")) == (303, "./?a=1")
    cookie = answer.header("set-cookie")
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
    assert "Secure" not in cookie and "Secure" in ask(
        app, "GET", f"/?token={TOKEN}", scheme="https"
    ).header("set-cookie")
    pair = cookie.partition(";")[0]
    assert ask(app, "GET", "/v1/models", [("cookie", f"other=1; {pair}")]).status == 200
    for wrong in (pair[:-1], pair.replace("=", "=9"), "pinxit=", f"pinxit={TOKEN}", f"x{pair}"):
        assert refused(ask(app, "GET", "/v1/models", [("cookie", wrong)]), 401)
    assert refused(ask(app, "GET", "/?token=wrong-wrong-wrong"), 401)
    assert refused(ask(app, "GET", f"/v1/models?token={TOKEN}"), 401), "only the page exchanges it"


def test_a_cookie_ends_and_a_code_works_once():
    token = AccessToken(TOKEN)
    cookie = token.cookie(now=1000)
    assert token.accepts_cookie(cookie, now=1001)
    assert not token.accepts_cookie(cookie, now=1001 + access_token.COOKIE_SECONDS)
    assert not AccessToken(TOKEN + "x").accepts_cookie(cookie, now=1001)
    code = token.new_code(now=5).encode()
    assert token.takes_code(code, now=6) and not token.takes_code(code, now=6)
    late = token.new_code(now=5).encode()
    assert not token.takes_code(late, now=6 + access_token.CODE_SECONDS)


def test_a_browser_sees_a_form_that_signs_in():
    app = guarded(TOKEN)
    html = ("accept", "text/html,*/*;q=0.8")
    page = ask(app, "GET", "/v1/anything", [html])
    policy = page.header("content-security-policy")
    assert page.status == 401 and b"<form" in page.body and page.header("vary") == "Accept"
    assert "unsafe" not in policy and "script-src" not in policy and "sha256-" in policy
    form = ("content-type", "application/x-www-form-urlencoded")
    answer = ask(app, "POST", "/studio/sign_in", [html, form], f"token={TOKEN}".encode())
    assert (answer.status, answer.header("location")) == (303, "../")
    script = b"token=<script>alert(1)</script>"
    wrong = ask(app, "POST", "/studio/sign_in", [html, form], script)
    assert (
        wrong.status == 401 and b"The token is wrong" in wrong.body and b"alert(1" not in wrong.body
    )
    for body in (b"", b"token=", b"\xff\xfe", b"token=a&" * 5):
        assert ask(app, "POST", "/studio/sign_in", [form], body).status in (401, 429)
    assert refused(ask(app, "POST", "/studio/sign_in", [form], b"token=" + b"x" * 5000), 413)
    foreign = ("origin", "https://evil.example")
    assert refused(ask(app, "POST", "/studio/sign_in", [form, foreign], b"token=1"), 403)


def test_guessing_is_limited_by_address_and_the_owner_is_not_locked_out():
    app = guarded(TOKEN)
    wrong = [("authorization", "Bearer wrong-wrong-wrong")]
    statuses = [ask(app, "GET", "/", wrong).status for _ in range(BURST - 1)]
    assert set(statuses) == {401}
    ask(app, "GET", "/", wrong)
    answer = ask(app, "GET", "/", wrong)
    assert refused(answer, 429) and 0 < int(answer.header("retry-after")) <= REFILL_SECONDS
    assert ask(app, "GET", "/", [BEARER]).status == 429, "the address of the attack learns nothing"
    for owner in (("198.51.100.9", 1), ("127.0.0.1", 1), ("::1", 1), None):
        assert ask(app, "GET", "/", [BEARER], client=owner).status == 200
    pair = ("cookie", f"pinxit={AccessToken(TOKEN).cookie()}")
    assert ask(app, "GET", "/", [pair]).status == 200, "a browser that has signed in goes on"
    assert ask(app, "GET", "/health").status == 200


def test_attempts_refill_and_an_address_that_knew_the_token_is_always_compared():
    now = [0.0]
    attempts = FailedAttempts(lambda: now[0])
    for _ in range(BURST):
        attempts.failed("2001:db8::1")
    assert attempts.wait_seconds("2001:db8::ffff") > 0, "a network of 64 bits is one client"
    assert attempts.wait_seconds("2001:db8:0:1::1") == 0
    now[0] = REFILL_SECONDS
    assert attempts.wait_seconds("2001:db8::1") == 0
    attempts.succeeded("192.0.2.1")
    for _ in range(2 * BURST):
        attempts.failed("192.0.2.1")
    assert attempts.wait_seconds("192.0.2.1") == 0
    for number in range(5000):
        attempts.failed(f"a{number}")
    assert len(attempts._budgets) <= 4096


def test_tokens_are_compared_as_digests_in_constant_time(monkeypatch):
    """By construction: nothing but `hmac.compare_digest` of two digests sees the candidate."""
    compared = []
    original = hmac.compare_digest

    def recorded(one: bytes, two: bytes) -> bool:
        compared.append((len(one), len(two)))
        return original(one, two)

    monkeypatch.setattr(access_token.hmac, "compare_digest", recorded)
    token = AccessToken(TOKEN)
    for candidate in (b"", b"x", TOKEN.encode()[:-1], TOKEN.encode(), b"y" * 10_000):
        token.matches(candidate)
    token.accepts_cookie("1.x")
    assert len(compared) == 6 and set(compared) == {(32, 32)}


@pytest.mark.slow
def test_the_time_of_a_comparison_does_not_tell_how_much_was_right():
    """The medians of near and far candidates differ by less than their spread."""
    token = AccessToken(TOKEN)
    near, far = TOKEN[:-1].encode() + b"!", b"!" + TOKEN[1:].encode()
    times: dict[bytes, list[float]] = {near: [], far: []}
    for _ in range(20_000):
        for candidate in (near, far):
            start = time.perf_counter_ns()
            token.matches(candidate)
            times[candidate].append(time.perf_counter_ns() - start)
    middle = [statistics.median(values) for values in times.values()]
    assert abs(middle[0] - middle[1]) < 0.1 * min(middle)


@pytest.mark.parametrize(
    ("option", "environment", "expected"),
    [
        (None, {}, None),
        (None, {"PINXIT_TOKEN": ""}, None),
        (None, {"PINXIT_TOKEN": TOKEN}, TOKEN),
        ("another-token-0123456789", {"PINXIT_TOKEN": TOKEN}, "another-token-0123456789"),
    ],
)
def test_the_option_comes_before_the_environment(option, environment, expected):
    assert chosen_token(option, environment) == expected


def test_a_new_token_is_long_and_never_the_same():
    assert chosen_token("new", {}) != chosen_token("new", {})
    assert len(chosen_token("new", {}) or "") >= 40


@pytest.mark.parametrize("token", ["short", "x" * 513, "with a blank in it 123", "ümläut-ümläut-ü"])
def test_a_weak_or_impossible_token_is_refused_and_not_shown(token):
    for arguments in ((token, {}), (None, {"PINXIT_TOKEN": token})):
        with pytest.raises(UsageError) as caught:
            chosen_token(*arguments)
        assert token not in str(caught.value)


def test_behind_a_proxy_the_cookie_and_the_form_belong_to_its_path():
    app = guarded(TOKEN, root_path=checked_root("pinxit/"))
    answer = ask(app, "GET", f"/?token={TOKEN}")
    assert answer.header("location") == "./" and "Path=/pinxit/;" in answer.header("set-cookie")
    page = ask(app, "GET", "/", [("accept", "text/html")])
    assert b'action="/pinxit/studio/sign_in"' in page.body
    assert ask(app, "GET", "/pinxit/health", root_path="/pinxit").status == 200
    for path in ("/a b", "/../x", "https://x", "//x"):
        with pytest.raises(UsageError, match="root_path"):
            checked_root(path)


# --- headers, shape and bodies ----------------------------------------------------------------


def test_every_answer_has_the_headers_and_a_route_cannot_drop_them():
    for path, kind in (("/", "page"), ("/x.svg", "file")):
        answer = ask(guarded(), "GET", path)
        policy = answer.header("content-security-policy")
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and ("sandbox" in policy) == (kind == "file")
        assert answer.header("x-frame-options") == "DENY"
        assert answer.header("cache-control") == "no-store"
        assert answer.header("cross-origin-resource-policy") == "same-origin"
        assert answer.header("referrer-policy") == "same-origin"


def test_an_answer_without_content_does_not_replace_the_policy_of_the_stored_one():
    async def unchanged(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 304, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    answer = ask(StudioGuard(unchanged, AccessRules(), None), "GET", "/")
    assert answer.header("content-security-policy") == ""
    assert answer.header("x-content-type-options") == "nosniff"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        *(("/a/../b", 400), ("/..", 400), ("/a/%2e%2e/b", 400), ("/a%2f..%2fb", 400)),
        *(("/a/..%5cb", 400), ("/a\\b", 400), ("/a%00b", 400), ("/a%0d%0aX: y", 400), ("a", 400)),
        *(("http://evil.example/", 400), ("/./a", 400), ("/" + "a" * 3000, 414)),
        *(("/?" + "a" * 9000, 414), ("/a..b/.hidden/a.b", 200), ("/%252e%252e/a", 200)),
    ],
)
def test_addresses_that_leave_their_place_are_refused(target, status):
    assert ask(guarded(), "GET", target).status == status


def test_headers_are_limited():
    assert refused(ask(guarded(), "GET", "/", [("x", "y" * 40_000)]), 431)
    assert refused(ask(guarded(), "GET", "/", [(f"x{i}", "y") for i in range(200)]), 431)
    twice = [("host", "localhost"), ("host", "evil.example")]
    assert refused(ask(guarded(), "GET", "/", twice), 400)


POST = ("POST", "/v1/chat")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ([("content-length", "1001")], b"x", 413),
        ([("content-length", "99999999999999999999")], b"x", 400),
        ([("content-length", "-1")], b"x", 400),
        ([("content-length", "+5")], b"12345", 400),
        ([("content-length", "5"), ("content-length", "6")], b"12345", 400),
        ([("content-length", "5"), ("transfer-encoding", "chunked")], b"12345", 400),
        ([("transfer-encoding", "gzip, chunked")], b"12345", 400),
        ([("transfer-encoding", "chunked")], [b"x" * 600, b"x" * 600], 413),
        ([("transfer-encoding", "chunked")], [b"x" * 600, b"x" * 400], 200),
        ([("content-encoding", "gzip")], b"x", 415),
        ([("content-encoding", "identity")], b"x", 200),
        ([], [b"x", 0.3, b"y"], 408),
        ([], [b"x", *([0.03, b"y"] * 20)], 408),
        ([], [b"x", 0.01, b"y"], 200),
    ],
)
def test_bodies_are_limited_in_size_time_and_form(headers, body, status, monkeypatch):
    monkeypatch.setattr("pinxit.serve.access.refusal.LINGER_SECONDS", 0.05)
    answer = ask(guarded(), *POST, headers, body)
    assert answer.status == status if status == 200 else refused(answer, status)
    if status != 200:
        assert answer.header("connection") == "close", "the rest is no further request"


def test_uploads_may_be_larger_and_all_bodies_together_are_limited():
    app = guarded()
    assert ask(app, "POST", "/v1/images/edits", [], b"x" * 3000).status == 200
    slow: list[bytes | float] = [b"x" * 2500, 0.04, b"x"]

    async def both() -> list[int]:
        asks = (ask_async(app, "POST", "/v1/images/edits", [], list(slow)) for _ in range(2))
        return sorted(answer.status for answer in await asyncio.gather(*asks))

    assert asyncio.run(both()) == [200, 503]
    assert ask(app, "POST", "/v1/images/edits", [], b"x" * 3000).status == 200, "it is given back"


def test_an_error_of_the_app_after_a_refusal_is_not_reported_and_any_other_is():
    answer = ask(guarded(), *POST, [("transfer-encoding", "chunked")], [b"x" * 600, b"x" * 600])
    assert answer.status == 413  # `echo` has raised

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(StudioGuard(broken, AccessRules(), None), *POST, [], b"x")


# --- streams ----------------------------------------------------------------------------------


def test_open_streams_end_with_a_last_event():
    seen: list[str] = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        seen.append((await receive())["type"])
        seen.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b"data: late\n\n", "more_body": True})

    guard = StudioGuard(stream, AccessRules(), None)

    async def run() -> Answer:
        asked = asyncio.create_task(ask_async(guard, "GET", "/events"))
        while not guard.streams.streams:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert await guard.end_streams() == 1 and await guard.end_streams() == 0
        return await asked

    answer = asyncio.run(run())
    assert answer.body.endswith(b'event: closing\ndata: {"state": "closing"}\n\n')
    assert answer.complete and b"late" not in answer.body
    assert seen == ["http.request", "http.disconnect"]
