"""The planner's view in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_compiler
import httpx
import pytest
from playwright.sync_api import expect
from studio import RunningStudio, accessibility, folders_in, opened, running_studio

NARROW = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of plans, with a quick compiler."""
    with pytest.MonkeyPatch.context() as patch:
        yield fake_compiler.install(patch, tmp_path_factory.mktemp("planner"))


@pytest.fixture(scope="module")
def studio(plans: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio with a quick compiler."""
    with running_studio(**folders_in(tmp_path_factory.mktemp("studio"))) as running:
        yield running


@pytest.fixture(autouse=True)
def empty_cache(plans: Path) -> None:
    """Empties the cache before each test."""
    fake_compiler.clear(plans)


def verdict(page: Any) -> str:
    """Waits for the verdict, and returns it."""
    page.wait_for_selector(".plan-verdict")
    return page.locator(".plan-verdict .sentence").inner_text()


def test_a_plan_is_computed_with_progress_and_then_appears_at_once(browser, studio, plans):
    (plans / "hold").touch()
    with opened(browser, studio.url, "/#/plan") as watched:
        page = watched.page
        page.get_by_text("This plan has not been computed yet.").wait_for()
        page.get_by_label("Recipe").select_option("mock")
        page.get_by_label("Machine", exact=True).select_option("tpu-v3-8")
        page.get_by_label("Price of one device").fill("2")
        page.get_by_role("button", name="Compute the plan").click()
        page.get_by_text("Compiling batch 8, remat auto").wait_for()
        page.reload()  # the computation goes on, and its form is there again
        page.get_by_text("Compiling batch 8, remat auto").wait_for()
        expect(page.get_by_label("Recipe")).to_have_value("mock")
        (plans / "hold").unlink()
        assert "It fits, and leaves" in verdict(page)
        text = page.locator("main").inner_text()
        for part in ("gradients, activations, temporaries", "Images per second", "Cost"):
            assert part in text
        assert "pinxit plan --recipe mock --target tpu-v3-8 --policies --price 2" in text
        assert "pinxit train --recipe mock" in text
        assert page.locator(".plan-bar svg").get_attribute("aria-label").endswith("it fits")
        expect(page.locator(".plan-bar rect")).to_have_count(5)
        assert accessibility(page) == []
        page.get_by_label("Batch size").fill("16")
        page.get_by_text("This plan has not been computed yet.").wait_for()
        page.get_by_label("Batch size").fill("8")
        assert "It fits" in verdict(page)  # from the cache, without a click


def test_cancel_by_keyboard_only(browser, studio, plans):
    (plans / "hold").touch()
    with opened(browser, studio.url, "/#/plan") as watched:
        page = watched.page
        page.get_by_role("button", name="Compute it now").focus()
        page.keyboard.press("Enter")
        cancel = page.get_by_role("button", name="Cancel")
        cancel.focus()
        page.wait_for_timeout(700)  # the progress is drawn again, and the focus stays
        assert cancel.evaluate("node => node === document.activeElement")
        page.keyboard.press("Enter")
        page.get_by_text("The plan was cancelled.").wait_for()
        assert not [*plans.glob("*.job")]


def test_machines_side_by_side_and_the_largest_batches(browser, studio):
    with opened(browser, studio.url, "/#/plan", color_scheme="dark", viewport=NARROW) as watched:
        page = watched.page
        page.get_by_label("Machine", exact=True).select_option("tpu-v3-8")
        page.get_by_label("Batch size").fill("512")
        for name in ("none", "full"):
            page.get_by_role("checkbox", name=name).check()
        page.get_by_role("button", name="Another machine").click()
        page.get_by_label("Machine to compare with").select_option("a100-80")
        page.get_by_role("button", name="Compute the plan").click()
        assert "It does not fit" in verdict(page)
        table = page.locator(".plan-compare").inner_text()
        assert "does not fit" in table and "not possible" in table
        expect(page.locator(".plan-curve polyline")).to_have_count(2)
        expect(page.locator(".plan-curve .star")).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert accessibility(page) == []
        page.get_by_role("button", name="a100-80").click()
        page.get_by_text("pinxit plan --install-compiler cuda12").wait_for()


def test_wrong_settings_are_shown_at_their_field(browser, studio):
    with opened(browser, studio.url, "/#/plan") as watched:
        watched.expected.append("400")
        page = watched.page
        page.get_by_label("Batch size").fill("0")
        page.get_by_role("heading", name="These settings do not fit together").wait_for()
        expect(page.get_by_label("Batch size")).to_have_attribute("aria-invalid", "true")
        expect(page.get_by_role("alert")).to_contain_text("batch_size", use_inner_text=True)
        page.get_by_label("Batch size").fill("8")
        page.get_by_text("More settings").click()
        page.get_by_label("One setting a line").fill("<img src=x onerror=window.hacked=1> 3")
        page.locator("text=setting: ").first.wait_for()
        expect(page.get_by_role("alert")).to_contain_text("<img", use_inner_text=True)
        assert page.evaluate("window.hacked === undefined")


@pytest.mark.slow
def test_a_tiny_run_is_planned_for_this_machine(browser, studio, monkeypatch, tmp_path):
    """With the real compiler, whose progress is shown meanwhile."""
    import sys

    from pinxit.plan import compile_cache

    monkeypatch.setattr(compile_cache, "sys", sys)
    monkeypatch.setenv("PINXIT_PLANS", str(tmp_path))
    with opened(browser, studio.url, "/#/plan") as watched:
        page = watched.page
        page.get_by_label("Recipe").select_option("mock")
        page.get_by_role("button", name="Compute the plan").click()
        page.get_by_text("Compiling batch 8, remat auto").wait_for()
        page.wait_for_selector(".plan-verdict", timeout=300_000)
        assert "It fits, and leaves" in verdict(page)
        page.reload()
        assert "It fits, and leaves" in verdict(page)
    assert httpx.get(f"{studio.url}/studio/plans").json()["plans"][-1]["state"] == "done"
