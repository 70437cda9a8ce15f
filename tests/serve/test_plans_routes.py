"""The routes of plans: from the cache at once, computed with progress, cancelled, refused."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_compiler
import httpx
import pytest
from studio import folders_in, running_studio

from pinxit.plan.targets import get_target
from pinxit.recipes import RECIPES
from pinxit.serve.plans.choices import target_names
from pinxit.serve.plans.queue import PlanQueue
from pinxit.serve.plans.result import compute_plan
from pinxit.serve.plans.settings import plan_request

TPU = {"recipe": "mock", "target": "tpu-v3-8", "settings": {"batch_size": 8}}


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """Changes that last for the module."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def plans(patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of plans, with a quick compiler."""
    return fake_compiler.install(patch, tmp_path_factory.mktemp("planner"))


@pytest.fixture(scope="module")
def client(plans: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a studio."""
    folders = folders_in(tmp_path_factory.mktemp("studio"))
    with (
        running_studio(**folders) as studio,
        httpx.Client(base_url=f"{studio.url}/studio", timeout=60) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def empty_cache(plans: Path) -> None:
    """Empties the cache before each test."""
    fake_compiler.clear(plans)


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Waits until the condition is true, and returns its value."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def ended(client: httpx.Client, id: str) -> dict[str, Any]:
    """Waits until a job has ended, and returns it."""

    def job() -> dict[str, Any] | None:
        job = client.get(f"/plans/{id}").json()
        return job if job["state"] not in ("waiting", "computing") else None

    return wait_for(job)


def test_a_plan_is_computed_once_and_then_there_at_once(client, plans):
    absent = client.post("/plans", json={**TPU, "compute": False}).json()
    assert absent["state"] == "absent" and not (plans / "started").exists()
    job = client.post("/plans", json={**TPU, "price": 2.5}).json()
    assert job["state"] in ("waiting", "computing")
    done = ended(client, job["id"])
    assert done["state"] == "done" and done["progress"]["programs"] == 1
    cached = client.post("/plans", json={**TPU, "price": 2.5, "compute": False}).json()
    assert cached["state"] == "done" and cached["result"] == {**done["result"], "cached": True}
    plan = cached["result"]
    assert plan["verdict"].startswith("It fits, and leaves") and plan["fits"]
    assert sum(plan["memory"]["parts"].values()) == plan["memory"]["peak"]
    assert plan["time"]["cost"][0] < plan["time"]["cost"][1] < plan["time"]["cost"][2]
    assert plan["plan_command"] == (
        "pinxit plan --recipe mock --target tpu-v3-8 --policies --price 2.5 --batch_size 8"
    )
    assert plan["train_command"] == "pinxit train --recipe mock --batch_size 8"


def test_the_largest_batch_of_each_policy_comes_with_its_curve(client):
    body = {**TPU, "policies": ["none", "full"], "settings": {"batch_size": 512}}
    plan = ended(client, client.post("/plans", json=body).json()["id"])["result"]
    assert not plan["fits"] and "largest batch that fits is" in plan["verdict"]
    none, full = plan["largest"]
    assert 0 < none["batch"] < full["batch"] and full["images_per_second"] > 0
    assert len(plan["peaks"]["full"]) > 2 and str(plan["batch_size"]) in plan["areas"]


def test_cancelling_ends_the_compiler(client, plans):
    (plans / "hold").touch()
    job = client.post("/plans", json=TPU).json()
    process = int(
        wait_for(lambda: (plans / "started").exists() and (plans / "started").read_text())
    )
    wait_for(lambda: client.get(f"/plans/{job['id']}").json()["progress"]["seconds"] > 0)
    assert client.post("/plans", json=TPU).json()["id"] == job["id"]  # the same one
    other = client.post("/plans", json={**TPU, "recipe": "scenes"}).json()
    assert other["state"] == "waiting" and other["position"] == 1
    assert client.delete(f"/plans/{other['id']}").json()["state"] == "cancelled"
    client.delete(f"/plans/{job['id']}")
    assert ended(client, job["id"])["state"] == "cancelled"
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert not [*plans.glob("*.job"), *plans.glob("*.log")]


def test_a_mistake_that_the_compiler_finds_is_shown(client, plans):
    (plans / "fail").write_text("batch_size: 3 does not fit 8 devices")
    job = client.post("/plans", json=TPU).json()
    failed = ended(client, job["id"])
    assert failed["state"] == "failed" and "does not fit 8 devices" in failed["error"]["message"]


def test_a_missing_compiler_comes_with_the_command_that_installs_it(client):
    answer = client.post("/plans", json={"recipe": "mock", "target": "a100-80"}).json()
    assert answer["state"] == "failed"
    assert answer["error"]["command"] == "pinxit plan --install-compiler cuda12"
    choices = client.get("/plans/choices").json()
    by_name = {each["name"]: each["install"] for each in choices["targets"]}
    assert by_name["h100"] == answer["error"]["command"] and by_name["tpu-v3-8"] is None


REFUSED = [
    ({"recipe": "<script>"}, "recipe"),
    ({"target": "../x"}, "target"),
    ({"settings": {"batch_size": "many"}}, "batch_size"),
    ({"settings": {"batch_size": 0}}, "batch_size"),
    ({"settings": {"batch_size": 10**400}}, "batch_size"),
    ({"settings": {"batch_size": 10**9}}, "batch_size"),
    ({"settings": {"model.preset": "<b>"}}, "preset"),
    ({"settings": {"model.remat": "all"}}, "model.remat"),
    ({"settings": {"dataset_path": "/etc"}}, "setting"),
    ({"settings": {"init_from": "runs/x"}}, "setting"),
    ({"settings": {"output_dir": "/tmp"}}, "setting"),
    ({"settings": {"text_encoder": "/etc"}}, "text_encoder"),
    ({"settings": {"vae": "owner/name"}}, "vae"),
    ({"settings": {"gradient_accumulation_steps": 3}}, "gradient_accumulation_steps"),
    ({"settings": {"model.num_heads": 1e300}}, "model.num_heads"),
    ({"policies": ["some"]}, "policies"),
    ({"price": -1}, "price"),
    ({"price": "1e999"}, "price"),
    ({"settings": {f"x{n}": 1 for n in range(99)}}, "settings"),
    ({"settings": [1]}, "settings"),
    ({"unknown": 1}, "unknown"),
]


@pytest.mark.parametrize(("change", "field"), REFUSED)
def test_wrong_requests_are_refused(client, plans, change, field):
    answer = client.post("/plans", json={**TPU, **change})
    assert answer.status_code == 400 and len(answer.content) < 4096, answer.text
    assert field in (answer.json()["error"]["param"] or answer.json()["error"]["message"])
    assert not [*plans.iterdir()]


def test_unknown_jobs_are_not_found(client):
    for call in (client.get, client.delete):
        assert call("/plans/none").status_code == 404


def test_every_recipe_and_machine_can_be_chosen(client):
    choices = client.get("/plans/choices").json()
    assert [each["name"] for each in choices["recipes"]] == list(RECIPES)
    for each in choices["recipes"]:
        assert each["defaults"]["batch_size"] >= 1 and each["summary"][0].isupper()
    assert [get_target(name).name for name in target_names()] == target_names()


@pytest.mark.parametrize(
    ("text", "value"),
    [("none", None), ("3", 3), ("1e2", 100)],
)
def test_texts_become_settings(text, value):
    request = plan_request("mock", "here", {"model.hidden_size": text})
    assert dict(request.settings) == {"model.hidden_size": value}
    words = plan_request("mock", "here", {"use_amp": "1", "optimizer.name": "muon"})
    assert dict(words.settings) == {"use_amp": True, "optimizer.name": "muon"}
    assert words.config().use_amp and words.config().optimizer.name == "muon"


def test_closing_the_queue_ends_what_is_being_computed():
    def compute(request: Any, on_progress: Any) -> dict[str, Any]:
        while True:
            on_progress("x", 0.0)
            time.sleep(0.01)

    queue = PlanQueue(compute)
    job = queue.submit(plan_request("mock", "here", {}))
    wait_for(lambda: job.state == "computing")
    queue.close()
    assert job.state == "cancelled"


@pytest.mark.slow
def test_a_tiny_run_is_planned_for_this_machine_with_its_own_compiler(tmp_path, monkeypatch):
    import sys

    from pinxit.plan import compile_cache

    monkeypatch.setattr(compile_cache, "sys", sys)
    monkeypatch.setenv("PINXIT_PLANS", str(tmp_path))
    seen: list[str] = []
    request = plan_request("mock", "here", {"model.remat": "none", "model.scan_blocks": "0"})
    plan = compute_plan(request, lambda what, seconds: seen.append(what))
    assert plan["fits"] and plan["parameters"] > 100_000 and set(seen) == {"batch 8, remat none"}
    assert compute_plan(request, only_cached=True)["memory"] == plan["memory"]
