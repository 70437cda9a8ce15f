"""The page of a run, opened from a disk: charts, samples, settings, without any server."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from run_folders import EVIL, write_run
from studio import accessibility, opened

from pinxit.train.report.page import RunPage, page_of
from pinxit.train.report.run_samples import EmbeddedGrids
from pinxit.train.report.run_view import run_view

Open = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run, whose prompts and warnings try to break the page."""
    prompts = ("a red house", EVIL)
    folder = write_run(tmp_path_factory.mktemp("archive") / "first", prompts=prompts)
    RunPage(folder).write()
    return folder


@pytest.fixture
def page_from_disk(browser: Any, run: Any) -> Open:
    """Opens a page from the disk. It may request nothing but itself."""

    @contextmanager
    def open_page(path: Path | None = None, **options: Any) -> Iterator[Any]:
        address = (path or run.report).as_uri()
        requests: list[str] = []
        with opened(browser, address, "", **options) as watched:
            watched.page.on("request", lambda request: requests.append(request.url))
            yield watched.page
            assert [url for url in requests if not url.startswith("data:")] == []

    return open_page


def values_of(run: Any, name: str) -> dict[int, float]:
    """The values of metrics.jsonl by step."""
    rows = map(json.loads, run.metrics.read_text().splitlines())
    return {row["step"]: row[name] for row in rows if name in row}


def chart(page: Any, name: str) -> Any:
    return page.locator(f"[data-chart='{name}']")


def shown(page: Any, name: str, line: int = 0) -> str:
    """The value in a chart's legend, as it is in the data."""
    return chart(page, name).locator(".chart-value").nth(line).get_attribute("data-value")


def move_to(page: Any, name: str, share: float) -> None:
    """Moves the mouse to a share of the chart's width between its axes."""
    picture = chart(page, name).locator(".chart-picture")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    page.mouse.move(box["x"] + 54 + share * (box["width"] - 68), box["y"] + box["height"] / 2)


def test_all_charts_are_drawn_and_show_exact_values_at_the_cursor(page_from_disk: Open, run):
    losses, norms = values_of(run, "loss"), values_of(run, "grad_norm")
    with page_from_disk() as page:
        page.wait_for_selector(".chart-line")
        charts = page.locator(".run-chart:visible")
        assert charts.count() >= 9
        for one in charts.all():
            assert one.locator("path.chart-line[d^='M']").count() >= 1, one.inner_text()
        assert shown(page, "loss") == repr(losses[200]), "the newest without a cursor"
        for step, share in ((50, 0.25), (130, 0.65)):
            move_to(page, "loss", share)
            expect(chart(page, "loss").locator(".chart-where")).to_contain_text(
                f"step {step}", use_inner_text=True
            )
            assert shown(page, "loss") == repr(losses[step])
            assert shown(page, "grad_norm") == repr(norms[step]), "all charts at once"
            assert shown(page, "validation_loss", 1) == repr(0.75)
        move_to(page, "loss", 0.25)
        note = chart(page, "loss").locator(".chart-note").inner_text()
        assert note == f"the loss rises {EVIL}"
        assert page.title().startswith("first") and page.locator("img[src=x]").count() == 0


def test_the_keyboard_moves_zooms_and_goes_back(page_from_disk: Open, run):
    losses = values_of(run, "loss")
    with page_from_disk() as page:
        picture = chart(page, "loss").locator(".chart-picture")
        picture.focus()
        picture.press("Home")
        picture.press("ArrowRight")
        assert shown(page, "loss") == repr(losses[20])
        assert picture.get_attribute("aria-valuetext").startswith("step 20: Training loss ")
        picture.press("Shift+ArrowRight")
        expect(picture).to_have_attribute("aria-valuenow", "120")
        picture.press("+")
        assert float(picture.get_attribute("aria-valuemin")) == 60
        assert float(picture.get_attribute("aria-valuemax")) == 160
        page.get_by_role("button", name="Reset the zoom").wait_for()
        picture.press("Escape")
        expect(picture).to_have_attribute("aria-valuemin", "0")
        chart(page, "loss").get_by_text("Values").click()
        cells = chart(page, "loss").locator("tbody tr").nth(1).locator("th, td").all_inner_texts()
        assert cells[0] == "20" and float(cells[1]) == pytest.approx(losses[20], rel=1e-7)


def test_dragging_zooms_and_a_double_click_goes_back(page_from_disk: Open):
    with page_from_disk() as page:
        picture = chart(page, "loss").locator(".chart-picture")
        move_to(page, "loss", 0.25)
        page.mouse.down()
        move_to(page, "loss", 0.5)
        page.mouse.up()
        low, high = (float(picture.get_attribute(f"aria-value{end}")) for end in ("min", "max"))
        assert low == pytest.approx(50, abs=1) and high == pytest.approx(100, abs=1)
        other = chart(page, "grad_norm").locator(".chart-picture")
        assert float(other.get_attribute("aria-valuemin")) == low, "all charts zoom together"
        picture.dblclick()
        expect(picture).to_have_attribute("aria-valuemin", "0")


def test_smoothing_is_the_exponential_mean(page_from_disk: Open, run):
    mean = weights = 0.0
    expected = []
    for value in values_of(run, "loss").values():
        mean, weights = 0.8 * mean + 0.2 * value, 0.8 * weights + 0.2
        expected.append(mean / weights)
    with page_from_disk() as page:
        page.get_by_label("Smoothing").fill("0.8")
        card = chart(page, "loss")
        paths = [path.get_attribute("d") for path in card.locator("path.chart-line").all()]
        assert len(paths) == 2, "the exact values stay, behind"
        heights = [float(pair.split(",")[1]) for pair in paths[1].replace("L", "M").split("M")[1:]]
        top, low = max(expected), min(expected)
        scale = (max(heights) - min(heights)) / (top - low)
        drawn = [top - (height - min(heights)) / scale for height in heights]
        assert drawn == pytest.approx(expected, abs=0.1 / scale)
        assert shown(page, "loss") == repr(values_of(run, "loss")[200])


def test_the_axis_may_be_time_or_images_and_logarithmic(page_from_disk: Open):
    with page_from_disk() as page:
        page.get_by_label("Training time").check(force=True)
        picture = chart(page, "loss").locator(".chart-picture")
        expect(picture).to_have_attribute("aria-valuemax", "50")
        page.get_by_label("Images", exact=True).check(force=True)
        expect(picture).to_have_attribute("aria-valuemax", "3200")
        ticks = chart(page, "loss").locator(".chart-tick").all_text_contents()
        assert {"0", "1,000", "2,000", "3,000"} <= set(ticks)
        page.get_by_label("Log scale").check()
        ticks = chart(page, "loss").locator(".chart-tick").all_text_contents()
        assert {"1", "0.5"} & set(ticks) or {"1.0", "0.5"} & set(ticks)


def colour(page: Any, number: int = 0) -> list[int]:
    """The colour in the middle of a sample."""
    return page.evaluate(
        """async (number) => {
          const canvas = document.querySelectorAll(".sample-cells canvas")[number];
          await new Promise((done) => setTimeout(done, 60));
          const copy = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
          copy.drawImage(canvas, 64, 64, 1, 1, 0, 0, 1, 1);
          return [...copy.getImageData(0, 0, 1, 1).data.slice(0, 3)];
        }""",
        number,
    )


def test_the_slider_shows_the_same_prompts_at_other_steps(page_from_disk: Open):
    with page_from_disk() as page:
        assert page.locator(".sample-prompt figcaption").all_inner_texts() == ["a red house", EVIL]
        assert page.locator(".sample-prompt").first.locator(".sample-label").all_inner_texts() == [
            "raw",
            "ema_0.1",
        ]
        slider = page.get_by_label("Step", exact=False).last
        assert colour(page)[2] < 60 < 200 < colour(page)[0], "yellow, at step 200"
        slider.focus()
        slider.press("Home")
        expect(slider).to_have_attribute("aria-valuetext", "step 50")
        red, green, blue = colour(page)
        assert red > 200 and green < 60 and blue < 60
        page.get_by_role("button", name="Later samples").click()
        assert colour(page)[1] > 200
        page.locator(".sample-open").first.click()
        box = page.get_by_role("dialog")
        expect(box.get_by_role("heading", name="Step 100")).to_be_visible()
        assert box.locator(".sample-large-cell canvas").first.bounding_box()["width"] == 128
        expect(box.locator(".sample-large-strip canvas")).to_have_count(4)
        page.keyboard.press("ArrowRight")
        expect(box.get_by_role("heading", name="Step 150")).to_be_visible()
        page.keyboard.press("Escape")
        expect(box).to_be_hidden()


def test_reduced_motion_has_no_player(page_from_disk: Open):
    with page_from_disk() as page:
        page.get_by_role("button", name="Play").wait_for()
    with page_from_disk(reduced_motion="reduce") as page:
        page.get_by_role("button", name="Later samples").wait_for()
        expect(page.get_by_role("button", name="Play")).to_be_hidden()


def test_two_runs_lie_over_each_other_and_show_their_differences(
    page_from_disk: Open, run, tmp_path: Path
):
    other = write_run(tmp_path / "second", speed=2.0)
    views = [run_view(folder, describe=EmbeddedGrids().all) for folder in (run, other)]
    (tmp_path / "both.html").write_text(page_of(views))
    with page_from_disk(tmp_path / "both.html") as page:
        expect(chart(page, "loss").locator("path.chart-line")).to_have_count(2)
        move_to(page, "loss", 0.5)
        assert shown(page, "loss", 0) == repr(values_of(run, "loss")[100])
        assert shown(page, "loss", 1) == repr(values_of(other, "loss")[100])
        names = page.locator(".run-settings tbody th").all_inner_texts()
        assert names == ["name", "optimizer.learning_rate"]
        page.get_by_label("Only differences").uncheck()
        assert page.locator(".run-settings tbody th").count() > 100
        page.get_by_label("Find a setting").fill("warmup")
        assert page.locator(".run-settings tbody th").all_inner_texts() == [
            "optimizer.warmup_steps"
        ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(page_from_disk: Open, scheme: str):
    with page_from_disk(color_scheme=scheme) as page:
        page.wait_for_selector(".chart-line")
        assert accessibility(page) == []


def test_a_narrow_window_needs_no_scrolling_sideways(page_from_disk: Open):
    with page_from_disk(viewport={"width": 360, "height": 740}) as page:
        page.wait_for_selector(".chart-line")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        ticks = chart(page, "loss").locator(".chart-tick.across").all()
        ends = [(box["x"], box["x"] + box["width"]) for box in (t.bounding_box() for t in ticks)]
        assert len(ends) >= 2 and all(a[1] < b[0] for a, b in itertools.pairwise(ends))


def test_without_scripts_the_figures_are_text(page_from_disk: Open):
    with page_from_disk(java_script_enabled=False) as page:
        text = page.locator("body").inner_text()
        assert "200 steps, 3200 images" in text and "Validation loss" in text and EVIL in text
