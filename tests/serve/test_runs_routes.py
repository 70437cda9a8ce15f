"""The routes of runs: what they refuse, and how many readers many listeners need."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from run_folders import row, write_run
from studio import RunningStudio, folders_in, running_studio

from pinxit.serve.runs.start_settings import new_run, resumed_run
from pinxit.serve.runs.trainings import Trainings
from pinxit.train.report.metrics_tail import MetricsTail


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio with a run, and with folders and links beside it that are no runs."""
    root = tmp_path_factory.mktemp("studio")
    options = folders_in(root)
    runs = root / "runs"
    write_run(runs / "one", finished=False)
    write_run(root / "outside")
    (runs / "link").symlink_to(root / "outside")
    (runs / "folder").mkdir()
    (root / "secret.json").write_text('{"max_steps": 3, "secret": "hidden words"}')
    linked = write_run(runs / "linked")
    for path in (linked.results, linked.metrics, linked.samples / "step_00000050.png"):
        path.unlink()
        path.symlink_to(root / "secret.json")
    with running_studio(**options) as running:
        yield running


@pytest.fixture
def client(studio: RunningStudio) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=studio.url, timeout=20) as client:
        yield client


def test_only_runs_are_listed(client: httpx.Client):
    listed = client.get("/studio/runs").json()
    assert {run["name"] for run in listed["runs"]} == {"one", "linked"}
    assert listed["defaults"]["steps"] == 1500 and listed["max_trainings"] == 1
    assert "hidden words" not in json.dumps(listed)


@pytest.mark.parametrize(
    "path",
    ["link", "folder", "..", "%2e%2e", "..%2foutside", "one%2f..%2f..%2foutside", ".cache",
     "one/samples/..%2fconfig.json", "one/samples/config.json", "one%00",
     "linked/samples/step_00000050.png", "one/samples/step_00000001.png", "a" * 300],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(client: httpx.Client, path: str):
    answer = client.get(f"/studio/runs/{path}")
    assert answer.status_code in (400, 404) and len(answer.content) <= 4096
    assert "hidden" not in answer.text and "max_steps" not in answer.text


def test_links_in_a_run_are_not_followed(client: httpx.Client):
    view = client.get("/studio/runs/linked").json()
    assert "hidden words" not in json.dumps(view) and view["axis"]["step"] == []
    assert [grid["step"] for grid in view["samples"]] == [100, 150, 200]


@pytest.mark.parametrize(
    ("body", "param"),
    [({"name": "one"}, "name"), ({"name": "-x"}, "name"), ({"name": "a/b"}, "name"),
     ({"name": ""}, "name"), ({"name": "x" * 65}, "name"), ({"name": "--extensions"}, "name"),
     ({"name": "ok", "settings": {"steps": 0}}, "steps"),
     ({"name": "ok", "settings": {"steps": 1.5}}, "steps"),
     ({"name": "ok", "settings": {"learning_rate": 1e9}}, "learning_rate"),
     ({"name": "ok", "settings": {"extensions": 1}}, "extensions"),
     ({"name": "ok", "settings": {"steps": "5"}}, None), ({"name": 3}, None), ({}, None),
     ({"name": "ok", "output_dir": "/tmp"}, None)],
)  # fmt: skip
def test_settings_are_checked_before_anything_is_created(
    client: httpx.Client, studio: RunningStudio, body: dict[str, Any], param: str | None
):
    before = sorted(studio.studio.runs.iterdir())
    answer = client.post("/studio/runs", json=body)
    assert answer.status_code in (400, 422), answer.text
    if param is not None:
        assert answer.json()["error"]["param"] == param
    assert sorted(studio.studio.runs.iterdir()) == before


def test_a_run_that_nobody_trains_cannot_be_stopped(client: httpx.Client):
    answer = client.post("/studio/runs/one/stop")
    assert answer.status_code == 400 and "not in training" in answer.text
    assert client.post("/studio/runs/none/stop").status_code == 404


def test_no_other_process_is_signalled(client: httpx.Client, studio: RunningStudio):
    """A folder from elsewhere may name any process: only trainings are signalled."""
    import psutil

    folder = write_run(studio.studio.runs / "trap", finished=False)
    own = psutil.Process()
    entry = {"pid": own.pid, "created": own.create_time(), "step": 0, "time": 1.0}
    entry["host"] = os.uname().nodename
    (folder.root / "starts.json").write_text(json.dumps({"starts": [entry]}))
    (folder.root / ".studio.json").write_text(json.dumps(entry))
    assert client.post("/studio/runs/trap/stop").status_code == 400


def test_a_run_of_other_settings_is_resumed_by_its_own_command_only(
    client: httpx.Client, studio: RunningStudio
):
    write_run(studio.studio.runs / "own", finished=False, settings={"dataset_name": "mock"})
    answer = client.post("/studio/runs/own/resume")
    assert answer.status_code == 400 and "command that started it" in answer.text


def test_resuming_repeats_the_command(tmp_path: Path):
    _, words = new_run(tmp_path, "r", {"steps": 30, "learning_rate": 0.002, "seed": 0})
    expected = ["--recipe", "scenes", "--name", "r", "--output_dir", str(tmp_path)]
    assert words[:6] == expected
    options = {words[i]: words[i + 1] for i in range(6, len(words), 2)}
    assert options == {"--max_steps": "30", "--optimizer.learning_rate": "0.002"}
    write_run(tmp_path / "r", finished=False, settings={"max_steps": 30, "batch_size": 8})
    _, again = resumed_run(tmp_path, "r", steps=60)
    options = {again[i]: again[i + 1] for i in range(6, len(again), 2)}
    assert options["--max_steps"] == "60" and options["--batch_size"] == "8"


def test_the_number_of_trainings_is_limited(tmp_path: Path):
    program = (sys.executable, "-c", "import time; time.sleep(60)")
    trainings = Trainings(tmp_path, 1, program)
    trainings.start("first", [], 0)
    try:
        with pytest.raises(RuntimeError, match="1 of 1 possible runs"):
            trainings.start("second", [], 0)
        assert not (tmp_path / "second").exists()
    finally:
        for child in trainings._children.values():
            child.kill()
            child.communicate()


def test_many_listeners_cost_one_reader(studio: RunningStudio, monkeypatch: pytest.MonkeyPatch):
    folder = studio.studio.runs / "one"
    reads: list[float] = []
    whole = MetricsTail.read

    def counted(self):
        reads.append(time.monotonic())
        return whole(self)

    monkeypatch.setattr(MetricsTail, "read", counted)
    position = httpx.get(f"{studio.url}/studio/runs/one").json()["position"]
    heard: list[list[dict[str, Any]]] = [[] for _ in range(12)]
    ready = threading.Barrier(13)

    def listen(number: int) -> None:
        waited = False
        path = f"{studio.url}/studio/runs/one/events?after={position}"
        with httpx.stream("GET", path, timeout=20) as answer:
            for line in answer.iter_lines():
                if line == "event: state" and not waited:
                    waited = True
                    ready.wait(20)
                if line.startswith("data: ") and '"rows"' in line:
                    heard[number] += json.loads(line[6:])["rows"]
                if len(heard[number]) >= 2:
                    return

    threads = [threading.Thread(target=listen, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    ready.wait(20)
    reads.clear()
    started = time.monotonic()
    with (folder / "metrics.jsonl").open("a") as file:
        for step in (210, 220):
            file.write(json.dumps(row(step)) + "\n")
    for thread in threads:
        thread.join(20)
    seconds = time.monotonic() - started
    assert all([entry["step"] for entry in rows] == [210, 220] for rows in heard)
    assert heard[0][0]["values"]["loss"] == row(210)["loss"]
    assert len(reads) <= 3 + seconds / 0.7 + 12


def test_a_listener_that_knows_another_file_begins_again(studio: RunningStudio):
    path = f"{studio.url}/studio/runs/one/events?after=0000:5"
    with httpx.stream("GET", path, timeout=20) as answer:
        assert next(answer.iter_lines()) == "event: reset"


def test_a_range_has_all_values(client: httpx.Client):
    part = client.get("/studio/runs/one/curves", params={"start": 20, "end": 40}).json()
    assert part["axis"]["step"] == [20, 30, 40] and not part["thinned"]
    assert part["curves"]["loss"]["values"] == [row(step)["loss"] for step in (20, 30, 40)]
    assert client.get("/studio/runs/one/curves?start=-1").status_code in (400, 422)
