"""Axes of `benchmarks/growth.py`: runs, their metrics and the studio's folders as they grow."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from growth_axes import Act, Axis, Extras, doubling, record

NAMES = ("grad_norm", "learning_rate", "images_per_second", "memory_gb", "data_wait_share")


def rows_of(count: int) -> Iterator[dict[str, Any]]:
    """Yields rows of metrics as a run writes them, one every 10 steps."""
    for number in range(count):
        step = 10 * (number + 1)
        row = {"step": step, "loss": 1 / step, "seconds_per_step": 0.1, "images": 16 * step}
        row |= {name: float(number % 7) for name in NAMES}
        yield {**row, "loss_by_t": [0.1 * i for i in range(8)]}


def make_run(root: Path, rows: int) -> Path:
    """Writes a run with this many rows of metrics."""
    root.mkdir(parents=True, exist_ok=True)
    config = {"name": root.name, "max_steps": 10 * rows, "batch_size": 16, "dataset_name": "mock"}
    (root / "config.json").write_text(json.dumps(config))
    text = "".join(json.dumps(row) + "\n" for row in rows_of(rows))
    (root / "metrics.jsonl").write_text(text)
    return root


def make_metrics(folder: Path, size: int) -> None:
    make_run(folder / "run", size)


def resume_metrics(folder: Path, size: int) -> Act:
    from pinxit.train.metric_rows import rows_until
    from pinxit.train.metric_writers.json_lines import JsonLines

    path = folder / "run" / "metrics.jsonl"

    def act() -> Extras:
        rows = rows_until(path, 10 * size)
        JsonLines(path, resume_at=10 * size).write(10 * size + 10, {"loss": 1.0})
        return record(rows=len(rows))

    return act


def write_pages(folder: Path, size: int) -> Act:
    """Writes the page of a run after every 50 rows, as a run does that draws grids."""
    from pinxit.train.report.page import RunPage
    from pinxit.train.run_folder import RunFolder

    root = make_run(folder / "run", 0)
    (root / "config.json").write_text('{"name": "run", "max_steps": 1000000, "batch_size": 16}')

    def act() -> Extras:
        (root / "metrics.jsonl").write_text("")
        page = RunPage(RunFolder(root))
        with (root / "metrics.jsonl").open("a") as file:
            for number, row in enumerate(rows_of(size), start=1):
                file.write(json.dumps(row) + "\n")
                if number % 50 == 0:
                    file.flush()
                    page.write()
        return record(pages=size // 50)

    return act


def make_grids(folder: Path, size: int) -> None:
    from PIL import Image

    root = make_run(folder / "run", 10)
    (root / "samples").mkdir()
    picture = Image.effect_noise((256, 128), 60).convert("RGB")
    for number in range(size):
        picture.putpixel((0, 0), (number % 256, number // 256, 0))
        picture.save(root / "samples" / f"step_{number:08d}.png")


def write_grids(folder: Path, size: int) -> Act:
    """Writes the page after each of the run's grids."""
    from pinxit.train.report.page import RunPage
    from pinxit.train.run_folder import RunFolder

    root = folder / "run"
    names = sorted(os.listdir(root / "samples"))
    shutil.rmtree(folder / "all", ignore_errors=True)
    (root / "samples").rename(folder / "all")

    def act() -> Extras:
        (root / "samples").mkdir()
        page = RunPage(RunFolder(root))
        for name in names:
            os.link(folder / "all" / name, root / "samples" / name)
            page.write()
        return record(pages=len(names))

    return act


def studio_run(folder: Path, size: int) -> Act:
    """Opens the page of a run in the studio, and zooms into a curve."""
    from pinxit.serve.runs.followed_run import FollowedRun
    from pinxit.train.report.run_state import RunState
    from pinxit.train.run_folder import RunFolder

    def act() -> Extras:
        state = lambda folder, latest: RunState("running", "running")  # noqa: E731
        run = FollowedRun(RunFolder(folder / "run"), state, str)
        view = run.view()
        run.curves(0, 1000)
        return record(points=len(view["axis"]["step"]))

    return act


def make_runs(folder: Path, size: int) -> None:
    for number in range(size):
        make_run(folder / f"run-{number:05d}", 20)


def list_runs(folder: Path, size: int) -> Act:
    """Lists the runs, then looks at each of them, as a page with all their pictures does."""
    from pinxit.serve.runs.run_listing import RunListing
    from pinxit.serve.runs.trainings import Trainings

    listing = RunListing(folder, Trainings(folder, 1))
    os.utime(folder, (1, 1))

    def act() -> Extras:
        names = [entry["name"] for entry in listing.summaries()]
        for name in names:
            listing.find(name)
        return record(runs=len(names))

    return act


def start_run(folder: Path, size: int) -> Act:
    """Claims the folder of a new run beside others."""
    from pinxit.config import replace
    from pinxit.recipes import RECIPES
    from pinxit.train.run_folder import claim

    def act() -> None:
        config = replace(RECIPES["mock"](), {"name": "new", "output_dir": str(folder)}).resolved()
        claim(config)

    return act


def make_gallery(folder: Path, size: int) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("pinxit", json.dumps({"prompt": "a house", "seed": 1}))
    picture = Image.new("RGB", (16, 16))
    for number in range(size):
        picture.save(folder / f"{number:05d}-1-a-house.png", pnginfo=info)


def page_gallery(folder: Path, size: int) -> Act:
    """Opens the gallery and pages to its end, with the file of each picture."""
    from pinxit.serve.gallery.folder import Gallery

    os.utime(folder, (1, 1))

    def act() -> Extras:
        gallery, before, count = Gallery(folder), None, 0
        while True:
            entries, more = gallery.page(60, before=before)
            for entry in entries:
                gallery.description(gallery.entry(entry.name))
            count += len(entries)
            if not more:
                return record(pictures=count)
            before = entries[-1].name

    return act


def save_gallery(folder: Path, size: int) -> Act:
    """Stores 100 pictures in a gallery that has some."""
    from PIL import Image

    from pinxit.picture_files import save_picture

    recipe = {"prompt": "a house", "negative_prompt": "", "size": [16, 16], "model": "tiny",
              "model_hash": "0", "version": "0", "steps": 4, "guidance_scale": 2.0,
              "solver": "euler"}  # fmt: skip

    def act() -> None:
        for seed in range(100):
            save_picture(folder, Image.new("RGB", (16, 16)), {**recipe, "seed": seed})

    return act


def make_checkpoints(folder: Path, size: int) -> None:
    for number in range(size):
        checkpoint = folder / f"step_{number:08d}"
        checkpoint.mkdir()
        (checkpoint / "run.json").write_text('{"permanent": true}')


def prune_checkpoints(folder: Path, size: int) -> Act:
    from pinxit.train.checkpoint import Checkpoints

    def act() -> Extras:
        checkpoints = Checkpoints(folder, keep=2)
        for _ in range(10):
            checkpoints._prune()
        return record(kept=len(checkpoints.steps()))

    return act


def compare_models(folder: Path, size: int) -> Act:
    """Compares copies of the shipped model, in a process of its own."""
    from pinxit.cli.main import main
    from pinxit.stored_model import SHIPPED

    root = Path(tempfile.mkdtemp(prefix="pinxit-growth-"))
    models = [root / f"model-{number:02d}" for number in range(size)]
    for model in models:
        shutil.copytree(SHIPPED, model)
    words = ["--prompts", "16", "--images", "16", "--steps", "4", "--out", str(root / "out")]
    words += ["--evaluators", "validation_loss", "prompt_accuracy"]

    def act() -> None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                code = main(["compare", *map(str, models), *words])
        finally:
            shutil.rmtree(root)
        if code:
            raise SystemExit(f"pinxit compare ended with {code}")

    return act


RUNS = (
    Axis("metrics: rows of a run, resumed", "runs", doubling(2_000, 32_000), resume_metrics,
         make_metrics),
    Axis("metrics: all pages of a run", "runs", doubling(2_000, 32_000), write_pages, repeats=1,
         because="a page grows with its curves up to 2,000 values; later pages cost the same"),
    Axis("grids: all pages of a run", "runs", doubling(16, 256), write_grids, make_grids,
         repeats=1),
    Axis("studio: rows of an open run", "runs", doubling(2_000, 32_000), studio_run, make_metrics),
    Axis("studio: runs, listed and opened", "runs", doubling(32, 1_024), list_runs, make_runs),
    Axis("train: a run beside others", "runs", doubling(32, 1_024), start_run, make_runs),
    Axis("gallery: pages to the end", "runs", doubling(1_000, 16_000), page_gallery, make_gallery),
    Axis("gallery: 100 pictures more", "runs", doubling(1_000, 16_000), save_gallery,
         make_gallery, repeats=1),
    Axis("checkpoints kept, at ten saves", "runs", doubling(32, 512), prune_checkpoints,
         make_checkpoints),
    Axis("compare: models", "processes", doubling(2, 16), compare_models, repeats=1),
)  # fmt: skip
