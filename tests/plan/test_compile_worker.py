"""What the compilers say, understood; results kept; failures told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from pinxit.config import UsageError
from pinxit.plan import compile_cache as compiling
from pinxit.plan.compile_cache import compile_step, key_of
from pinxit.plan.compile_worker import compiled, overfull
from pinxit.recipes import mock
from pinxit.train.settings import ModelConfig

TEMPORARIES = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(22.65G) exceeds available HBM (15.48G)"
)
USED = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 29.40G of 15.48G hbm. Exceeded hbm capacity by 13.92G."
)


@pytest.mark.parametrize(("message", "needed"), [(TEMPORARIES, 22.65), (USED, 29.40)])
def test_how_much_too_much(message: str, needed: float):
    found = overfull(message)
    assert found["needed"] == pytest.approx(needed * 2**30)
    assert found["available"] == pytest.approx(15.48 * 2**30)


def test_other_failures_are_told():
    with pytest.raises(ValueError, match="the compiler failed: INTERNAL: what"):
        overfull("INTERNAL: what")
    with pytest.raises(ValueError, match="not understood"):
        overfull("RESOURCE_EXHAUSTED: of something else")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PINXIT_PLANS", str(tmp_path / "plans"))
    return tmp_path / "plans"


def test_the_key_depends_on_what_shapes_the_step():
    config = mock().resolved()
    base = key_of(config, "tpu-v3-8", "libtpu 1")
    same = [replace(config, name="x", max_steps=7, output_dir="y", seed=3, log_interval=1)]
    other = [
        replace(config, batch_size=16),
        replace(config, model=ModelConfig(preset="debug", remat="full")),
        replace(config, image_size=64),
    ]
    assert all(key_of(one, "tpu-v3-8", "libtpu 1") == base for one in same)
    keys = [key_of(one, "tpu-v3-8", "libtpu 1") for one in other]
    keys += [key_of(config, "tpu-v3-32", "libtpu 1"), key_of(config, "tpu-v3-8", "libtpu 2")]
    assert len({base, *keys}) == 6


def test_the_key_depends_on_the_encoders_that_are_there(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        shutil.copytree(bundle, place / "encoders")
    config = replace(mock(), text_encoder="encoders", vae="encoders").resolved()

    def key(place: Path) -> str:
        monkeypatch.chdir(place)
        return key_of(config, "tpu-v3-8", "libtpu 1")

    base = key(places[0])
    assert key(places[1]) == base  # the same path, and the same contents
    changes = (("text_encoder", "num_hidden_layers", 2), ("vae", "layers_per_block", 2))
    for name, field, value in changes:
        path = places[1] / "encoders" / name / "config.json"
        before = path.read_text()
        path.write_text(json.dumps(json.loads(before) | {field: value}))
        assert key(places[1]) != base, name
        path.write_text(before)
    assert key(places[1]) == base


def test_a_plan_for_here_is_for_the_devices_that_are_here(monkeypatch: pytest.MonkeyPatch):
    config, found = mock().resolved(), set()
    for flags in ("", "--xla_force_host_platform_device_count=8"):
        monkeypatch.setenv("XLA_FLAGS", flags)
        found |= {key_of(config, "here", "x"), key_of(config, "tpu-v3-8", "x")}
    assert len(found) == 3


def test_what_was_compiled_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch):
    runs = []

    def run(job: Path, result: Path, log: Path, env: dict, *, what: str, on_progress) -> None:
        runs.append(json.loads(job.read_text()))
        result.write_text(json.dumps({"fits": True, "memory": {"peak": 5}}))

    monkeypatch.setattr(compiling, "_run", run)
    config = mock().resolved()
    first, second = compile_step(config, "here"), compile_step(config, "here")
    assert (first.cached, second.cached, len(runs)) == (False, True, 1)
    assert first.peak == second.peak == 5
    assert runs[0]["target"] == "here"
    assert list(cache.glob("*.job")) == []


def test_damaged_results_are_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch):
    runs = []

    def run(job: Path, result: Path, log: Path, env: dict, *, what: str, on_progress) -> None:
        runs.append(job)
        result.write_text(json.dumps({"fits": True, "memory": {"peak": 5}}))

    monkeypatch.setattr(compiling, "_run", run)
    config = mock().resolved()
    compile_step(config, "here")
    (stored,) = cache.glob("*.json")
    for text in ("", '{"fits": tr', "[]", "{}"):
        stored.write_text(text)
        assert compile_step(config, "here").peak == 5
    assert len(runs) == 5


def test_damaged_programs_are_compiled_again(tmp_path: Path):
    lowered = jax.jit(lambda x: x + 1).lower(1.0)
    facts, text = compiled(lowered, tmp_path, about="", platform="cpu")
    names = sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        for damage in (b"", (tmp_path / name).read_bytes()[:-9]):
            (tmp_path / name).write_bytes(damage)
            again, other = compiled(lowered, tmp_path, about="", platform="cpu")
            assert (again["fits"], again["memory"], other) == (True, facts["memory"], text)
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_worker_that_fails_is_told_by_its_last_words(cache: Path):
    config = replace(mock(), vae="nobody/knows").resolved()
    with pytest.raises(UsageError, match=r"^vae: 'nobody/knows' is neither a known name nor a dir"):
        compile_step(config, "here")
    with pytest.raises(UsageError, match="target"):
        compile_step(config, "nowhere")
