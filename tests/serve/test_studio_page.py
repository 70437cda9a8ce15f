"""The frame of the studio's page: navigation, themes, narrow windows, accessibility."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from studio import RunningStudio, accessibility, opened

VIEWS = ("Draw", "Compare", "Runs", "Data", "Plan")


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_opens_from_the_navigation_and_by_its_address(page, studio, view):
    page.page.get_by_role("navigation").get_by_role("link", name=view).click()
    assert page.page.url == f"{studio.url}/#/{view.lower()}"
    link = page.page.get_by_role("navigation").get_by_role("link", name=view)
    expect(link).to_have_attribute("aria-current", "page")
    page.page.wait_for_selector(f".view-{view.lower()} > *")
    assert page.page.title() == f"{view} · Pinxit studio"


def test_the_theme_button_changes_the_colours_and_a_reload_keeps_them(page):
    colour = "getComputedStyle(document.body).backgroundColor"
    system = page.page.evaluate(colour)
    button = page.page.get_by_role("button", name="Theme")
    button.click()
    assert page.page.evaluate(colour) == system  # light, as the system
    button.click()
    dark = page.page.evaluate(colour)
    assert dark != system
    page.page.reload()
    page.page.wait_for_selector(".views a")
    assert page.page.evaluate(colour) == dark


def test_the_system_s_dark_theme_is_followed(browser, studio):
    with opened(browser, studio.url, color_scheme="dark") as watched:
        colour = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colour == "rgb(23, 22, 20)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_frame_is_accessible(browser, studio: RunningStudio, scheme: str):
    with opened(browser, studio.url, "/#/plan", color_scheme=scheme) as watched:
        watched.page.wait_for_selector(".view-plan > *")
        assert accessibility(watched.page) == []


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_is_wider_than_a_narrow_window(browser, studio, view):
    size = {"width": 360, "height": 740}
    with opened(browser, studio.url, f"/#/{view.lower()}", viewport=size) as watched:
        watched.page.wait_for_selector(f".view-{view.lower()} > *")
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 360
