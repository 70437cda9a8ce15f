"""What the terminal shows, and settings that no run can have."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pinxit.contact_sheet import contact_sheet
from pinxit.train.display import Display
from pinxit.train.settings import EvalConfig, ModelConfig, SampleGridConfig, Sampling, TrainConfig

ROW = {
    "loss": 0.5,
    "images_per_second": 120.0,
    "seconds_per_step": 0.5,
    "data_wait_share": 0.01,
    "memory_gb": 1.5,
    "skipped": 2,
}


def shown(*, terminal: bool) -> str:
    """What a short run leaves on the screen."""
    said = io.StringIO()
    console = Console(file=said, force_terminal=terminal, width=160)
    display = Display("demo", max_steps=100, console=console)
    with display.live():
        for step in range(1, 41):
            display.on_step(step)
        display.on_row(40, ROW)
        display.say("samples: [drawn]")
        assert list(display.track([1, 2], "encoding 32 images", 2)) == [1, 2]
    return said.getvalue()


def test_plain_lines():
    lines = shown(terminal=False).splitlines()
    assert lines[0].startswith(
        "step 40/100  loss 0.5000  images/s 120.0  time left 30s  data wait 1.0%"
    )
    assert "skipped 2" in lines[0] and lines[1] == "samples: [drawn]"
    assert lines[2:] == ["encoding 32 images", "encoding 32 images: done in 0s"]


def test_live_panel():
    text = shown(terminal=True)
    for part in ("pinxit train: demo", "40/100", "0.5000", "30s", "1.50 GB", "samples: [drawn]"):
        assert part in text


def red_box(sheet: Image.Image) -> tuple[int, int, int, int] | None:
    """Returns the box around the sheet's red pixels."""
    mask = (np.asarray(sheet) == (255, 0, 0)).all(-1)
    return Image.fromarray(mask).getbbox()


def test_contact_sheet_keeps_pixels():
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    columns = {"raw": [[red], [blue, blue]], "ema": [[blue], [blue, blue]]}
    sheet = contact_sheet(["a prompt", "x" * 200], columns, title="run, step 10")
    left, top, right, bottom = red_box(sheet)
    assert (right - left, bottom - top) == (128, 128)
    assert (np.asarray(sheet)[top:bottom, left:right] == (255, 0, 0)).all()
    assert (np.asarray(sheet) == (0, 0, 255)).all(-1).sum() == 5 * 128 * 128


def test_contact_sheet_keeps_shapes():
    wide = Image.new("RGB", (32, 16), "red")
    left, top, right, bottom = red_box(contact_sheet(["a prompt"], {"raw": [[wide]]}))
    assert (right - left, bottom - top) == (128, 64)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: TrainConfig(batch_size=-4), "batch_size.*-4.*at least 1"),
        (lambda: TrainConfig(max_steps=0), "max_steps.*0.*at least 1"),
        (lambda: TrainConfig(dataset_name="cats"), "dataset_name.*'cats'.*scenes, mock"),
        (lambda: TrainConfig(batch_size=8, gradient_accumulation_steps=3), "divisors of 8"),
        (lambda: TrainConfig(name="../up"), "name"),
        (lambda: ModelConfig(patch_size=0), r"model\.patch_size"),
        (lambda: Sampling(solver="eular"), "solver.*euler"),
        (lambda: Sampling(steps=0), "steps: 0 is too small"),
        (lambda: SampleGridConfig(prompts=()), r"samples\.prompts"),
        (lambda: SampleGridConfig(seeds=(-1,)), r"samples\.seeds: -1 is out of range"),
        (lambda: SampleGridConfig(size=(16, 8, 4)), r"samples\.size.*not a size; valid: one side"),
        (lambda: SampleGridConfig(size=(0,)), r"samples\.size.*not a size"),
        (lambda: EvalConfig(images=5), r"evaluation\.images"),
    ],
)
def test_impossible_settings_are_named(build, says: str):
    with pytest.raises(ValueError, match=says):
        build()
