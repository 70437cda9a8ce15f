"""Writes screenshots of every page of the studio, in both themes, to docs/images/studio.

python scripts/draw_studio.py
python scripts/draw_studio.py --only draw,runs --content DIR

It trains two small runs, prepares a small dataset and computes a plan, which takes some minutes,
and then draws with the shipped model. With --content, these are kept in a folder and used again. It
needs Playwright and Chromium, as the tests do. A page that cannot be shown is named and left out.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Error, sync_playwright

from pinxit.data.scenes.dataset import Scenes

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images" / "studio"
CHROMIUM = os.environ.get("PINXIT_CHROMIUM") or shutil.which("chromium")
WIDTH, HEIGHT, LARGEST = 1280, 900, 150_000
"""The window in pixels, and the largest size of a picture in bytes."""
WAIT = 120_000
"""Milliseconds that a page may take to show something."""
PROMPT = "a small red house on the left under a full moon"
SMALL = (
    *("--recipe", "scenes", "--dataset_size", "2000", "--batch_size", "16", "--log_interval", "5"),
    *("--sample_interval", "60", "--eval_interval", "120", "--save_interval", "120"),
    *("--evaluation.prompts", "0", "--evaluation.images", "64", "--sampling.steps", "8"),
)
RUNS = {
    "first": ("--max_steps", "360"),
    "low_rate": ("--max_steps", "300", "--learning_rate", "0.001", "--seed", "1"),
}
"""The options of the runs. Both are short: they show the page, and not a good model."""


# --- what the pages show ---


def pinxit(*words: str, folder: Path) -> None:
    """Runs a command in a folder."""
    command = [sys.executable, "-m", "pinxit", *words]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}:\n{done.stderr.decode()[-2000:]}")


def environment(folder: Path) -> dict[str, str]:
    """Returns the variables of commands, which find this package and keep plans in the folder."""
    return os.environ | {"PYTHONPATH": str(ROOT), "PINXIT_PLANS": str(folder / "plans")}


def make_content(folder: Path) -> None:
    """Makes the runs, the dataset and the plan that are not in the folder yet."""
    for name, words in RUNS.items():
        if not (folder / "runs" / name / "results.json").is_file():
            print(f"training {name}")
            pinxit("train", *SMALL, *words, "--name", name, folder=folder)
    if not (folder / "data" / "scenes").is_dir():
        print("preparing a dataset")
        write_pictures(folder / "pictures")
        words = ("prepare", "folder", "--dataset_path", "pictures", "--out", "data/scenes")
        encoders = ("--image_size", "64", "--vae", "tiny")
        filters = ("--filters.min_words", "3", "--filters.unique_phash", "1")
        pinxit(*words, *encoders, *filters, "--unit_rows", "60", folder=folder)
    if not (folder / "plans").is_dir():
        print("computing a plan")
        pinxit("plan", "--recipe", "scenes", "--target", "here", "--policies", folder=folder)


def write_pictures(folder: Path) -> None:
    """Writes rendered scenes with captions, of which some are unfit for training: too small,
    broken, repeated, or with hardly a caption."""
    folder.mkdir(exist_ok=True)
    scenes, rows = Scenes(seed=3, split="train", image_size=96), []
    for index in range(300):
        example, name = scenes[index - 1 if index % 17 == 4 else index], f"{index:03d}.png"
        picture, caption = Image.fromarray(example.image), example.caption
        if index % 11 == 3:
            picture = picture.resize((40, 40))
        if index % 13 == 5:
            caption = "house"
        picture.save(folder / name)
        if index % 29 == 7:
            (folder / name).write_bytes(b"not a picture")
        rows.append({"file_name": name, "text": caption})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Starts the studio on this content, and yields its address."""
    shutil.rmtree(folder / "outputs", ignore_errors=True)
    words = ("--port", "0", "--open", "0", "--runs", "runs", "--out", "outputs", "--data", "data")
    with (folder / "studio.log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pinxit", "studio", *words],
            cwd=folder, env=environment(folder), stderr=log,
        )  # fmt: skip
        try:
            yield address_of(process, folder / "studio.log")
        finally:
            process.terminate()
            process.wait(60)


def address_of(process: subprocess.Popen[bytes], log: Path) -> str:
    """Waits until the server prints its address, and returns it."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        words = [word for word in log.read_text().split() if word.startswith("http")]
        if words:
            return words[0].rstrip("/")
        time.sleep(0.2)
    raise SystemExit(f"the studio did not start:\n{log.read_text()}")


def fill_gallery(url: str) -> None:
    """Draws a few pictures into the gallery."""
    prompts = (
        "a large yellow tree on a foggy beach at dawn",
        "a purple castle in the middle of a desert at noon",
        "a small blue lighthouse on the right by the sea at sunset, in the rain",
        "a large green balloon on the left by the sea at dawn, in the fog",
        "a white house in the middle near the mountains by day, in the snow",
    )
    for seed, prompt in enumerate(prompts):
        body = {"prompt": prompt, "seed": seed, "keep": True}
        job = httpx.post(f"{url}/v1/jobs", json=body, timeout=60).raise_for_status().json()["id"]
        while httpx.get(f"{url}/v1/jobs/{job}").json()["state"] in ("queued", "drawing"):
            time.sleep(0.1)


def gallery(url: str) -> set[str]:
    """Returns the names of the newest pictures of the gallery."""
    entries = httpx.get(f"{url}/studio/gallery").raise_for_status().json()["pictures"]
    return {entry["name"] for entry in entries}


# --- the pages ---


def draw(page: Any) -> None:
    """Shows finished pictures and the gallery."""
    page.get_by_label("Prompt", exact=True).first.fill(PROMPT)
    page.get_by_label("Seed", exact=True).first.fill("7")
    page.get_by_label("Pictures", exact=True).first.fill("4")
    page.get_by_role("button", name="Draw", exact=True).click()
    page.wait_for_function("document.querySelectorAll('button.tile').length === 4")
    page.wait_for_selector(".stage-head", state="hidden")


def forming(page: Any) -> None:
    """Shows pictures that are being drawn, with previews and progress."""
    page.get_by_label("Prompt", exact=True).first.fill(PROMPT)
    page.get_by_label("Pictures", exact=True).first.fill("4")
    page.get_by_label("Steps", exact=True).first.fill("250")
    page.get_by_role("button", name="Draw", exact=True).click()
    page.wait_for_function("/step (1[2-9]|[2-9])\\d\\d? of/.test(document.body.innerText)")


def cancelled(page: Any) -> None:
    """Cancels the drawing that a page has started."""
    page.get_by_role("button", name="Cancel").first.click()
    page.wait_for_selector("text=The drawing was cancelled.")


def lightbox(page: Any) -> None:
    """Shows one picture of the gallery with its recipe."""
    page.locator(".thumbnail").nth(2).click()
    page.wait_for_selector("dialog[open] img, [role=dialog] img")


def compare(page: Any) -> None:
    """Shows a comparison of guidance and steps."""
    page.get_by_label("Prompt", exact=True).first.fill(PROMPT)
    for place, (setting, values) in enumerate((("guidance_scale", "1, 2, 4"), ("steps", "4, 16"))):
        page.get_by_label("Setting").nth(place).select_option(setting)
        page.get_by_label("Values").nth(place).fill(values)
    page.get_by_role("button", name="Draw the comparison").click()
    page.wait_for_selector(".sheet")
    page.wait_for_function("document.querySelector('.sheet').naturalWidth > 100")


def runs(page: Any) -> None:
    """Shows the list of runs."""
    page.wait_for_selector(".run-entry")
    page.wait_for_selector(".run-thumb canvas")


def curves(page: Any) -> None:
    """Shows the curves of a run."""
    page.wait_for_selector("[data-chart='loss'] path.chart-line")


def samples(page: Any) -> None:
    """Shows the sample grids of a run with their slider."""
    page.wait_for_selector(".sample-cells canvas")
    page.locator(".sample-cells").first.scroll_into_view_if_needed()


def together(page: Any) -> None:
    """Shows two runs in the same charts."""
    page.wait_for_function(
        "document.querySelectorAll(\"[data-chart='loss'] path.chart-line\").length === 2"
    )


def data(page: Any) -> None:
    """Shows the list of datasets."""
    page.wait_for_selector("a[href^='#/data/']")


def dataset(page: Any) -> None:
    """Shows the report of a dataset."""
    page.wait_for_selector("[role=tab]")
    page.wait_for_selector(".data-panel svg, .data-panel table")


def pictures(page: Any) -> None:
    """Shows a contact sheet of a dataset."""
    page.wait_for_selector(".data-panel img")


def plan(page: Any) -> None:
    """Shows a plan from the cache."""
    page.wait_for_selector(".plan-verdict")


def api(page: Any) -> None:
    """Shows the reference of the API."""
    page.wait_for_selector("main h1, main h2")


Show = Callable[[Any], None]
PAGES: dict[str, tuple[str, Show]] = {
    "draw": ("#/draw", draw),
    "forming": ("#/draw", forming),
    "lightbox": ("#/draw", lightbox),
    "compare": ("#/compare", compare),
    "runs": ("#/runs", runs),
    "run": ("#/runs/first", curves),
    "samples": ("#/runs/first", samples),
    "together": ("#/runs/first/low_rate", together),
    "data": ("#/data", data),
    "dataset": ("#/data/scenes", dataset),
    "kept": ("#/data/scenes/kept", pictures),
    "rejected": ("#/data/scenes/rejected", pictures),
    "plan": ("#/plan", plan),
    "api": ("docs", api),
}
"""The address of each picture's page, and the function that brings it into the state to show."""
AFTER: dict[str, Show] = {"forming": cancelled}


RENAME = """([[before, after]]) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    texts.currentNode.data = texts.currentNode.data.replaceAll(before, after);
  }
}"""


def shoot(browser: Any, url: str, name: str, theme: str, content: Path) -> int:
    """Writes one picture, and returns its size in bytes. Names of this computer are replaced."""
    address, show = PAGES[name]
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT},
        color_scheme=theme,
        reduced_motion="reduce",
        bypass_csp=True,  # the script's own conditions are evaluated from text
    )
    try:
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.goto(f"{url}/{address}")
        show(page)
        page.wait_for_timeout(400)
        for before, after in ((str(content), "/home/me/pinxit"), (url, "http://127.0.0.1:7860")):
            page.evaluate(RENAME, [[before, after]])
        written = write_small(page.screenshot(), IMAGES / f"{name}_{theme}.webp")
        if name in AFTER:
            AFTER[name](page)
        return written
    finally:
        context.close()


def write_small(png: bytes, path: Path) -> int:
    """Writes a picture as WebP, with less quality until it is small enough."""
    picture, data = Image.open(io.BytesIO(png)).convert("RGB"), b""
    for quality in (90, 80, 65):
        box = io.BytesIO()
        picture.save(box, "WEBP", quality=quality, method=6)
        data = box.getvalue()
        if len(data) <= LARGEST:
            break
    path.write_bytes(data)
    return len(data)


def take(names: list[str], content: Path) -> list[str]:
    """Writes the pictures, and returns what could not be shown."""
    missing = []
    IMAGES.mkdir(parents=True, exist_ok=True)
    with server(content) as url, sync_playwright() as playwright:
        fill_gallery(url)
        usual = gallery(url)
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        for name in names:
            for theme in ("light", "dark"):
                try:
                    size = shoot(browser, url, name, theme, content)
                    print(f"{name}_{theme}.webp  {size / 1000:.0f} kB")
                except Error as error:
                    missing.append(f"{name} ({theme}): {str(error).splitlines()[0]}")
                for stored in gallery(url) - usual:
                    httpx.delete(f"{url}/studio/gallery/{stored}").raise_for_status()
        browser.close()
    return missing


def main() -> int:
    """Reads the options, and returns 1 if a page could not be shown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=f"names, separated by commas: {', '.join(PAGES)}")
    parser.add_argument("--content", type=Path, help="a folder that keeps the runs and the data")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(PAGES)
    if unknown := [name for name in names if name not in PAGES]:
        parser.error(f"--only: {', '.join(unknown)}: not a page; valid: {', '.join(PAGES)}")
    with tempfile.TemporaryDirectory() as temporary:
        content = (options.content or Path(temporary)).resolve()
        content.mkdir(parents=True, exist_ok=True)
        make_content(content)
        missing = take(names, content)
    for line in missing:
        print(f"left out: {line}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
