"""The pages for signing in and for the API, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from playwright.sync_api import expect
from protected_server import protected
from studio import accessibility, opened

from pinxit.serve.app import create_app
from pinxit.serve.engine.engine import DrawingEngine
from pinxit.serve.settings import StudioConfig

TOKEN = "a-token-for-the-pages-0123456789"


class IdleEngine(DrawingEngine):
    """An engine that loads no model before it is asked to draw."""

    def start(self) -> None:
        """Does nothing."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """A studio with a token."""
    root = tmp_path_factory.mktemp("locked")
    config = StudioConfig(runs=str(root / "runs"), out=str(root / "outputs"), token=TOKEN)
    return create_app(config, engine=IdleEngine(config))


@pytest.fixture(scope="module")
def locked(app: FastAPI) -> Iterator[str]:
    """The address of the studio, behind its own server."""
    with protected(app) as (port, _):
        yield f"http://127.0.0.1:{port}"


def test_a_browser_signs_in_and_stays_so_after_a_reload(browser, locked):
    with opened(browser, locked) as watched:
        watched.expected.append("401")
        page = watched.page
        assert accessibility(page) == []
        page.get_by_label("Access token").fill("a-wrong-token-0123456789")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("alert").filter(has_text="The token is wrong").wait_for()
        page.get_by_label("Access token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector(".views a")
        assert page.url.startswith(f"{locked}/") and TOKEN not in page.url
        watched.expected.clear()
        assert all("401" in problem for problem in watched.problems)
        watched.problems.clear()
        page.reload()  # answers without content must not change the policy of the page
        page.wait_for_selector(".views a")
        assert page.evaluate("document.cookie") == ""


def test_a_link_with_the_token_opens_the_page_at_a_clean_address(browser, locked):
    with opened(browser, locked, f"/?token={TOKEN}") as watched:
        watched.page.wait_for_selector(".views a")
        assert "token" not in watched.page.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_the_api_shows_and_finds_every_route(browser, app, locked, scheme):
    narrow = {"width": 360, "height": 740}
    link = f"/?token={TOKEN}"
    with opened(browser, locked, link, color_scheme=scheme, viewport=narrow) as watched:
        page = watched.page
        page.wait_for_selector(".views a")
        page.goto(f"{locked}/docs")
        page.wait_for_selector(".operation")
        described = sum(len(methods) for methods in app.openapi()["paths"].values())
        assert page.locator(".operation").count() == described
        page.get_by_label("Find").fill("/v1/images/gen")
        expect(page.locator(".operation:visible")).to_have_count(1)
        page.locator(".operation:visible summary").press("Enter")
        expect(page.get_by_role("rowheader", name="prompt", exact=False).first).to_be_visible()
        assert accessibility(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.goto(f"{locked}/docs#get-metrics")
        page.wait_for_selector("#get-metrics[open]")
