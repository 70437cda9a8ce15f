"""The watch over a run: what it says of rows that were made up, and of good ones nothing."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.flow.objective import FlowMatching
from pinxit.train.settings import OptimizerConfig, Sampling, TrainConfig
from pinxit.train.watch.data_advice import before_training, faster_data
from pinxit.train.watch.run_health import Finding, RunWatch

CONFIG = TrainConfig(max_steps=10_000)


def rows(losses: Iterable[float | None], **more: Callable[[int], Any]) -> list[dict[str, Any]]:
    """A row every 20 steps; `more` gives other figures by the row's number."""
    return [
        {"step": 20 * (i + 1), "loss": loss} | {name: value(i) for name, value in more.items()}
        for i, loss in enumerate(losses)
    ]


def said(
    rows: Iterable[dict[str, Any]], config: TrainConfig = CONFIG, **more: Any
) -> list[Finding]:
    watch = RunWatch(config, **more)
    return [finding for row in rows for finding in watch.observe(row["step"], row)]


def learning(count: int, *, noise: float = 0.02, seed: int = 0, floor: float = 0.4) -> list[float]:
    """A loss that falls from 2 to `floor`, with the noise of small batches."""
    rng = np.random.default_rng(seed)
    clean = floor + (2 - floor) * np.exp(-np.arange(count) / 25)
    return [float(x) for x in clean * (1 + noise * rng.normal(size=count))]


# --- the loss ---------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.003, 0.02, 0.08, 0.2])
def test_good_runs_are_left_in_peace(noise: float):
    for seed in range(4):
        losses = learning(250, noise=noise, seed=seed)
        assert said(rows(losses, loss_of_zero=lambda i: 2.0)) == []
        assert said(rows(losses)) == []


def test_a_loss_that_rises_is_told_once_an_episode():
    losses = learning(100) + [0.4 + 0.03 * i for i in range(20)] + learning(120)[80:]
    losses += [1.5] * 8
    found = said(rows(losses, loss_of_zero=lambda i: 2.0))
    assert [f.kind for f in found] == ["loss_rises", "loss_rises"]
    first = found[0]
    assert 20 * 100 < first.step <= 20 * 116, "within the rise, not at its end"
    assert "up from 0.4" in first.text and "2" in first.text
    assert "--name scenes_2 --optimizer.learning_rate 0.0005" in first.advice, "no checkpoints"
    back = said(rows(losses, loss_of_zero=lambda i: 2.0), steps=lambda: [500, 1500, 2000, 2150])
    words = "--resume_step 1500 --change 1 --optimizer.learning_rate 0.0005"
    assert "around step 1980" in first.text and words in back[0].advice, "before the rise"


def test_a_slow_rise_of_a_quiet_loss_is_told():
    losses = [0.8 + 1.2 * math.exp(-i / 20) for i in range(150)]
    losses += [0.8 + 0.002 * i for i in range(200)]
    found = said(rows(losses, loss_of_zero=lambda i: 2.0))
    assert [f.kind for f in found] == ["loss_rises"]


def test_an_explosion_is_told_at_once_and_names_half_precision():
    found = said(rows([*learning(60), 50.0]), dtype="float16")
    assert [f.step for f in found] == [20 * 61]
    assert "float16" in found[0].advice and "--use_amp 0" in found[0].advice


def test_a_model_that_learns_nothing():
    stuck = rows([1.98] * 40, loss_of_zero=lambda i: 2.0)
    found = said(stuck)
    assert [f.kind for f in found] == ["nothing_learned"] and found[0].step == 300
    assert "1.98" in found[0].text and "predicts zero has 2" in found[0].text
    assert said(rows([1.7] * 40, loss_of_zero=lambda i: 2.0)) == []


def test_rows_without_a_finite_step_do_not_count():
    losses: list[float | None] = [*learning(60), None, None, *learning(70)[60:], None]
    assert said(rows(losses)) == []


# --- the gradient -----------------------------------------------------------------------------


def test_gradients_that_explode():
    rng = np.random.default_rng(0)
    norms = np.exp(rng.normal(0, 0.3, 200))
    assert said(rows(learning(200), grad_norm=lambda i: float(norms[i]))) == []
    norms[100:103] = 80.0
    norms[150] = 300.0
    found = said(rows(learning(200), grad_norm=lambda i: float(norms[i])))
    assert [(f.kind, f.step) for f in found] == [("gradient", 2020), ("gradient", 3020)]
    assert "80" in found[0].text and "clipped to 1" in found[0].advice
    free = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(clip_norm=None))
    found = said(rows(learning(200), grad_norm=lambda i: float(norms[i])), free)
    assert "--optimizer.clip_norm 1" in found[0].advice


# --- data -------------------------------------------------------------------------------------

STREAMED = dataclasses.replace(
    CONFIG, dataset_name="coyo", batch_size=64, fetch=FetchConfig(concurrency=128)
)


def waiting(count: int, *, seconds: float, alone: float, **more: Any) -> list[dict[str, Any]]:
    """Rows of a step that takes `alone` by itself, and `seconds` with its data."""
    return [
        {
            "step": 20 * (i + 1),
            "loss": 1.0,
            "seconds_per_step": seconds,
            "step_seconds": alone,
            "images_per_second": 64 / seconds,
            "data_wait_share": 1 - alone / seconds,
            **more,
        }
        for i in range(count)
    ]


def test_a_starved_step_is_named_with_figures_and_advice():
    found = said(waiting(20, seconds=1.0, alone=0.4, alive_share=0.5), STREAMED)
    assert [f.kind for f in found] == ["data_wait"] and found[0].step > 60, "not in the first rows"
    text, advice = found[0].text, found[0].advice
    assert "60%" in text and "receives 64 images/s" in text and "could process 160" in text
    assert "--fetch.concurrency 256" in advice and "pinxit prepare coyo" in advice
    assert "50% of the attempted rows yield an image" in advice


def test_data_that_keep_up_with_the_device_are_no_starving():
    """The host waits for data most of the time, and the device hardly at all."""
    balanced = [row | {"data_wait_share": 0.9} for row in waiting(40, seconds=1.0, alone=0.95)]
    assert said(balanced, STREAMED) == []


def test_a_second_episode_after_a_good_stretch():
    slow, good = waiting(10, seconds=1.0, alone=0.4), waiting(10, seconds=0.4, alone=0.4)
    mixed = [row | {"step": 20 * (i + 1)} for i, row in enumerate(slow + good + slow)]
    assert [f.kind for f in said(mixed, STREAMED)] == ["data_wait", "data_wait"]


def test_short_runs_say_nothing_of_waiting():
    assert said(waiting(20, seconds=0.01, alone=0.001), STREAMED) == []


def test_advice_fits_the_kind_of_data():
    prepared = dataclasses.replace(CONFIG, dataset_name="prepared", dataset_path="/data/x")
    assert "/data/x" in faster_data(prepared, {}) and "local disk" in faster_data(prepared, {})
    assert "in memory" in faster_data(CONFIG, {})
    folder = dataclasses.replace(CONFIG, dataset_name="folder", dataset_path="p")
    assert "pinxit prepare folder --dataset_path p" in faster_data(folder, {})


# --- half precision ---------------------------------------------------------------------------


def test_a_collapsing_loss_scale():
    scale = lambda i: 2.0**15 / 2 ** min(i, 12)  # noqa: E731
    found = said(rows(learning(60), loss_scale=scale, skipped=lambda i: 0), dtype="float16")
    assert [f.kind for f in found] == ["loss_scale"] and "to 64" in found[0].text
    healthy = lambda i: 2.0 ** (15 + i % 5)  # noqa: E731
    assert said(rows(learning(60), loss_scale=healthy), dtype="float16") == []


def test_skipped_steps():
    found = said(rows(learning(60), skipped=lambda i: 5 * max(0, i - 20)), dtype="float16")
    assert [f.kind for f in found] == ["skipped"] and "--use_amp 0" in found[0].advice
    assert said(rows(learning(60), skipped=lambda i: i // 20), dtype="float16") == []
    assert said(rows(learning(60), skipped=lambda i: min(i, 4)), dtype="float16") == [], "at first"


# --- text -------------------------------------------------------------------------------------


def probe(step: int, gain: float, error: float, changed: float = 1.0) -> dict[str, Any]:
    return {
        "step": step,
        "conditioning/loss": 0.5 * (1 - gain),
        "conditioning/loss_shuffled": 0.5,
        "conditioning/gain": gain,
        "conditioning/gain_error": error,
        "conditioning/changed": changed,
    }


def test_text_that_does_nothing():
    assert said([probe(500, 0.0, 0.0)]) == [], "too early to tell"
    found = said([probe(2000, 0.0002, 0.0003), probe(3000, 0.0, 0.0), probe(4000, 0.02, 0.001)])
    assert [f.kind for f in found] == ["text_unused"] and "0.02%" in found[0].text
    assert said([probe(2000, 0.004, 0.0005)]) == []
    assert said([probe(2000, 0.0, 0.004)]) == [], "too few rows to tell"
    same = said([probe(2000, 0.0, 0.0, changed=0.0)])
    assert "the same text in 100% of the rows" in same[0].advice
    dropped = dataclasses.replace(CONFIG, objective=FlowMatching(caption_dropout=1.0))
    assert "caption_dropout is 1" in said([probe(2000, 0.0, 0.0)], dropped)[0].advice


def test_settings_that_forbid_text():
    assert before_training(CONFIG) == []
    dropped = dataclasses.replace(CONFIG, objective=FlowMatching(caption_dropout=1.0))
    assert "caption_dropout is 1" in before_training(dropped)[0]
    never = dataclasses.replace(CONFIG, objective=FlowMatching(caption_dropout=0.0))
    assert "caption_dropout is 0" in before_training(never)[0]
    burning = dataclasses.replace(CONFIG, sampling=Sampling(guidance_scale=40.0))
    assert "sampling.guidance_scale is 40" in before_training(burning)[0]


# --- the page ---


def test_the_page_on_trouble_knows_every_message():
    page = " ".join((Path(__file__).parents[3] / "docs" / "trouble.md").read_text().split())
    scale = lambda i: 2.0**15 / 2 ** min(i, 12)  # noqa: E731
    found = said(rows([*learning(60), 50.0]))
    found += said(rows([1.98] * 40, loss_of_zero=lambda i: 2.0))
    found += said(rows(learning(60), grad_norm=lambda i: 90.0 if i == 40 else 1.0))
    found += said(waiting(20, seconds=1.0, alone=0.4), STREAMED)
    found += said(rows(learning(60), loss_scale=scale), dtype="float16")
    found += said([probe(2000, 0.0, 0.0)])
    begins = {finding.kind: re.split(r":| \d", finding.text)[0] for finding in found}
    assert begins.keys() == {
        *("loss_rises", "nothing_learned", "gradient", "data_wait", "loss_scale", "text_unused")
    }
    for kind, words in begins.items():
        assert words.lower() in page.lower(), (kind, words)


# --- resuming ---------------------------------------------------------------------------------


def test_a_resumed_watch_says_what_an_uninterrupted_one_says():
    losses = learning(100) + [1.0] * 10 + learning(130)[100:] + [1.6] * 6
    whole = rows(losses, loss_of_zero=lambda i: 2.0, grad_norm=lambda i: 90.0 if i == 80 else 1.0)
    expected = said(whole)
    assert [f.kind for f in expected] == ["gradient", "loss_rises", "loss_rises"]
    for cut in (50, 81, 103, 104, 130):
        first = RunWatch(CONFIG)
        kept = [row | first.note(row["step"], row, lambda line: None) for row in whole[:cut]]
        second = RunWatch(CONFIG, before=kept)
        for row in whole[cut:]:
            second.observe(row["step"], row)
        assert second.findings == expected, cut
