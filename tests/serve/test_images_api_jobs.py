"""Jobs, clients that leave, and equal bytes on every way to a picture."""

from __future__ import annotations

import base64
import json
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from openai import OpenAI
from PIL import Image
from studio import RunningStudio
from test_images_api import png, upright

from pinxit.cli.main import main

PROMPT = "a forest at night"
LONG = {"prompt": PROMPT, "n": 8, "num_inference_steps": 200}
"""A request that takes many seconds."""


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns the events of a stream, each with its name and data."""
    events = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        if "event" in lines:
            events.append((lines["event"], json.loads(lines["data"])))
    return events


def ended(studio: RunningStudio, count: int) -> Any:
    """Returns the newest job, once it has ended. There must be more than `count` jobs."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        jobs = studio.engine.jobs()
        if len(jobs) > count and jobs[-1].state not in ("queued", "drawing"):
            return jobs[-1]
        time.sleep(0.02)
    raise AssertionError("the job did not end")


def test_a_job_is_followed_and_its_files_are_read(studio):
    body = {"prompt": PROMPT, "n": 2, "seed": 3, "previews": 2, "output_format": "webp"}
    answer = httpx.post(f"{studio.url}/v1/jobs", json=body)
    job = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["X-Pinxit-Ignored"] == "output_format"
    assert job["n"] == 2 and job["state"] in ("queued", "drawing") and job["error"] is None
    address = studio.url + answer.headers["location"]
    events = events_of(httpx.get(f"{address}/events", timeout=60).text)
    names = [name for name, _ in events]
    assert names[-1] == "ended" and events[-1][1] == {"state": "done", "error": None}
    assert names.count("preview") == 4 and names.count("picture") == 2
    steps = [(data["picture"], data["step"]) for name, data in events if name == "step"]
    assert {picture for picture, _ in steps} == {0, 1} and max(step for _, step in steps) == 16
    preview = next(data for name, data in events if name == "preview")
    assert base64.b64decode(preview["b64_json"])[:2] == b"\xff\xd8"
    assert preview["output_format"] == "jpeg"
    state = httpx.get(address).json()
    assert state["state"] == "done" and state["position"] == 0
    assert [picture["recipe"]["seed"] for picture in state["pictures"]] == [3, 4]
    for index, picture in enumerate(state["pictures"]):
        event = [data for name, data in events if name == "picture" and data["picture"] == index]
        assert event[0]["url"] == picture["url"] and event[0]["recipe"] == picture["recipe"]
        file = httpx.get(studio.url + picture["url"])
        assert file.content[:4] == b"\x89PNG" and file.headers["content-type"] == "image/png"
    small = httpx.get(f"{address}/pictures/0?format=jpeg&quality=50")
    assert small.headers["content-type"] == "image/jpeg"
    for wrong in ("format=gif", "format=png&quality=50", "format=jpeg&quality=0"):
        assert httpx.get(f"{address}/pictures/0?{wrong}").status_code == 400, wrong
    for absent in ("2", "-1", "x", "9" * 50, "%D9%A1"):
        assert httpx.get(f"{address}/pictures/{absent}").status_code == 404, absent
    again = events_of(httpx.get(f"{address}/events").text)  # a late listener hears all of it
    assert [name for name, _ in again][-1] == "ended" and again[-1] == events[-1]
    assert any(
        each["id"] == job["id"] for each in httpx.get(f"{studio.url}/v1/jobs").json()["data"]
    )


def test_a_job_is_cancelled(studio):
    answer = httpx.post(f"{studio.url}/v1/jobs", json=LONG)
    address = studio.url + answer.headers["location"]
    assert httpx.delete(address).status_code == 200
    events = events_of(httpx.get(f"{address}/events", timeout=60).text)
    assert events[-1][1]["state"] == "cancelled"
    assert httpx.get(address).json()["state"] == "cancelled"
    assert httpx.get(f"{address}/pictures/7").status_code == 404


def test_a_job_begins_with_a_picture_in_a_data_url(studio, tmp_path):
    url = "data:image/png;base64," + base64.b64encode(png(upright())).decode()
    body = {"prompt": PROMPT, "image": url, "image_name": "../a/photo.png", "strength": 0.5}
    job = httpx.post(f"{studio.url}/v1/jobs", json=body).json()
    events_of(httpx.get(f"{studio.url}/v1/jobs/{job['id']}/events", timeout=60).text)
    state = httpx.get(f"{studio.url}/v1/jobs/{job['id']}").json()
    assert state["pictures"][0]["recipe"]["image"]["name"] == "photo.png"
    for wrong, param in (
        ({"image": "http://example.org/a.png"}, "image"),
        ({"image": "data:image/png;base64,!!!"}, "image"),
        ({"image": "data:image/png;base64,AAAA"}, "image"),
        ({"image": "/etc/passwd"}, "image"),
        ({"image": None}, "strength"),
        ({"image": None, "strength": None, "mask": url}, "mask"),
    ):
        answer = httpx.post(f"{studio.url}/v1/jobs", json={**body, "image_name": None, **wrong})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == param, wrong


def test_a_large_body_has_a_picture(studio):
    """A body of more than 1 MiB is read to its end only if a picture begins in it."""
    noise = np.random.default_rng(0).integers(0, 256, (800, 600, 3), np.uint8)
    picture = base64.b64encode(png(Image.fromarray(noise))).decode()
    escaped = json.dumps({"prompt": PROMPT, "image": f"data:image/png;base64,{picture}"})
    escaped = escaped.replace("/", "\\/")  # as PHP writes it
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{studio.url}/v1/jobs", content=escaped, headers=headers)
    assert len(escaped) > 2**20 and answer.status_code == 202, answer.text
    late = {"prompt": "a" * 2**20, "image": f"data:image/png;base64,{picture}"}
    answer = httpx.post(f"{studio.url}/v1/jobs", json=late)
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "request_too_large"


def test_a_client_that_leaves_a_stream_ends_its_job(studio):
    before = len(studio.engine.jobs())
    client = OpenAI(base_url=f"{studio.url}/v1", api_key="unused", max_retries=0)
    stream = client.images.generate(
        prompt=PROMPT, n=8, stream=True, partial_images=50, extra_body={"steps": 200}
    )
    next(iter(stream))
    stream.close()
    left = time.monotonic()
    job = ended(studio, before)
    assert job.state == "cancelled" and job.pictures[-1] is None
    assert time.monotonic() - left < 5


def test_a_client_that_leaves_while_it_waits_ends_its_job(studio):
    before = len(studio.engine.jobs())
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{studio.url}/v1/images/generations", json=LONG, timeout=0.5)
    job = ended(studio, before)
    assert job.state == "cancelled" and job.pictures[-1] is None


def test_a_listener_that_leaves_does_not_end_a_job(studio):
    answer = httpx.post(f"{studio.url}/v1/jobs", json={"prompt": PROMPT, "n": 2, "previews": -1})
    address = studio.url + answer.headers["location"]
    with httpx.stream("GET", f"{address}/events", timeout=60) as stream:
        next(stream.iter_lines())
    events = events_of(httpx.get(f"{address}/events", timeout=60).text)
    assert events[-1][1]["state"] == "done"


def test_a_waiting_client_is_told_that_somebody_cancelled_its_job(studio):
    """The SDK would repeat a request that ended with 409, and so draw the pictures after all."""
    import threading

    before = len(studio.engine.jobs())

    def cancel() -> None:
        while len(studio.engine.jobs()) <= before:
            time.sleep(0.01)
        studio.engine.jobs()[-1].cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    answer = httpx.post(f"{studio.url}/v1/images/generations", json=LONG, timeout=60)
    thread.join()
    assert answer.status_code == 409 and answer.json()["error"]["code"] == "cancelled"
    assert answer.headers["x-should-retry"] == "false"
    assert len(studio.engine.jobs()) == before + 1


def test_every_way_gives_the_same_bytes(studio, tmp_path, capsys):
    """The command line, Python, the API, a stream of it, and a job write equal files."""
    import pinxit
    from pinxit.picture_files import picture_bytes

    settings = {"seed": 11, "steps": 5, "guidance_scale": 2.5, "solver": "euler"}
    with chdir(tmp_path):
        options = [f"--{name}={value}" for name, value in settings.items()]
        assert main(["generate", PROMPT, "--out", "pictures", "--n", "2", *options]) == 0
    files = {"command line": [path.read_bytes() for path in written(tmp_path / "pictures")]}
    model = pinxit.load_checkpoint()
    files["Python"] = [picture_bytes(*item) for item in model.stream(PROMPT, n=2, **settings)]
    body = {"prompt": PROMPT, "n": 2, **settings}
    answer = httpx.post(f"{studio.url}/v1/images/generations", json=body, timeout=60).json()
    files["API"] = [base64.b64decode(item["b64_json"]) for item in answer["data"]]
    stream = httpx.post(
        f"{studio.url}/v1/images/generations",
        json={**body, "stream": True, "partial_images": 2},
        timeout=60,
    )
    last = [data for name, data in events_of(stream.text) if name.endswith("completed")]
    last.sort(key=lambda data: data["picture"])  # they are drawn side by side
    files["stream"] = [base64.b64decode(data["b64_json"]) for data in last]
    job = httpx.post(f"{studio.url}/v1/jobs", json=body).json()
    httpx.get(f"{studio.url}/v1/jobs/{job['id']}/events", timeout=60)
    files["job"] = [
        httpx.get(f"{studio.url}/v1/jobs/{job['id']}/pictures/{index}").content
        for index in range(2)
    ]
    assert [name for name, pair in files.items() if pair != files["command line"]] == []
    assert len(files) == 5 and files["API"][0] != files["API"][1]


def written(folder: Path) -> list[Path]:
    """Returns the pictures in a folder."""
    return sorted(folder.glob("*.png"))
