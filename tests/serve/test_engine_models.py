"""The models of the engine: their ids, loading on demand, and dropping the least recently used."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from toy_pipeline import toy_model

from pinxit.config import UsageError
from pinxit.serve.engine import models
from pinxit.serve.engine.engine import DrawingEngine
from pinxit.serve.engine.jobs import DrawRequest
from pinxit.serve.settings import StudioConfig

LONG = {"steps": 250}


class Loader:
    """Loads toys in place of checkpoints, and records the names of their folders."""

    def __init__(self):
        self.loaded: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, path, encoder_dtype):
        name = "shipped" if path is None else Path(path).name
        if name == "broken":
            raise UsageError("checkpoint", path, problem="damaged")
        if name == "slow":
            assert self.gate.wait(30)
        self.loaded.append(name)
        model = toy_model(steps=3, solver="euler")
        model.name = name
        return model


def release_in(folder: Path) -> Path:
    """Writes what marks a folder as a release."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def loader(monkeypatch):
    loader = Loader()
    monkeypatch.setattr(models, "load_checkpoint", loader)
    monkeypatch.setattr(models, "check_checkpoint", lambda path: None)
    return loader


@pytest.fixture
def engines(tmp_path, loader):
    started = []

    def start(*checkpoints, **options):
        config = StudioConfig(checkpoints=tuple(map(str, checkpoints)), runs=str(tmp_path / "runs"),
                              concurrency=1, **options)  # fmt: skip
        started.append(DrawingEngine(config))
        return started[-1]

    yield start
    for engine in started:
        engine.close()


def loaded(engine):
    return {entry.id for entry in engine.models() if entry.loaded}


def test_models_are_those_given_the_shipped_one_and_the_runs(tmp_path, engines):
    given = release_in(tmp_path / "mine" / "model")
    twin = release_in(tmp_path / "other" / "mine")
    checkpoint = tmp_path / "runs" / "first" / "checkpoints" / "step_00000004"
    checkpoint.mkdir(parents=True)
    release_in(tmp_path / "runs" / "mine" / "model")
    (tmp_path / "runs" / "empty").mkdir()
    os.symlink(given, tmp_path / "runs" / "outside")
    engine = engines(given, twin, checkpoint, "owner/name")
    assert [entry.id for entry in engine.models()] == [
        *("mine", "mine-2", "first-step_00000004", "owner/name", models.SHIPPED_ID),
        *("first", "mine-3"),
    ]
    release_in(tmp_path / "runs" / "later")
    assert engine.models()[-2].id == "later"


@pytest.mark.parametrize("name", ["../mine", "/etc", "", "runs/first", ".", "a\0b"])
def test_a_request_names_no_path(tmp_path, engines, name):
    release_in(tmp_path / "mine")
    engine = engines()
    with pytest.raises(UsageError, match=r"model: .* is unknown; valid: pinxit-scenes"):
        engine.submit(DrawRequest("a tree", model=name))


def test_the_least_recently_used_model_is_dropped(tmp_path, engines, loader):
    paths = [release_in(tmp_path / name) for name in ("one", "two", "three")]
    engine = engines(*paths, max_models=2)
    for name in ("one", "two", "one", "three"):
        job = engine.submit(DrawRequest("a tree", model=name)).wait(60)
        assert job.pictures[0].recipe["model"] == name
    assert loaded(engine) == {"one", "three"}
    assert loader.loaded == ["one", "two", "three"]


def test_a_model_waits_for_room_and_is_not_overtaken(tmp_path, engines):
    paths = [release_in(tmp_path / name) for name in ("one", "two")]
    engine = engines(*paths, max_models=1)
    first = engine.submit(DrawRequest("a tree", model="one", sampling=LONG, n=2))
    while first.state != "drawing":
        time.sleep(0.005)
    second = engine.submit(DrawRequest("a tree", model="two"))
    while not engine._models.waits_for_room:
        time.sleep(0.005)
    third = engine.submit(DrawRequest("a tree", model="one"))
    assert (second.position, third.position) == (1, 2)
    assert [job.wait(60).state for job in (first, second, third)] == ["done"] * 3
    assert first.ended < second.ended < third.ended


def test_others_are_drawn_while_a_model_loads(tmp_path, engines, loader):
    engine = engines(release_in(tmp_path / "one"), release_in(tmp_path / "slow"))
    engine.submit(DrawRequest("a tree")).wait(60)
    loader.gate.clear()
    slow = engine.submit(DrawRequest("a tree", model="slow"))
    assert engine.submit(DrawRequest("a tree")).wait(30).state == "done"
    cancelled = engine.submit(DrawRequest("a tree", model="slow"))
    cancelled.cancel()
    assert (slow.state, cancelled.state) == ("queued", "cancelled")
    loader.gate.set()
    assert slow.wait(30).state == "done"


def test_a_checkpoint_that_cannot_be_loaded_fails_its_requests_alone(tmp_path, engines):
    engine = engines(release_in(tmp_path / "one"), release_in(tmp_path / "broken"))
    broken = engine.submit(DrawRequest("a tree", model="broken"))
    assert engine.submit(DrawRequest("a tree")).wait(60).state == "done"
    assert broken.wait(30).state == "failed"
    assert "damaged" in str(broken.error)
    entry = next(entry for entry in engine.models() if entry.id == "broken")
    assert not entry.loaded and "damaged" in entry.problem


def test_a_run_is_drawn_with_its_newest_checkpoint(tmp_path, engines, loader):
    folder = tmp_path / "runs" / "first" / "checkpoints"
    (folder / "step_00000004").mkdir(parents=True)
    engine = engines()
    for _ in range(2):
        engine.submit(DrawRequest("a tree", model="first")).wait(60)
    assert loader.loaded.count("first") == 1
    (folder / "step_00000008").mkdir()
    engine.submit(DrawRequest("a tree", model="first")).wait(60)
    assert loader.loaded.count("first") == 2


def test_a_job_whose_model_refuses_it_fails_with_that_error(engines):
    job = engines().submit(DrawRequest("a tree", size=(17, 16)))
    assert isinstance(job.wait(30).error, UsageError)


def test_the_defaults_are_known_once_a_model_is_loaded(engines):
    engine = engines()
    assert engine.models()[0].defaults == {}
    engine.submit(DrawRequest("a tree")).wait(60)
    defaults = engine.models()[0].defaults
    assert (defaults["image_size"], defaults["unit"], defaults["max_tokens"]) == (16, 4, 4)
    assert defaults["sampling"]["steps"] == 3


def test_a_wrong_checkpoint_is_refused_at_the_start(tmp_path):
    with pytest.raises(UsageError, match=r"checkpoint: .*nothing.* is missing"):
        DrawingEngine(StudioConfig(checkpoints=(str(tmp_path / "nothing"),)))
