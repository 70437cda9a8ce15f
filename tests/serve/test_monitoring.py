"""The routes for supervisors."""

from __future__ import annotations

import re
import time

import httpx
from prometheus_client.parser import text_string_to_metric_families


def test_health_tells_nothing_but_that_the_server_lives(studio):
    answer = httpx.get(f"{studio.url}/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_ready_once_the_first_model_is_in_memory(studio):
    deadline = time.monotonic() + 60
    while (answer := httpx.get(f"{studio.url}/ready")).status_code == 503:
        assert time.monotonic() < deadline and answer.headers["retry-after"]
        assert answer.json()["ready"] is False
        time.sleep(0.05)
    content = answer.json()
    assert answer.status_code == 200 and content["ready"] is True and len(content["models"]) == 1


def test_metrics_are_those_of_this_app(studio):
    for method in ("GET", "PURGE"):
        httpx.request(method, f"{studio.url}/no/such/{method}")
    answer = httpx.get(f"{studio.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    names = {name for name, *_ in samples}
    assert {
        *("pinxit_jobs", "pinxit_queue_pictures", "pinxit_pictures_total", "pinxit_draining"),
        *("pinxit_picture_seconds", "pinxit_jobs_ended_total", "pinxit_models_loaded"),
        *("pinxit_memory_bytes", "pinxit_model_loaded", "pinxit_info"),
    } <= names
    assert samples["pinxit_memory_bytes",] > 1e7 and samples["pinxit_queue_pictures",] == 0
    assert samples["pinxit_http_requests_total", "404", "GET", "other"] >= 1
    assert samples["pinxit_http_requests_total", "404", "other", "other"] >= 1
    assert not re.search(r"PURGE|no/such", answer.text), "a client cannot add labels"
