"""The view of runs in Chromium: the list, live rows and samples, starting, stopping, resuming."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from run_folders import EVIL, row, write_grid, write_run
from stub_training import write_stub
from studio import RunningStudio, WatchedPage, accessibility, folders_in, opened, running_studio

from pinxit.config import to_json
from pinxit.recipes import RECIPES
from pinxit.train.run_folder import RunFolder


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio with two runs, one of which has not finished."""
    root = tmp_path_factory.mktemp("runs")
    options = folders_in(root)
    write_run(root / "runs" / "done")
    write_run(root / "runs" / "going", finished=False, name=EVIL)
    with running_studio(**options) as running:
        stub = write_stub(root)
        running.app.state.runs.trainings.program = (sys.executable, stub, "train")
        (root / "config.json").write_text(json.dumps(to_json(RECIPES["scenes"]().resolved())))
        os.environ["STUB_CONFIG"] = str(root / "config.json")
        yield running
        del os.environ["STUB_CONFIG"]


def folder_of_run(studio: RunningStudio, name: str) -> RunFolder:
    return RunFolder(studio.studio.runs / name)


def newest(page: Any, name: str = "loss") -> str:
    return page.locator(f"[data-chart='{name}'] .chart-value").get_attribute("data-value")


def test_the_list_shows_runs_and_lays_them_over_each_other(page: WatchedPage, studio):
    view = page.page
    view.goto(f"{studio.url}/#/runs")
    entries = view.locator(".run-entry")
    entries.nth(1).wait_for()
    texts = entries.all_inner_texts()
    assert any("200 of 200 steps" in text and "finished" in text for text in texts)
    expect(view.locator(".run-thumb canvas")).to_have_count(2)
    assert view.title().endswith("studio")
    for box in entries.get_by_role("checkbox").all():
        box.check()
    view.get_by_role("button", name="Show 2 together").click()
    expect(view.locator("[data-chart='loss'] path.chart-line")).to_have_count(2)
    assert view.locator("img[src=x]").count() == 0


def test_new_rows_and_samples_appear_while_the_page_is_open(page: WatchedPage, studio):
    folder, view = folder_of_run(studio, "going"), page.page
    view.goto(f"{studio.url}/#/runs/going")
    view.wait_for_selector(".sample-cells")
    assert newest(view) == repr(row(200)["loss"])
    line = json.dumps(row(210))
    with folder.metrics.open("a") as file:
        file.write(line[:30])
        file.flush()
        time.sleep(1)
        file.write(line[30:] + "\n")
    write_grid(folder, 210, "red")
    view.wait_for_function(
        "value => document.querySelector(\"[data-chart='loss'] .chart-value\").dataset.value"
        " === value",
        arg=repr(row(210)["loss"]),
    )
    view.wait_for_selector(".sample-bar output:text('210')")
    expect(view.locator(".sample-open").first).to_contain_text("step 210", use_inner_text=True)
    # the run goes back: its file is another one, and shorter
    rows = [json.loads(text) for text in folder.metrics.read_text().splitlines()]
    replaced = folder.metrics.with_name("new")
    kept = [entry for entry in rows if entry["step"] <= 100]
    replaced.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
    os.replace(replaced, folder.metrics)
    view.wait_for_function(
        "value => document.querySelector(\"[data-chart='loss'] .chart-value\").dataset.value"
        " === value",
        arg=repr(row(100)["loss"]),
    )


def test_a_run_starts_stops_and_resumes_from_the_page(page: WatchedPage, studio):
    view = page.page
    view.goto(f"{studio.url}/#/runs")
    view.get_by_label("Name").fill("../escape")
    view.get_by_role("button", name="Start training").click()
    expect(view.get_by_role("alert").last).to_contain_text("Name", use_inner_text=True)
    view.get_by_label("Name").fill("live")
    view.get_by_label("Steps", exact=True).fill("40000")
    view.get_by_label("Seed").fill("5")
    view.get_by_role("button", name="Start training").click()
    view.wait_for_url("**/#/runs/live")
    view.wait_for_selector(".badge:text('running')")
    view.wait_for_selector("[data-chart='loss']")
    first = float(newest(view))
    view.wait_for_function(
        "value => Number(document.querySelector(\"[data-chart='loss'] .chart-value\")"
        ".dataset.value) < value",
        arg=first,
    )
    expect(view.locator(".run-progress")).to_contain_text(
        "of 40,000 steps · about", use_inner_text=True
    )
    view.get_by_role("button", name="Stop").click()
    view.wait_for_selector(".badge:text('stopped')")
    expect(view.locator(".run-words")).to_contain_text("SIGTERM after step", use_inner_text=True)
    stopped = float(newest(view))
    view.get_by_role("button", name="Resume").click()
    view.wait_for_selector(".badge:text('running')")
    view.wait_for_selector(".run-events :text('resumed after step')")
    assert float(newest(view)) <= stopped, "the curve goes on"
    config = json.loads(folder_of_run(studio, "live").config.read_text())
    assert config["seed"] == 5 and config["max_steps"] == 40_000
    view.get_by_role("button", name="Stop").click()
    view.wait_for_selector(".badge:text('stopped')")
    text = view.get_by_label("Log of live")
    if not text.is_visible():  # it is open if the page saw the run before its first row
        view.get_by_text("Log", exact=True).click()
    log = text.inner_text()
    assert log.count("encoding 16,000 images") == 2, "without control characters"


def test_the_error_of_a_training_is_on_the_page(page: WatchedPage, studio):
    view = page.page
    view.goto(f"{studio.url}/#/runs")
    view.get_by_label("Name").fill("unlucky")
    view.get_by_label("Steps", exact=True).fill("13")
    view.get_by_role("button", name="Start training").click()
    view.wait_for_selector(".badge:text('failed')")
    words = "pinxit: error: thirteen steps are bad luck <b>&</b>"
    expect(view.locator(".run-words")).to_have_text(f"failed: {words}", use_inner_text=True)
    expect(view.get_by_label("Log of unlucky")).to_contain_text(words, use_inner_text=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_list_is_accessible_and_narrow(browser: Any, studio: RunningStudio, scheme: str):
    size = {"width": 360, "height": 740}
    with opened(browser, studio.url, "/#/runs", color_scheme=scheme, viewport=size) as watched:
        watched.page.wait_for_selector(".run-entry")
        watched.page.get_by_text("More settings").click()
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert accessibility(watched.page) == []


@pytest.mark.slow
def test_a_real_training_starts_grows_stops_and_resumes(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small = {"Steps": 2000, "Pictures in the dataset": 64, "Pictures per step": 4}
    small |= {"Steps between samples": 20, "Steps between rows of metrics": 2}
    small |= {"Prompts of the evaluation": 0, "Pictures of the evaluation": 0}
    with running_studio(**folders_in(tmp_path)) as studio:
        with opened(browser, studio.url, "/#/runs") as watched:
            page = watched.page
            page.set_default_timeout(300_000)
            page.get_by_text("More settings").click()
            for label, value in small.items():
                page.get_by_label(label, exact=True).fill(str(value))
            page.get_by_role("button", name="Start training").click()
            page.wait_for_selector(".sample-cells canvas")
            page.get_by_role("button", name="Stop").click()
            page.wait_for_selector(".badge:text('stopped')")
            rows = folder_of_run(studio, "scenes").metrics.read_text().splitlines()
            assert newest(page) == repr(json.loads(rows[-1])["loss"])
            page.get_by_role("button", name="Resume").click()
            page.wait_for_selector(".badge:text('running')")
            page.wait_for_selector(".run-events :text('resumed after step')")
            page.get_by_role("button", name="Stop").click()
            page.wait_for_selector(".badge:text('stopped')")
        report = folder_of_run(studio, "scenes").report
        with opened(browser, report.as_uri(), "") as watched:
            watched.page.wait_for_selector(".badge:text('stopped')")
            expect(watched.page.locator("[data-chart='loss'] path.chart-line")).to_have_count(1)
