"""A run's report: what it opens with."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pinxit.train.report.page import summary, write_run_report

RESULTS = {
    "step": 1500,
    "images": 24_000,
    "train_seconds": 366.0,
    "parameters": 3_840_000,
    "ema": "ema_0.050",
    "validation": {"raw": 0.7, "ema_0.050": 0.6},
    "accuracy": {"prompts/accuracy/mean": 0.812, "prompts/ceiling/mean": 0.99},
    "evaluation": {
        "prompts/accuracy/mean": 0.812,
        "prompts/ceiling/mean": 0.99,
        "validation_loss/raw": 0.7,
        "validation_loss/ema_0.050": 0.6,
        "brightness/mean": 0.25,
    },
    "warnings": [{"text": "something was noticed"}],
}


def test_it_opens_with_pictures_then_figures_then_settings(tmp_path: Path):
    pictures = {name: tmp_path / f"{name}.png" for name in ("Sample grid", "Curves")}
    for path in pictures.values():
        Image.new("RGB", (8, 8), "red").save(path)
    write_run_report(
        tmp_path / "report.html",
        name="demo",
        results=RESULTS,
        config={"seed": 0},
        environment={"jax": "0"},
        command=["pinxit", "train"],
        pictures=pictures,
    )
    page = (tmp_path / "report.html").read_text()
    order = ["demo</h1>", "held-out prompt accuracy 0.812", "Sample grid</h2>", "Curves</h2>",
             "Warnings", "Held-out prompts", "Validation loss", "Command</h2>",
             "config.json"]  # fmt: skip
    places = [page.find(words) for words in order]
    assert -1 not in places and places == sorted(places)
    assert '<tr class="best"><td>ema_0.050</td><td>0.6000</td>' in page.replace("'", '"')
    assert "<h2>Brightness</h2>" in page and "<td>0.2500</td>" in page, "an added metric"


def test_the_summary_has_the_main_figures():
    text = summary(RESULTS)
    for words in ("1500 steps", "24000 images", "6.1 minutes of training", "3.84 M parameters",
                  "accuracy 0.812"):  # fmt: skip
        assert words in text


def test_the_lowest_loss_is_named_only_if_losses_were_measured():
    measured = {**RESULTS, "ema": "ema_0.050", "validation": {"raw": 0.7, "ema_0.050": 0.6}}
    assert "images from ema_0.050 (lowest validation loss)" in summary(measured)
    assert "images from ema_0.050." in summary({**measured, "validation": {}, "accuracy": {}})
