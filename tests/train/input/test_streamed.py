"""Streamed runs against a real server: what is trained on, and what a stop and a resume keep."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from coyo_files import write_coyo
from hostile_server import LOOPBACK, HostileServer
from jax.sharding import Mesh
from mortal_server import NETWORK, MortalServer
from rich.console import Console

from pinxit.config import UsageError
from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import ImageConfig
from pinxit.data.sources.catalogue import open_source
from pinxit.train.build import build, text_columns_for
from pinxit.train.input.attempt_order import Attempts
from pinxit.train.input.outage import Ended
from pinxit.train.input.streamed import StreamedFeed
from pinxit.train.metric_rows import read_rows
from pinxit.train.run import RunResult, run
from pinxit.train.settings import EvalConfig, ModelConfig, SampleGridConfig, Sampling, TrainConfig

ROWS = 400
KINDS = ("good", "png", "404", "good", "redirected", "html", "mislabelled", "webp", "noai", "good")
FETCH = FetchConfig(allow_networks=(LOOPBACK,), timeout=20, retries=0, concurrency=16, per_host=16)


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running


@pytest.fixture(scope="module")
def table(server: HostileServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COYO's form: 7 of 10 links are good, every 15th row has a watermark."""
    urls = [server.url(KINDS[i % len(KINDS)], i) for i in range(ROWS)]
    marks = [0.9 if i % 15 == 1 else 0.1 for i in range(ROWS)]
    path = tmp_path_factory.mktemp("coyo") / "part.parquet"
    return write_coyo(path, ROWS, group=100, url=urls, watermark_score=marks)


@pytest.fixture
def config(bundle: Path, table: Path, tmp_path: Path) -> TrainConfig:
    """A run of seconds that needs less than an epoch."""
    return TrainConfig(
        name="streamed",
        dataset_name="coyo",
        dataset_path=str(table),
        image_size=16,
        batch_size=4,
        max_steps=14,
        text_encoder=str(bundle),
        vae=str(bundle),
        log_interval=2,
        save_interval=5,
        sample_interval=0,
        output_dir=str(tmp_path),
        fetch=FETCH,
        images=ImageConfig(workers=1, max_repeats=0),
        filters=FilterConfig(min_side=64),
        model=ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2),
        sampling=Sampling(steps=1),
        samples=SampleGridConfig(prompts=("a picture",), seeds=(0,)),
        evaluation=EvalConfig(images=10, batch_size=10),
    )


def train(config: TrainConfig) -> tuple[RunResult, str]:
    said = io.StringIO()
    result = run(config, ["pinxit", "train"], console=Console(file=said, width=200))
    return result, said.getvalue()


def outcomes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "outcomes.jsonl").read_text().splitlines()]


def last_position(folder: Path) -> dict[str, Any]:
    newest = sorted((folder / "checkpoints").glob("step_*"))[-1]
    return json.loads((newest / "run.json").read_text())["loader_position"]


def test_a_stopped_run_goes_on_where_it_was(config: TrainConfig):
    half, said = train(dataclasses.replace(config, max_steps=6))
    assert half.status == "finished", said
    position = last_position(half.folder)
    assert position["counts"]["ok"] == 10 + 6 * 4  # held out, and trained on
    before = outcomes(half.folder)
    assert Counter(line["status"] for line in before) == Counter(
        {name: n for name, n in position["counts"].items() if not name.startswith("filtered")}
    )
    result, said = train(config)
    assert result.status == "finished" and "resuming after step 6" in said, said
    lines = outcomes(result.folder)
    assert lines[: len(before)] == before
    trained = [line["key"] for line in lines if line["status"] == "ok"]
    assert len(trained) == 10 + 14 * 4 and len(set(trained)) == len(trained)
    ended = [line["key"] for line in lines]
    assert len(set(ended)) == len(ended), "no row was tried to its end twice"

    # the attempts are those of the order, up to what was under way at the end
    source = open_source("coyo", path=config.dataset_path)
    under_way = 8 * FETCH.concurrency + 72
    order = itertools.islice(Attempts(source, config.filters), len(ended) + under_way)
    assert set(ended) <= {str(attempt) for attempt in order}
    held_out = json.loads((result.folder / "heldout" / "rows.json").read_text())["keys"]
    assert len(held_out) == 10 and set(held_out) == set(trained[:10])

    assert result.results["data"]["rows"] == last_position(result.folder)["counts"]
    rows = [row for row in read_rows(result.folder / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12, 14]
    assert 0.5 < rows[-1]["alive_share"] < 0.9 and 0 < rows[-1]["filtered_share"] < 0.2
    assert "alive" in said and "tried" in said
    report = (result.folder / "report.html").read_text()
    assert "Outcome of the rows" in report and "the server answered 404" in report


def test_small_sets_are_gone_through_again(config: TrainConfig, server: HostileServer, tmp_path):
    path = write_coyo(tmp_path / "few.parquet", 30, url=[server.url("good", i) for i in range(30)])
    few = dataclasses.replace(config, dataset_path=str(path), max_steps=12, save_interval=99)
    result, said = train(few)
    assert result.status == "finished", said
    held_out = set(json.loads((result.folder / "heldout" / "rows.json").read_text())["keys"])
    keys = [line["key"] for line in outcomes(result.folder) if line["status"] == "ok"][10:]
    assert len(keys) == 48 and not held_out & set(keys)
    times = Counter(keys)
    assert len(times) == 20 and max(times.values()) <= 4


def test_a_damaged_file_is_left_and_said(
    config: TrainConfig, server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pinxit.train.input.attempt_order.PAUSE", 0.01)
    folder = tmp_path / "set"
    for i in range(2):
        urls = [server.url("good", 100 * i + j) for j in range(100)]
        path = write_coyo(folder / f"{i}.parquet", 100, url=urls)
    start = pq.ParquetFile(path).metadata.row_group(0).column(1).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 500] = bytes(500)  # the URLs
    path.write_bytes(data)
    changes = {"dataset_path": str(folder), "max_steps": 30, "evaluation": EvalConfig(images=0)}
    result, said = train(dataclasses.replace(config, **changes))
    assert result.status == "finished", said
    assert said.count("warning: skipping the rest of unit 00001-000, which cannot be read: ") == 1
    assert result.results["data"]["unreadable_units"].keys() == {"00001-000"}
    assert {line["key"].partition("/")[0] for line in outcomes(result.folder)} == {"00000-000"}


def test_pixels_and_text_encoded_beforehand(config: TrainConfig):
    model = dataclasses.replace(config.model, use_stable_vae=False, patch_size=4)
    changes = {"max_steps": 2, "evaluation": EvalConfig(images=0), "cache_text": True}
    result, said = train(dataclasses.replace(config, model=model, **changes))
    assert result.status == "finished" and not (result.folder / "heldout").exists(), said


def test_dead_links_end_the_run_with_a_reason(config: TrainConfig, server: HostileServer, tmp_path):
    path = write_coyo(tmp_path / "dead.parquet", 12, url=[server.url("404", i) for i in range(12)])
    dead = dataclasses.replace(config, dataset_path=str(path))
    with pytest.raises(
        Ended, match=r"no image in 1\d\d consecutive attempts.* 12 rows .*http_404 1\d\d"
    ):
        train(dead)
    without = dataclasses.replace(dead, name="other", evaluation=EvalConfig(images=0, prompts=0))
    result, said = train(without)
    assert (result.status, result.step, result.exit_code) == ("failed", 0, 1)
    assert "the data ended after step 0: no image in" in said


@pytest.mark.slow
def test_a_run_outlives_an_outage(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With one request at a time the batches are in order, so the parameters are equal as well."""
    monkeypatch.setattr("pinxit.data.fetch.request_turns.PATIENCE", 1e6)
    with MortalServer() as server:
        path = write_coyo(tmp_path / "web.parquet", 100, url=[server.url(i) for i in range(100)])
        fetch = dataclasses.replace(FETCH, allow_networks=(NETWORK,), concurrency=1, timeout=2)
        config = dataclasses.replace(
            config,
            dataset_path=str(path),
            fetch=fetch,
            max_steps=18,
            evaluation=EvalConfig(images=10, prompts=0, batch_size=10),
        )
        calm, said = train(dataclasses.replace(config, name="calm"))
        assert calm.status == "finished" and "waits" not in said, said

        def cut(feed: StreamedFeed, step: int) -> dict[str, Any]:
            if step == 5 and server.alive:
                server.kill()
                threading.Timer(4, server.revive).start()
            return position(feed, step)

        position = StreamedFeed.position
        monkeypatch.setattr(StreamedFeed, "position", cut)
        disturbed, said = train(dataclasses.replace(config, name="disturbed"))
    assert disturbed.status == "finished", said
    assert said.count("Training waits for the network since") == 1, said
    assert said.count("the network can be reached again after") == 1
    for result in (calm, disturbed):
        assert result.results["data"]["rows"] == {"ok": 82}
    assert len({line["key"] for line in outcomes(disturbed.folder)}) == 82
    assert outcomes(disturbed.folder) == outcomes(calm.folder)
    one, other = (run.folder / "model" / "model.safetensors" for run in (calm, disturbed))
    assert one.read_bytes() == other.read_bytes()


def test_a_stop_during_an_outage_is_heard_at_once(config: TrainConfig, tmp_path: Path):
    with MortalServer() as server:
        path = write_coyo(tmp_path / "web.parquet", 200, url=[server.url(i) for i in range(200)])
        fetch = dataclasses.replace(FETCH, allow_networks=(NETWORK,), timeout=2)
        config = dataclasses.replace(
            config,
            dataset_path=str(path),
            fetch=fetch,
            max_steps=40,
            evaluation=EvalConfig(images=0, prompts=0),
        )
        said, began = io.StringIO(), list[float]()

        class Watched(io.StringIO):
            def write(self, text: str) -> int:
                if "step 2/" in text:
                    server.kill()
                if "Training waits for the network" in text:
                    began.append(time.monotonic())
                    os.kill(os.getpid(), signal.SIGTERM)
                return said.write(text)

        result = run(config, ["pinxit", "train"], console=Console(file=Watched(), width=400))
        took = time.monotonic() - began[0]
        assert (result.status, result.exit_code) == ("stopped", 0), said.getvalue()
        assert took < 8 and last_position(result.folder)["counts"] == {"ok": 4 * result.step}
        server.revive()
        result, text = train(config)
    assert result.status == "finished", text
    assert result.results["data"]["rows"] == {"ok": 4 * 40}
    assert len({line["key"] for line in outcomes(result.folder)}) == 4 * 40


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dataset_name": "scenes"}, "dataset_name: 'scenes' is not a kind of data"),
        ({"dataset_name": "mock", "dataset_path": "no"}, "dataset_path: 'no' is missing; valid"),
        ({"dataset_path": "nowhere.parquet"}, "'nowhere.parquet' does not exist; valid: COYO"),
        ({"columns": ("caption",)}, "columns: 'caption' is not understood"),
        ({"images": ImageConfig(buckets=((18, 14),))}, "images.buckets: '18 x 14' is not div"),
        (
            {"dataset_name": "prepared"},
            "dataset_path: .* is not a folder that `pinxit prepare` wrote",
        ),
        ({"images": ImageConfig(size=32)}, "images.size: 32 is different from image_size; valid: "),
    ],
)
def test_refusals_write_nothing(config: TrainConfig, changes: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        train(dataclasses.replace(config, **changes))
    assert not (Path(config.output_dir) / config.name).exists()


def test_a_stream_keeps_no_embeddings_on_several_devices(config: TrainConfig):
    parts = build(config.resolved())

    def stores(config: TrainConfig, count: int) -> bool:
        mesh = Mesh(np.array(jax.devices()[:1] * count), ("data",))
        return text_columns_for(config, dataclasses.replace(parts, mesh=mesh)).cached == [True]

    asked = dataclasses.replace(config, cache_text=True)
    assert stores(asked, 1) and not stores(config, 2)
    with pytest.raises(UsageError, match=r"cache_text: 1 is not possible: on 2 devices"):
        stores(asked, 2)
    drawn = dataclasses.replace(asked, dataset_name="scenes", dataset_path=None)
    assert stores(drawn, 2)


def test_the_size_of_the_images_is_said_once(config: TrainConfig):
    for images in (ImageConfig(), ImageConfig(size=16)):
        settled = dataclasses.replace(config, images=images).resolved()
        assert settled.images.size == settled.resolved().images.size == 16


def test_prepared_needs_a_path(config: TrainConfig):
    with pytest.raises(UsageError, match="dataset_path: none is missing"):
        train(dataclasses.replace(config, dataset_name="prepared", dataset_path=None))


def test_a_changed_dataset_is_refused(config: TrainConfig, table: Path, tmp_path: Path):
    changed = tmp_path / "part.parquet"
    changed.write_bytes(table.read_bytes())
    first = dataclasses.replace(
        config, dataset_path=str(changed), max_steps=1, evaluation=EvalConfig(images=0)
    )
    assert train(first)[0].status == "finished"
    write_coyo(changed, 12)
    with pytest.raises(ValueError, match="resume: the run was started on revision files-"):
        train(dataclasses.replace(first, max_steps=2))
