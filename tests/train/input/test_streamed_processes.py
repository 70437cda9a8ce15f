"""Several processes stream together: killed, stopped and resumed in other numbers of processes."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from coyo_files import write_coyo
from hostile_server import HostileServer
from mortal_server import MortalServer
from pictures import write_captioned
from stream_processes import StreamProcesses, logged_steps, outcomes, position, times_ended

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


@pytest.mark.slow
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
    assert logged_steps(resumed.folder)[-1] == step + 4
    assert position(resumed.folder)["counts"]["ok"] == 10 + 4 * (step + 4)
    # 140 rows an epoch
    assert_each_row_ends_once_an_epoch(table, resumed.folder, 1 + (step + 4) // 30)


@pytest.mark.slow
@pytest.mark.parametrize("files", [1, 5])
def test_the_number_of_processes_changes_with_every_command(
    server: HostileServer, bundle: Path, tmp_path: Path, files: int
):
    """Killed in two, stopped in four, killed in one, and finished in two, over more than an
    epoch."""
    table = write_tables(server, tmp_path / "table", files)

    def start(count: int, steps: int = 99) -> StreamProcesses:
        return StreamProcesses("run", count, bundle, table, tmp_path, "--steps", str(steps))

    killed = start(2)
    killed.wait_for_step(9)
    killed.processes[0].kill()
    codes, said = killed.ended()
    assert all(codes), (codes, said)
    assert_each_row_ends_once_an_epoch(table, killed.folder, 2)

    step = killed.steps()[-1]
    stopped = start(4)
    stopped.wait_for_step(step + 6)
    stopped.processes[3].send_signal(signal.SIGTERM)
    codes, said = stopped.ended()
    assert codes == [0] * 4, said
    assert f"resuming after step {step}" in said[0] and said[1:] == [""] * 3, said
    assert_each_row_ends_once_an_epoch(table, stopped.folder, 2)

    step = stopped.steps()[-1]
    killed = start(1)
    killed.wait_for_step(step + 6)
    killed.processes[0].kill()
    killed.ended()
    ended = assert_each_row_ends_once_an_epoch(table, killed.folder, 3)

    step = killed.steps()[-1]
    finished = start(2, step + 30)
    codes, said = finished.ended()
    assert codes == [0, 0] and f"resuming after step {step}" in said[0], said
    last = assert_each_row_ends_once_an_epoch(table, finished.folder, 4)
    assert not ended - last and position(finished.folder)["counts"]["ok"] == 10 + 4 * (step + 30)
    assert max(last.values()) >= 2, "more than an epoch"
    # the logs of processes that the run no longer has end with the checkpoint
    for process, size in position(finished.folder)["logged"].items():
        name = f"outcomes-{process}.jsonl" if process != "0" else "outcomes.jsonl"
        assert (finished.folder / name).stat().st_size == size
    assert position(finished.folder)["logged"].keys() == {"0", "1", "2", "3"}
    report = (finished.folder / "report.html").read_text()
    assert "Outcome of the rows" in report and "the server answered 404" in report


@pytest.fixture
def half_away(server: HostileServer, tmp_path: Path) -> Iterator[tuple[Path, MortalServer]]:
    """Two tables, of which process 1 of two reads the one whose server may go away."""
    with MortalServer() as mortal:
        away = np.random.default_rng([0, 0]).permutation(2)[1]
        for number in range(2):
            urls = [
                mortal.url(i) if number == away else server.url("good", i)
                for i in range(number * 75, number * 75 + 75)
            ]
            write_coyo(tmp_path / "table" / f"{number}.parquet", 75, url=urls)
        yield tmp_path / "table", mortal


@pytest.mark.slow
def test_a_signal_ends_all_while_one_process_waits_for_the_network(
    half_away: tuple[Path, MortalServer], bundle: Path, tmp_path: Path
):
    table, mortal = half_away
    stopped = StreamProcesses("run", 2, bundle, table, tmp_path, "--steps", "30")
    stopped.wait_for_step(3)
    mortal.kill()
    step, since = 0, time.monotonic()
    while time.monotonic() < since + 15:
        if (newest := stopped.steps()[-1]) != step:
            step, since = newest, time.monotonic()
        time.sleep(0.1)
    assert stopped.processes[0].poll() is None and step < 30
    stopped.processes[0].send_signal(signal.SIGTERM)
    codes, said = stopped.ended(60)
    assert codes == [0, 0], said
    assert "process 1: none of " in said[0] and "Training waits for the network" in said[0], said
    assert "the same command resumes" in said[0]
    mortal.revive()
    resumed = StreamProcesses("run", 2, bundle, table, tmp_path, "--steps", "30")
    codes, said = resumed.ended()
    assert codes == [0, 0] and "resuming after step" in said[0], said
    assert_each_row_ends_once_an_epoch(table, resumed.folder, 2)


@pytest.mark.slow
def test_if_the_network_of_one_process_stays_away_all_end_with_the_reason(
    half_away: tuple[Path, MortalServer], bundle: Path, tmp_path: Path
):
    table, mortal = half_away
    ended = StreamProcesses(
        "run", 2, bundle, table, tmp_path, "--steps", "30", "--outage_hours", "0.01"
    )
    ended.wait_for_step(3)
    mortal.kill()
    codes, said = ended.ended()
    assert codes == [1, 1], said
    assert "the data ended after step" in said[0] and "process 1: none of " in said[0], said
    assert "(--outage_hours)" in said[0] and "the same command resumes" in said[0]
    step = ended.steps()[-1]
    assert position(ended.folder)["counts"] == {"ok": 10 + 4 * step}
    assert_each_row_ends_once_an_epoch(table, ended.folder, 2)


@pytest.mark.slow
def test_two_processes_take_images_of_several_sizes(bundle: Path, tmp_path: Path):
    """Each has all sizes, in another order; a batch has one size."""
    (tmp_path / "pictures").mkdir()
    pictures = write_captioned(tmp_path / "pictures", 64, ((24, 20), (30, 18), (18, 30), (26, 24)))

    def start(count: int, steps: int) -> StreamProcesses:
        more = ["--images.bucket_step", "4", "--steps", str(steps)]
        return StreamProcesses("run", count, bundle, pictures, tmp_path, *more, kind="folder")

    codes, said = start(2, 8).ended()
    assert codes == [0, 0] and "3 image sizes (the step compiles once for each)" in said[0], said
    run = start(1, 20)
    codes, said = run.ended()
    assert codes == [0] and "resuming after step 8" in said[0], said
    times = times_ended(run.folder)
    assert times.total() == 10 + 80 and len(times) == 64
    assert max(times.values()) <= 3


def test_processes_that_would_compute_the_same_samples_are_refused(
    server: HostileServer, bundle: Path, tmp_path: Path
):
    table = write_tables(server, tmp_path / "table", 1)
    both = StreamProcesses("run", 2, bundle, table, tmp_path, "--mesh", "tensor=2")
    codes, said = both.ended()
    assert codes == [2, 2], said
    problem = "mesh: 'data=1,fsdp=1,tensor=2' is not possible with streamed data: several processes"
    assert problem in said[0] and not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_hosts_without_a_common_folder_keep_logs_of_their_own(
    server: HostileServer, bundle: Path, tmp_path: Path
):
    table = write_tables(server, tmp_path / "table", 5)

    def start(count: int, steps: int) -> StreamProcesses:
        more = ["--steps", str(steps)]
        return StreamProcesses("run", count, bundle, table, tmp_path, *more, apart=True)

    for steps in (7, 14):
        codes, said = start(2, steps).ended()
        assert codes == [0, 0] and said[1] == "", said
    own, other = tmp_path / "run", tmp_path / "host-1" / "run"
    assert sorted(path.name for path in other.iterdir()) == ["outcomes-1.jsonl"]
    assert not (own / "outcomes-1.jsonl").exists()
    assert (other / "outcomes-1.jsonl").stat().st_size == position(own)["logged"]["1"]
    (other / "outcomes-1.jsonl").rename(own / "outcomes-1.jsonl")
    assert_each_row_ends_once_an_epoch(table, own, 1)
