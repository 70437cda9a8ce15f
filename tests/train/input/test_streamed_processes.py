"""Several processes stream together: killed, stopped and resumed in other numbers of processes."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from coyo_files import write_coyo
from hostile_server import HostileServer
from mortal_server import MortalServer
from stream_processes import StreamProcesses, losses, outcomes, position, times_ended

from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.sources.catalogue import open_source
from pinxit.train.input.attempt_order import Attempts
from pinxit.train.input.image_stream import unpack_position

ROWS = 150
DEAD = 25
"""One link in so many is dead: 4 %."""


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running


def write_tables(server: HostileServer, folder: Path, files: int) -> Path:
    """A table in so many files, each of which is a unit."""
    each = ROWS // files
    for number in range(files):
        rows = range(number * each, (number + 1) * each)
        urls = [server.url("404" if i % DEAD == 7 else "good", i) for i in rows]
        write_coyo(folder / f"{number}.parquet", each, url=urls)
    return folder


def assert_each_row_ends_once_an_epoch(table: Path, folder: Path, epochs: int) -> Counter[str]:
    """What has ended, and what is left of `epochs` epochs, are all rows so many times, apart from
    the held-out ones. Returns the numbers of what has ended."""
    source = open_source("coyo", path=str(table))
    held_out = set(json.loads((folder / "heldout" / "rows.json").read_text())["keys"])
    kept = position(folder)
    ended = times_ended(folder)
    lines = Counter(line["status"] for line in outcomes(folder))
    assert lines == Counter({name: n for name, n in kept["counts"].items()}), "counts of the log"
    assert all(ended[key] == 1 for key in held_out) and len(held_out) == 10
    for key in held_out:
        del ended[key]
    left = Counter[str]()
    rest = Attempts(
        source,
        FilterConfig(min_side=64),
        seed=0,
        start=unpack_position(kept, source),
        excluded=held_out,
    )
    for attempt in rest:
        if rest.epoch >= epochs:
            break
        left[attempt.row.key] += 1
    keys = {row.key for unit in source.units() for row in source.read(unit)} - held_out
    # a dead link may have been tried for the held-out rows, in the first epoch
    assert ended + left == Counter(dict.fromkeys(keys, epochs))
    assert max(ended.values()) <= epochs
    return ended


def test_two_processes_are_killed_and_one_goes_on(
    server: HostileServer, bundle: Path, tmp_path: Path
):
    table = write_tables(server, tmp_path / "table", 1)

    def start(count: int, steps: int) -> StreamProcesses:
        return StreamProcesses("run", count, bundle, table, tmp_path, "--steps", str(steps))

    killed = start(2, 99)
    killed.wait_for_step(6)
    killed.processes[1].kill()
    codes, said = killed.ended()
    assert all(codes), (codes, said)
    step = killed.steps()[-1]
    assert position(killed.folder)["counts"]["ok"] == 10 + 4 * step
    assert position(killed.folder)["logged"].keys() == {"0", "1"}

    resumed = start(1, step + 4)
    codes, said = resumed.ended()
    assert codes == [0] and f"resuming after step {step}" in said[0], said
    assert losses(resumed.folder)[-1] == step + 4
    assert position(resumed.folder)["counts"]["ok"] == 10 + 4 * (step + 4)
    # 140 rows an epoch
    assert_each_row_ends_once_an_epoch(table, resumed.folder, 1 + (step + 4) // 30)
