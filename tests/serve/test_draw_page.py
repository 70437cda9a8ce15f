"""The view Draw in Chromium: drawing, the queue, the gallery, the lightbox, dropped pictures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect
from studio import RunningStudio, WatchedPage, accessibility, folders_in, opened, running_studio
from studio_pages import (
    WATCH_PREVIEWS,
    draw,
    drawn,
    drop,
    fill,
    newest,
    relay,
    tab_to,
    thumbnails,
    until,
)

from pinxit.picture_files import picture_bytes, read_recipe

HOUSE = "a small red house under a full moon"
MARKUP = 'a <img src=x onerror=alert(1)> "house" & <script>alert(2)</script>'


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio that draws one picture at a time, so that a queue forms."""
    folders = folders_in(tmp_path_factory.mktemp("studio"))
    with running_studio(**folders, concurrency=1) as running:
        yield running


@pytest.fixture
def outputs(studio: RunningStudio) -> Iterator[Path]:
    """The folder of the gallery, which is empty at the beginning and at the end."""
    yield studio.studio.out
    for job in studio.engine.jobs():
        job.cancel()
        job.wait(20)
    for path in studio.studio.out.rglob("*.*"):
        if path.is_file():
            path.unlink()


@pytest.fixture
def page(browser: Any, studio: RunningStudio, outputs: Path) -> Iterator[WatchedPage]:
    """The view Draw with an empty gallery."""
    with opened(browser, studio.url, "/#/draw") as watched:
        watched.page.wait_for_selector(".draw-form")
        yield watched


def test_a_picture_forms_in_its_place_and_stays_in_the_gallery(page, outputs):
    view = page.page
    view.evaluate(WATCH_PREVIEWS)
    draw(view, Prompt=HOUSE, Seed=7)
    view.wait_for_selector("progress:visible")
    drawn(view)
    previews = view.evaluate("window.previews")
    assert len(set(previews)) >= 3
    first, last = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
        for source in (previews[0], previews[-1])
    )
    stored = newest(outputs)
    final = np.asarray(Image.open(stored))
    assert first.shape == final.shape and not np.array_equal(first, final)
    distances = [np.abs(each.astype(float) - final).mean() for each in (first, last)]
    assert distances[1] < distances[0]
    assert read_recipe(stored)["prompt"] == HOUSE and read_recipe(stored)["seed"] == 7
    thumbnails(view, 1)
    view.reload()
    thumbnails(view, 1)
    expect(view.locator(".thumbnail img")).to_have_attribute("alt", HOUSE)


def test_a_drawing_is_cancelled_and_the_others_in_the_queue_know_their_places(page, browser):
    view = page.page
    draw(view, Prompt=HOUSE, Steps=250, Pictures=8)
    view.wait_for_selector("text=/Picture 1 of 8, step \\d+ of 2000 · .* left/")
    other = view.context.new_page()
    watched = WatchedPage(other, page._origin)
    other.goto(view.url)
    draw(other, Prompt="a blue tent", Steps=200, Pictures=1)
    other.wait_for_selector(".stage-head:visible")
    for prompt in ("a green tent", "a white tent"):
        draw(other, Prompt=prompt, Steps=4)
    other.wait_for_selector("text=/[12] drawings? before yours/")
    view.reload()  # the drawing goes on being shown
    view.wait_for_selector("text=/Picture \\d of 8, step \\d+ of 2000/")
    view.get_by_role("button", name="Cancel").first.click()
    view.wait_for_selector("text=The drawing was cancelled.")
    drawn(other)
    until(view, "document.querySelectorAll('.thumbnail').length >= 3")
    watched.check()


def test_the_lightbox_is_used_by_keyboard(page, outputs):
    view = page.page
    draw(view, Prompt=HOUSE, Pictures=3, Seed=20)
    drawn(view, 3)
    thumbnails(view, 3)
    view.locator(".thumbnail").first.focus()
    view.keyboard.press("Enter")
    counted = view.locator(".lightbox .figures").first
    expect(counted).to_have_text("1 of 3", use_inner_text=True)
    view.keyboard.press("ArrowRight")
    expect(counted).to_have_text("2 of 3", use_inner_text=True)
    view.keyboard.press("ArrowLeft")
    view.keyboard.press("ArrowLeft")
    expect(counted).to_have_text("1 of 3", use_inner_text=True)
    expect(view.locator(".about")).to_contain_text(
        "DPM-Solver++ 2M, with guidance 3, from seed 22", use_inner_text=True
    )
    for _ in range(30):
        view.keyboard.press("Tab")
        inside = (
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
        assert view.evaluate(inside)
    view.get_by_role("button", name="pixel by pixel").click()
    assert view.locator(".frame img").bounding_box()["width"] == 64
    assert [each for each in accessibility(view) if "serious" in each or "critical" in each] == []
    view.keyboard.press("Escape")
    expect(view.locator(".lightbox")).to_be_hidden()
    assert view.evaluate("document.activeElement.className") == "thumbnail"
    view.keyboard.press("Enter")
    view.get_by_role("button", name="Delete").click()
    view.get_by_role("button", name="Undo").click()
    view.wait_for_selector("text=The picture is back.")
    assert len(list(outputs.glob("*.png"))) == 3


def test_from_load_to_a_downloaded_picture_with_the_keyboard_alone(page, outputs, tmp_path):
    view = page.page
    tab_to(view, "Prompt")
    view.keyboard.type(MARKUP)
    view.keyboard.press("Control+Enter")
    drawn(view)
    thumbnails(view, 1)
    tab_to(view, "")  # the finished picture, which its text describes
    while view.evaluate("!document.activeElement.matches('button.tile')"):
        view.keyboard.press("Tab")
    view.keyboard.press("Enter")
    expect(view.locator(".about .prompt")).to_have_text(MARKUP, use_inner_text=True)
    for name, suffix in (("PNG", "png"), ("WebP", "webp")):
        tab_to(view, name)
        with view.expect_download() as download:
            view.keyboard.press("Enter")
        path = tmp_path / f"downloaded.{suffix}"
        download.value.save_as(path)
        assert read_recipe(path)["prompt"] == MARKUP
    assert (tmp_path / "downloaded.png").read_bytes() == newest(outputs).read_bytes()
    view.keyboard.press("Escape")
    expect(view.locator(".stage img")).to_have_attribute("alt", MARKUP)


def test_a_dropped_picture_restores_the_form_and_is_drawn_again_to_the_same_bytes(page, outputs):
    view = page.page
    draw(view, Prompt=MARKUP, Negative_prompt="fog", Seed=9, Steps=5, Guidance=2.5)
    drawn(view)
    original = newest(outputs)
    fill(view, Prompt="another", Negative_prompt="", Seed=1, Steps=9, Guidance=1)
    drop(view, original.read_bytes(), "<b>x</b>.png")
    view.wait_for_selector("text=Drawing it again gives the same picture.")
    values = [view.get_by_label(label, exact=True).input_value() for label in ("Prompt", "Seed")]
    assert values == [MARKUP, "9"]
    view.get_by_role("button", name="Draw it again").click()
    thumbnails(view, 2)
    again = newest(outputs)
    assert again != original and again.read_bytes() == original.read_bytes()


def test_pictures_of_other_programs_are_said_to_be_such(page):
    view = page.page
    info, buffer = PngInfo(), io.BytesIO()
    info.add_itxt("parameters", f"{MARKUP}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5")
    Image.new("RGB", (32, 32)).save(buffer, "PNG", pnginfo=info)
    drop(view, buffer.getvalue())
    view.wait_for_selector("text=This picture was drawn by another program.")
    expect(view.get_by_label("Prompt", exact=True)).to_have_value(MARKUP)
    plain = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(plain, "JPEG")
    drop(view, plain.getvalue(), "photo.jpg", "image/jpeg")
    view.wait_for_selector("text=This picture has no recipe. You can start from it.")
    view.get_by_role("button", name="Start from this picture").click()
    view.wait_for_selector("text=Starts from photo.jpg")
    page.expected.append("400")
    drop(view, b"no picture", "notes.png")
    view.wait_for_selector("text=notes.png is no picture, or damaged")


def test_a_picture_starts_from_another_one_with_a_painted_mask(page, outputs):
    view = page.page
    recipe = {"prompt": "x", "seed": 1, "size": [64, 64], "steps": 4, "guidance_scale": 1.0}
    recipe |= {"solver": "euler", "model": "x", "model_hash": "x", "version": "0"}
    source = picture_bytes(Image.new("RGB", (64, 64), (40, 90, 160)), recipe)
    view.locator(".source summary").click()
    with view.expect_file_chooser() as chooser:
        view.get_by_role("button", name="Choose an image").click()
    chooser.value.set_files({"name": "sky.png", "mimeType": "image/png", "buffer": source})
    view.get_by_role("button", name="Paint a mask").click()
    box = view.locator(".mask-canvas").bounding_box()
    view.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.6)
    view.mouse.down()
    view.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.9, steps=4)
    view.mouse.up()
    draw(view, Prompt=HOUSE, Seed=3)
    drawn(view)
    made = read_recipe(newest(outputs))["image"]
    assert (made["name"], made["mask_name"], made["strength"]) == ("sky.png", "painted-mask.png", 1)
    pixels = np.asarray(Image.open(newest(outputs)))
    assert np.abs(pixels[:8, :8].astype(int) - (40, 90, 160)).max() < 60


def test_a_cut_prompt_says_where_it_is_cut_before_drawing(page):
    view = page.page
    draw(view, Prompt=HOUSE)
    drawn(view)
    fill(view, Prompt="a small red house " * 40)
    view.wait_for_selector(".cut .note")
    text = view.locator(".cut").inner_text()
    assert re.search(r"reads 48 tokens, and the prompt is longer. It is cut behind “… .*”", text)


def test_a_wrong_value_is_said_at_its_field(page):
    view = page.page
    draw(view, Prompt=HOUSE, Steps=0)
    expect(view.locator(".draw-form .error")).to_contain_text("Steps", use_inner_text=True)
    assert view.evaluate("document.activeElement.name") == "steps"
    fill(view, Steps=4)
    expect(view.locator(".draw-form .error")).to_be_hidden()
    view.get_by_label("Size", exact=True).select_option("own")
    page.expected.append("400")
    draw(view, Width=63)
    view.wait_for_selector(".draw-form .error:visible")
    draw(view, Prompt="", Width=64)
    expect(view.locator(".draw-form .error")).to_contain_text(
        "Describe a picture", use_inner_text=True
    )


def test_a_server_that_died_is_said_and_the_button_works_again(browser, studio, outputs):
    with relay(studio.url) as (url, cut), opened(browser, url, "/#/draw") as watched:
        view = watched.page
        watched.expected += ["Failed to load resource"]
        draw(view, Prompt=HOUSE, Steps=250, Pictures=8)
        view.wait_for_selector("text=/step \\d+ of 2000/")
        cut()
        view.wait_for_selector("text=The studio's server does not answer.")
        button = view.get_by_role("button", name="Draw", exact=True)
        assert (
            button.is_enabled() and view.get_by_label("Prompt", exact=True).input_value() == HOUSE
        )
        button.click()
        view.wait_for_selector("text=What you asked for is still in the form.")
        expect(button).to_be_enabled()


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
def test_the_view_is_accessible_and_fits_a_narrow_window(browser, studio, outputs, scheme):
    options = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    with opened(browser, studio.url, "/#/draw", reduced_motion="reduce", **options) as watched:
        view = watched.page
        draw(view, Prompt=f"{HOUSE} {'x' * 200}")
        drawn(view)
        view.locator("details.more summary").first.click()
        view.locator("details.more summary").last.click()
        assert view.evaluate("document.documentElement.scrollWidth") <= 360
        assert accessibility(view) == []
        moving = (
            "document.getAnimations().filter((each) => each.effect.getTiming().duration > 1).length"
        )
        assert view.evaluate(moving) == 0
        view.locator(".thumbnail").first.click()
        assert view.evaluate("document.querySelector('dialog').scrollWidth") <= 360
        assert accessibility(view) == []
