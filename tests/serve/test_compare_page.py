"""The view Compare in Chromium, and its sheet beside that of `pinxit grid`."""

from __future__ import annotations

import shlex

import pytest
from playwright.sync_api import expect
from studio import accessibility, opened
from studio_pages import drop, fill, until

from pinxit.cli.main import main
from pinxit.comparison_grid.sheet import stored_grid

HOUSE = "a small red house & <img src=x onerror=alert(1)>"


def choose(page, place: int, setting: str, values: str) -> None:
    """Chooses what varies along the columns (0), the rows (1) or the panels (2)."""
    page.get_by_label("Setting").nth(place).select_option(setting)
    if setting:
        page.get_by_label("Values").nth(place).fill(values)


def test_a_comparison_has_the_bytes_of_the_command(browser, studio, tmp_path, capsys):
    with opened(browser, studio.url, "/#/compare") as watched:
        page = watched.page
        fill(page, Prompt=HOUSE)
        choose(page, 0, "guidance_scale", "2, 3")
        choose(page, 1, "seed", "0-1")
        choose(page, 2, "prompt_sr", "red|blue")
        page.get_by_text("Settings that all pictures share").click()
        fill(page, Steps=2)
        page.wait_for_selector("text=8 pictures on a sheet of")
        page.get_by_role("button", name="Draw the comparison").click()
        page.wait_for_selector(".sheet")
        until(page, "document.querySelector('.sheet').naturalWidth > 100")
        names = [path.name for path in studio.studio.out.glob("grid-*.png")]
        assert len(names) == 1
        stored = studio.studio.out / names[0]
        words = shlex.split(stored_grid(stored)["command"])
        out = tmp_path / "sheet.png"
        assert (
            words[:2] == ["pinxit", "grid"] and main(["grid", "--out", str(out), *words[2:]]) == 0
        )
        assert out.read_bytes() == stored.read_bytes()
        page.reload()  # the finished comparison is still shown
        page.wait_for_selector(".sheet")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the sheet").click()
        download.value.save_as(tmp_path / "downloaded.png")
        assert (tmp_path / "downloaded.png").read_bytes() == stored.read_bytes()
        page.get_by_role("navigation").get_by_role("link", name="Draw").click()
        page.wait_for_selector(".thumbnail .badge")


def test_a_comparison_is_cancelled_and_wrong_values_are_said(browser, studio):
    with opened(browser, studio.url, "/#/compare") as watched:
        page = watched.page
        fill(page, Prompt="a red house")
        choose(page, 0, "steps", "4,x")
        page.wait_for_selector("text=steps: 'x' is not understood")
        expect(page.locator("[name=x_values]")).to_have_attribute("aria-invalid", "true")
        choose(page, 0, "steps", "59,60")
        choose(page, 1, "seed", "0-19")
        page.wait_for_selector("text=40 pictures")
        page.get_by_role("button", name="Draw the comparison").click()
        page.wait_for_selector(".cell img")  # pictures appear in their cells before the end
        page.get_by_role("button", name="Cancel").click()
        page.wait_for_selector("text=The comparison was cancelled.")
        picture = next(studio.studio.out.glob("grid-*.png"))
        drop(page, picture.read_bytes())  # the view Draw takes it
        page.wait_for_selector("text=This is a comparison grid.")


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
def test_the_view_compare_is_accessible_and_narrow(browser, studio, scheme):
    options = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    with opened(browser, studio.url, "/#/compare", **options) as watched:
        page = watched.page
        fill(page, Prompt="a blue tent")
        choose(page, 0, "seed", "0-1")
        choose(page, 1, "", "")
        page.get_by_text("Settings that all pictures share").click()
        page.get_by_role("button", name="Draw the comparison").click()
        page.wait_for_selector(".sheet")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert accessibility(page) == []
