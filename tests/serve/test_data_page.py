"""The view of prepared datasets in Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prepared_datasets as made
import prepared_toys as toys
import pytest
from playwright.sync_api import expect
from studio import RunningStudio, accessibility, opened, running_studio

NARROW = {"width": 360, "height": 740}
HEADS = re.compile(r"\d+ to \d+ of \d+ kept pictures")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with datasets and a run."""
    root = tmp_path_factory.mktemp("datasets")
    made.make_datasets(root)
    return root


@pytest.fixture(scope="module")
def studio(root: Path) -> Iterator[RunningStudio]:
    """A studio that shows the datasets."""
    folders = {"runs": str(root / "runs"), "out": str(root / "outputs")}
    with running_studio(data=(str(root / "data"),), **folders) as running:
        yield running


def hacked(page: Any) -> bool:
    """Returns whether a script of a stranger has run."""
    return page.evaluate("window.hacked !== undefined")


def wait_until_loaded(page: Any, selector: str) -> None:
    """Waits until the first picture is decoded."""
    image = page.locator(selector).first
    image.wait_for(state="attached")
    image.evaluate("image => image.decode()")
    assert image.evaluate("image => image.naturalWidth") > 0


def test_from_the_list_to_a_dataset_with_its_outcomes_and_thresholds(browser, studio):
    with opened(browser, studio.url, "/#/data") as watched:
        page = watched.page
        page.wait_for_selector(".data-card")
        expect(page.locator(".data-card")).to_have_count(5)
        wait_until_loaded(page, ".data-strip img")
        page.get_by_role("link", name="web", exact=True).click()
        expect(page.get_by_role("heading", level=1, name="web")).to_be_visible()
        page.wait_for_selector(".data-histogram")
        body = page.locator("main").inner_text()
        assert "120 rows in 3 units" in body and "--retry_failed 1" in body
        assert "Below 0.5: 103 rows pass, 17 (14\u00a0%) do not." in body
        expect(page.locator(".data-histogram .limit")).to_have_count(4)
        assert made.SCRIPT in body and not hacked(page)
        page.get_by_role("button", name="timeout").click()
        page.wait_for_selector(".data-list li")
        assert {*page.locator(".data-list .badge").all_inner_texts()} == {"timeout"}
        page.get_by_label("Outcome").select_option("rejected")
        page.get_by_label("Search keys").fill("/html/")
        expect(page.locator(".data-list li")).to_have_count(12)
        expect(page.locator(".data-status")).to_have_text("12 found. Searched 120 of 120 rows.")
        page.get_by_role("tab", name="Details").click()
        page.get_by_text("Settings that determine the content").click()
        expect(page.locator(".data-panel")).to_contain_text(
            '"max_watermark": 0.5', use_inner_text=True
        )
        assert not hacked(page) and accessibility(page) == []


def test_kept_pictures_are_searched_and_paged_and_opened_by_keyboard(browser, studio):
    with opened(browser, studio.url, "/#/data/web/kept") as watched:
        page = watched.page
        page.wait_for_selector(".data-cell")
        status = page.locator(".data-status")
        total = int(re.findall(r"of (\d+) kept", status.inner_text())[0])
        expect(status).to_have_text(
            f"1 to {min(60, total)} of {total} kept pictures", use_inner_text=True
        )
        page.locator(".data-cell").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open] .data-about")
        wait_until_loaded(page, "dialog img")
        page.wait_for_selector("dialog >> text=javascript:alert(1)")
        assert page.locator("dialog a").count() == 0  # such an address is no link
        page.keyboard.press("ArrowRight")
        link = page.locator("dialog a")
        link.wait_for()
        assert "noreferrer" in str(link.get_attribute("rel")) and "http://" in link.inner_text()
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
        assert page.evaluate("document.activeElement.className") == "data-cell"
        page.get_by_label("Search captions").fill("window.hacked")
        expect(page.locator(".data-cell")).to_have_count(1)
        assert "caption" in page.locator(".data-cell .caption").inner_text() and not hacked(page)
        page.get_by_label("Search captions").fill("nothing has this")
        page.get_by_text("Nothing found here.").wait_for()


def test_pages_follow_each_other(browser, studio, root):
    with opened(browser, studio.url, "/#/data/running/kept") as watched:
        page = watched.page
        page.get_by_text(HEADS).wait_for()
        made.add_unit(root / "data" / "running", root / "data" / "web")
        page.reload()
        page.get_by_text(HEADS).wait_for()
        first = page.locator(".data-status").inner_text()
        assert first.startswith("1 to 60 of")
        page.get_by_role("button", name="Next").click()
        expect(page.locator(".data-status")).to_have_text(re.compile("61 to "))
        page.get_by_role("button", name="Previous").click()
        page.get_by_text(first).wait_for()


def test_a_dataset_that_is_being_prepared_refreshes_itself(browser, studio, root):
    toys.rewrite_records(
        root / "data" / "running",
        lambda record: "" if record["unit"] == "09999-000" else json.dumps(record),
    )
    with opened(browser, studio.url, "/#/data/running", viewport=NARROW) as watched:
        page = watched.page
        page.get_by_text("this page refreshes itself").wait_for()
        page.get_by_text("in 3 units", exact=True).wait_for()
        made.add_unit(root / "data" / "running", root / "data" / "web")
        page.get_by_text("in 4 units", exact=True).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_list_tries_again_after_a_failed_look(browser, studio):
    with opened(browser, studio.url, "/#/compare") as watched:
        page = watched.page
        watched.expected.append("503")
        page.clock.install()
        page.route("**/studio/datasets", lambda route: route.fulfill(status=503), times=1)
        page.get_by_role("navigation").get_by_role("link", name="Data").click()
        page.wait_for_selector("[role=alert]")
        page.clock.run_for(6_000)
        page.wait_for_selector(".data-card")
        assert page.locator("[role=alert]").count() == 0


def test_damaged_files_are_named_beside_the_rest(browser, studio):
    with opened(browser, studio.url, "/#/data/damaged/kept") as watched:
        page = watched.page
        page.wait_for_selector(".data-cell")
        text = page.locator("main").inner_text()
        assert (
            "images/00000-000.array_record cannot be read" in text and "The rest is shown" in text
        )
        assert "record of unit 00002-000 cannot be read" in text


def test_tabs_by_keyboard_and_a_dark_narrow_page(browser, studio):
    with opened(
        browser, studio.url, "/#/data/web", color_scheme="dark", viewport=NARROW
    ) as watched:
        page = watched.page
        page.wait_for_selector(".data-outcomes")
        assert accessibility(page) == []
        page.get_by_role("tab", name="Overview").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(".data-cell")
        assert page.evaluate("location.hash") == "#/data/web/rejected"
        expect(page.get_by_role("tab", name="Rejected")).to_have_attribute("aria-selected", "true")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.get_by_label("Rejected for").select_option("filtered_words")
        expect(page.locator(".data-cell .badge").first).to_have_text("words")
        page.locator(".data-cell").first.click()
        page.wait_for_selector("dialog >> text=the caption has too few words")
        assert accessibility(page) == []


def test_an_unknown_dataset_says_so(browser, studio):
    with opened(browser, studio.url, "/#/data/nothing") as watched:
        watched.expected.append("404")
        watched.page.get_by_text("no prepared dataset of this name").wait_for()
