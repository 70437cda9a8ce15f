"""What `auto` chooses: by the memory of a device that is pretended, and nothing on CPUs."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from pinxit.cli.arguments import parse
from pinxit.config import UsageError
from pinxit.config import replace as changed
from pinxit.train import auto_settings
from pinxit.train.auto_settings import (
    abstract_parts,
    choose_settings,
    needs_with,
    open_settings,
    setting_candidates,
    settled,
)
from pinxit.train.run import run
from pinxit.train.run_folder import folder_of, saved_config
from pinxit.train.settings import (
    AUTO,
    EvalConfig,
    ModelConfig,
    SampleGridConfig,
    Sampling,
    TrainConfig,
    config_from_json,
)
from pinxit.train.step_memory import step_estimate

MODEL = ModelConfig(preset="small", hidden_size=32, depth=4, num_heads=2)
"""A network that is chosen for like a large one, but is small."""


def settings(bundle: Path, **changes: Any) -> TrainConfig:
    base = TrainConfig(
        name="chosen", dataset_name="mock", dataset_size=32, image_size=32, batch_size=32,
        max_steps=2, text_encoder=str(bundle), vae=str(bundle), model=MODEL,
        sampling=Sampling(steps=1), samples=SampleGridConfig(prompts=("red",), seeds=(0,)),
        evaluation=EvalConfig(prompts=0, images=0),
    )  # fmt: skip
    return replace(base, **changes).resolved()


def limits(config: TrainConfig) -> list[tuple[int, dict[str, Any]]]:
    """Returns the estimate of each candidate, in their order."""
    parts = abstract_parts(config)
    estimate = step_estimate(config, parts)
    return [
        (needs_with(each, config, estimate), each) for each in setting_candidates(config, parts)
    ]


def room_for(needs: int) -> int:
    return int(needs / (1 - auto_settings.MARGIN)) + 1


def test_the_fastest_that_fits_is_chosen_and_said(bundle: Path):
    config = settings(bundle)
    parts, tried = abstract_parts(config), limits(config)
    assert [each["model.remat"] for _, each in tried] == ["none", "dots", "full"]
    assert [each["model.scan_blocks"] for _, each in tried] == [False, False, True]
    needs = [size for size, _ in tried]
    assert needs == sorted(needs, reverse=True) and len(set(needs)) == 3
    for size, each in tried:
        choice = choose_settings(config, parts, memory=room_for(size))
        assert (choice.settings, choice.needs, choice.fits) == (each, size, True)
        assert choice.line.startswith(f"remat {each['model.remat']}, scan_blocks ")
        assert ("remat none" in choice.line.partition(";")[2]) is (each["model.remat"] != "none")
    choice = choose_settings(config, parts, memory=needs[-1] // 2)
    assert choice.settings == tried[-1][1] and not choice.fits
    assert choice.line.startswith("warning: remat full, scan_blocks 1: needs about 0.0 of 0.0 GiB")


def test_pieces_come_before_recomputing_while_they_keep_the_device_busy(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    config = settings(bundle, gradient_accumulation_steps=0)
    parts = abstract_parts(config)
    side = 32 // parts.autoencoder.stats.downsample // parts.model.patch_size
    monkeypatch.setattr(auto_settings, "BUSY", 8 * side**2)
    devices = parts.mesh.size
    monkeypatch.setattr(auto_settings, "batch_parts", lambda mesh: 1)
    order = [(each["model.remat"], each["gradient_accumulation_steps"])
             for each in setting_candidates(config, parts)]  # fmt: skip
    assert order[:3] == [("none", 1), ("none", 2), ("none", 4)], devices
    assert order[3:6] == [("dots", 1), ("dots", 2), ("dots", 4)]
    assert order[6:] == [("full", n) for n in (1, 2, 4, 8, 16, 32)]


def test_processes_whose_devices_differ_by_some_bytes_choose_alike(bundle: Path):
    config = settings(bundle)
    parts = abstract_parts(config)
    one, two = (choose_settings(config, parts, memory=2**34 + more) for more in (3, 5 * 2**26))
    assert one == two and one.limit == 2**34


def test_explicit_values_stay(bundle: Path):
    config = settings(bundle, model=replace(MODEL, remat="dots", scan_blocks=True))
    assert open_settings(config) == ()
    assert choose_settings(config, abstract_parts(config), memory=1).settings == {}
    config = settings(bundle, model=replace(MODEL, remat="none"))
    choice = choose_settings(config, abstract_parts(config), memory=1)
    assert choice.settings == {"model.scan_blocks": False}, "none stays, though it does not fit"
    assert not choice.fits


def test_none_is_a_policy_and_auto_is_not_set():
    assert parse(TrainConfig, ["--model.remat", "none"]).model.remat == "none"
    assert parse(TrainConfig, []).model.remat == AUTO
    assert parse(TrainConfig, ["--model.scan_blocks", "auto"]).model.scan_blocks == AUTO
    assert parse(TrainConfig, ["--model.scan_blocks", "0"]).model.scan_blocks is False
    with pytest.raises(UsageError, match="valid: auto, none, dots, full, offload"):
        parse(TrainConfig, ["--model.remat", "some"])
    old = config_from_json({"model": {"preset": "tiny", "remat": None, "scan_blocks": None}})
    assert (old.model.remat, old.model.scan_blocks) == (AUTO, AUTO), "null in older files"


@pytest.mark.parametrize("preset", ["debug", "tiny"])
def test_small_presets_and_cpus_keep_the_presets_values(
    bundle: Path, preset: str, monkeypatch: pytest.MonkeyPatch
):
    def never(*_: Any) -> int:
        raise AssertionError("nothing is estimated")

    monkeypatch.setattr(auto_settings, "step_estimate", never)
    own = {"model.remat": "none", "model.scan_blocks": preset != "tiny"}
    small = settings(bundle, model=ModelConfig(preset=preset))
    assert choose_settings(small, abstract_parts(small), memory=2**20).settings == own
    large = settings(bundle)
    said: list[str] = []
    chosen, parts, _ = settled(large, abstract_parts(large), say=said.append)
    assert (parts.model.remat, parts.model.scan_blocks) == ("none", False) and not said
    assert (chosen.model.remat, chosen.model.scan_blocks) == ("none", False)


@pytest.mark.parametrize(
    ("changes", "scanned"),
    [
        ({}, False),
        ({"model.remat": "full"}, True),
        ({"model.preset": "debug"}, True),
        ({"model.patch_size": 1}, False),
        ({"image_size": 64, "model.patch_size": 1}, True),
        ({"model.preset": "debug", "use_amp": True}, False),
        ({"use_amp": True, "model.remat": "dots"}, True),
    ],
)
def test_a_cpu_unrolls_blocks_unless_they_are_recomputed_or_minute_or_have_many_tokens(
    bundle: Path, changes: dict[str, Any], scanned: bool
):
    config = changed(settings(bundle), changes)
    chosen, parts, _ = settled(config, abstract_parts(config))
    assert chosen.model.scan_blocks is parts.model.scan_blocks is scanned
    explicit = changed(config, {"model.scan_blocks": True})
    assert settled(explicit, abstract_parts(explicit))[1].model.scan_blocks


@pytest.mark.slow
def test_a_resumed_run_chooses_again(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run on a device with little memory continues on one with plenty, and the reverse."""
    config = settings(bundle, output_dir=str(tmp_path))
    sizes = {each["model.remat"]: room_for(size) for size, each in limits(config)}

    def trained(steps: int, remat: str) -> str:
        monkeypatch.setattr(auto_settings, "device_memory", lambda devices: sizes[remat])
        out = io.StringIO()
        result = run(replace(config, max_steps=steps), ["x"], console=Console(file=out, width=200))
        assert result.status == "finished", out.getvalue()
        saved = saved_config(folder_of(config))
        assert (saved.model.remat, saved.model.scan_blocks) == (remat, remat == "full")
        about = json.loads((tmp_path / "chosen" / "environment.json").read_text())["automatic"]
        assert about["settings"]["model.remat"] == remat
        assert about["needs_bytes"] < about["limit_bytes"] == sizes[remat]
        return out.getvalue()

    assert "remat full, scan_blocks 1: needs about" in trained(2, "full")
    said = trained(3, "none")
    assert "remat none, scan_blocks 0: needs about" in said and "resuming after step 2" in said


def test_the_state_does_not_depend_on_the_choice(bundle: Path):
    """The same parameters, bit for bit, begin a run whatever is chosen."""
    from pinxit.train.build import build_state

    config = settings(bundle)
    states = []
    for _, each in limits(config):
        changed = auto_settings.configuration.replace(config, each)
        parts = auto_settings.with_model_of(changed, abstract_parts(config))
        states.append(build_state(changed, parts))
    first, *others = states
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first.params, other.params)
        assert jax.tree.structure(first) == jax.tree.structure(other)
