"""A streamed run whose servers go away for minutes: it waits, goes on, and loses nothing.

The outages are real: sockets refuse connections, or accept them and never answer. The variable
PINXIT_DRILL_OUTAGE_SECONDS sets their length (600).
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from coyo_files import write_coyo
from drill_table import record
from mortal_server import NETWORK, MortalServer
from rich.console import Console

from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import ImageConfig
from pinxit.progress import duration
from pinxit.train.input.streamed import StreamedFeed
from pinxit.train.run import RunResult, run
from pinxit.train.settings import EvalConfig, ModelConfig, SampleGridConfig, Sampling, TrainConfig

SECONDS = float(os.environ.get("PINXIT_DRILL_OUTAGE_SECONDS", "600"))
ROWS = 200


def config_of(bundle: Path, table: Path, folder: Path) -> TrainConfig:
    return TrainConfig(
        name="calm",
        dataset_name="coyo",
        dataset_path=str(table),
        image_size=16,
        batch_size=4,
        max_steps=30,
        text_encoder=str(bundle),
        vae=str(bundle),
        save_interval=5,
        sample_interval=0,
        output_dir=str(folder),
        fetch=FetchConfig(allow_networks=(NETWORK,), timeout=5, connect_timeout=2, concurrency=1),
        images=ImageConfig(workers=1),
        filters=FilterConfig(min_side=64),
        model=ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2),
        sampling=Sampling(steps=1),
        samples=SampleGridConfig(prompts=("a picture",), seeds=(0,)),
        evaluation=EvalConfig(images=10, prompts=0, batch_size=10),
    )


def trained(config: TrainConfig) -> tuple[RunResult, str, float]:
    lines, start = io.StringIO(), time.monotonic()
    result = run(config, ["pinxit", "train"], console=Console(file=lines, width=400))
    return result, lines.getvalue(), time.monotonic() - start


@pytest.mark.slow
@pytest.mark.parametrize("silent", [False, True])
def test_a_streamed_run_outlives_an_outage(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: bool
):
    # requests end in their order, so that the batches of two runs are equal
    monkeypatch.setattr("pinxit.data.fetch.request_turns.PATIENCE", 1e6)
    position, began = StreamedFeed.position, list[float]()
    with MortalServer(silent=silent) as server:
        urls = [server.url(i) for i in range(ROWS)]
        config = config_of(bundle, write_coyo(tmp_path / "web.parquet", ROWS, url=urls), tmp_path)
        calm, lines, seconds = trained(config)
        assert calm.status == "finished", lines

        def cut(feed: StreamedFeed, step: int) -> dict[str, Any]:
            if step >= 5 and not began:
                began.append(time.monotonic())
                server.kill()
                threading.Timer(SECONDS, server.revive).start()
            return position(feed, step)

        monkeypatch.setattr(StreamedFeed, "position", cut)
        config = dataclasses.replace(config, name="disturbed")
        disturbed, lines, longer = trained(config)
    assert disturbed.status == "finished", lines
    assert longer >= SECONDS
    waits = lines.count("Training waits for the network since")
    assert waits == lines.count("the network can be reached again after") == 1, lines
    assert disturbed.results["data"]["rows"] == calm.results["data"]["rows"] == {"ok": 10 + 4 * 30}
    logs = [(one.folder / "outcomes.jsonl").read_text().splitlines() for one in (calm, disturbed)]
    assert logs[0] == logs[1] and len({json.loads(line)["key"] for line in logs[0]}) == 130
    weights = [one.folder / "model" / "model.safetensors" for one in (calm, disturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    how = "accept connections and never answer" if silent else "refuse connections"
    record(
        drill="outage",
        fault=f"all servers of a streamed run {how} for {duration(SECONDS)}",
        times=1,
        survived=1,
        evidence=f"waited and went on: {duration(longer)} instead of {duration(seconds)}; 130 of "
        "130 rows ok, none dead; parameters equal to the undisturbed run's, bit for bit",
    )
