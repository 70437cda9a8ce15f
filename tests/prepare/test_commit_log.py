"""Logs of commits: which line counts, what a kill leaves, and what readers read."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import prepare_work as work  # pyrefly: ignore
import prepared_toys as toys  # pyrefly: ignore
import pytest

from pinxit.data.prepared.manifest import Manifest
from pinxit.files import DiskFull
from pinxit.prepare.commit_log import CommitLog
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.stages import run_images

HERE = Path(__file__).parents[1]


def fresh(folder: Path) -> CommitLog:
    """The log as another process sees it."""
    log = CommitLog(folder)
    log.refresh()
    return log


def commit(log: CommitLog, unit: str, value: object) -> None:
    log.refresh()
    log.append([{"unit": unit, "value": value}])


def value(log: CommitLog, unit: str) -> object:
    log.refresh()
    record = log.read(unit)
    return record and record["value"]


def logs(folder: Path) -> list[Path]:
    return sorted(folder.glob("log-*.jsonl"))


def test_two_writers_share_no_file_and_see_each_other(tmp_path):
    first, second = CommitLog(tmp_path), CommitLog(tmp_path)
    for number in range(5):
        commit(first, f"a{number}", number)
        commit(second, f"b{number}", -number)
    assert [len(path.read_text().splitlines()) for path in logs(tmp_path)] == [5, 5]
    for log in (first, second, fresh(tmp_path)):
        assert [value(log, f"a{n}") for n in range(5)] == [0, 1, 2, 3, 4]
        assert value(log, "b4") == -4 and len(log) == 10
        assert dict(log.each())["b3"]["value"] == -3


def test_the_highest_version_counts_whatever_the_clocks_say(tmp_path):
    first, second = CommitLog(tmp_path), CommitLog(tmp_path)
    commit(first, "a", "old")
    commit(second, "a", "new")
    os.utime(logs(tmp_path)[0], (1, 1))
    os.utime(logs(tmp_path)[1], (2, 2))
    commit(first, "b", "later, in the older log")
    assert {value(log, "a") for log in (first, second, fresh(tmp_path))} == {"new"}
    commit(first, "a", "newest")
    assert {value(log, "a") for log in (first, second, fresh(tmp_path))} == {"newest"}


def test_a_line_without_an_end_is_no_commit(tmp_path):
    writer, reader = CommitLog(tmp_path), CommitLog(tmp_path)
    commit(writer, "a", 1)
    assert value(reader, "a") == 1
    path = logs(tmp_path)[0]
    whole = path.read_bytes()
    commit(writer, "b", 2)
    second = path.read_bytes()[len(whole) :]
    for cut in (1, len(second) // 2, len(second) - 1):
        path.write_bytes(whole + second[:cut])
        for log in (reader, fresh(tmp_path)):
            assert value(log, "a") == 1 and value(log, "b") is None
    path.write_bytes(whole + second)  # the writer was only slow
    assert value(reader, "b") == 2


def test_a_damaged_line_loses_its_unit_only(tmp_path):
    writer = CommitLog(tmp_path)
    for name in "abc":
        commit(writer, name, name)
    path = logs(tmp_path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b"\0" * (len(lines[1]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    log = fresh(tmp_path)
    assert [value(log, name) for name in "abc"] == ["a", None, "c"]
    commit(log, "b", "again")
    assert value(fresh(tmp_path), "b") == "again"


def test_readers_read_only_what_was_appended(tmp_path, monkeypatch):
    writer, reader = CommitLog(tmp_path), CommitLog(tmp_path)
    writer.append([{"unit": f"{n:05d}", "value": "x" * 100} for n in range(1000)])
    reader.refresh()
    real, sizes = os.pread, []

    def counted(handle, size, offset):
        data = real(handle, size, offset)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    reader.refresh()
    assert sum(sizes) == 0
    commit(writer, "new", 1)
    sizes.clear()
    reader.refresh()
    assert 0 < sum(sizes) < 200 and len(reader) == 1001


def test_a_folder_that_was_replaced_is_read_again(tmp_path):
    writer, reader = CommitLog(tmp_path), CommitLog(tmp_path)
    commit(writer, "a", 1)
    commit(writer, "b", 1)
    reader.refresh()
    for path in logs(tmp_path):
        path.unlink()
    assert value(reader, "a") is None and reader.units() == []
    commit(writer, "c", 3)
    assert value(reader, "c") == 3 and value(fresh(tmp_path), "c") == 3


@pytest.mark.filterwarnings("ignore:.*os.fork:RuntimeWarning")
def test_a_forked_process_begins_a_log_of_its_own(tmp_path):
    log = CommitLog(tmp_path)
    commit(log, "a", 1)
    if (child := os.fork()) == 0:
        commit(log, "b", 2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert len(logs(tmp_path)) == 2 and value(log, "b") == 2


def test_a_full_disk_commits_nothing_and_begins_another_log(tmp_path):
    log = CommitLog(tmp_path)
    commit(log, "a", 1)
    size = logs(tmp_path)[0].stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(DiskFull):
            commit(log, "b", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert value(log, "b") is None and value(fresh(tmp_path), "a") == 1
    commit(log, "b", 3)
    assert value(fresh(tmp_path), "b") == 3 and len(logs(tmp_path)) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
import prepare_work as work
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.stages import run_images

real, count = os.write, 0

def write(handle, data):
    global count
    if os.readlink(f"/proc/self/fd/{handle}").endswith(".jsonl"):
        count += 1
        if count == 2:
            real(handle, bytes(data)[: int(float(sys.argv[2]) * len(data))])
            os.kill(os.getpid(), signal.SIGKILL)
    return real(handle, data)

os.write = write
run_images(work.stage(Path(sys.argv[1])), InlineEngine())
"""


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_kill_in_the_middle_of_a_commit(tmp_path, part):
    """With 0.0, it is between the rename of the shard and the commit."""
    killed, plain = tmp_path / "killed", tmp_path / "plain"
    paths = os.pathsep.join([str(HERE.parent), str(HERE / "stand_ins")])
    environment = {**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", KILLED, str(killed), str(part)]
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert toys.committed(killed) == {"00000-000"}
    assert (killed / "outcomes" / "00001-000.parquet").is_file()  # written, and not committed
    web = work.ToyWeb()
    assert run_images(work.stage(killed, web=web), InlineEngine()).exit_code == 0
    assert not any("host0.test/good/0" in url for url in web.asked)  # of the first unit
    assert run_images(work.stage(plain), InlineEngine()).exit_code == 0
    assert toys.content(killed) == toys.content(plain)


def test_a_folder_of_an_older_version_goes_on(tmp_path):
    """Its units have a file each. Those that are done again get a line."""
    old, plain = tmp_path / "old", tmp_path / "plain"
    run_images(work.stage(old), InlineEngine(), limit=2)
    toys.as_older_version(old)
    assert not logs(old / "units" / "images") and len(Ledger(old, "images").records()) == 2
    web = work.ToyWeb()
    assert run_images(work.stage(old, web=web), InlineEngine()).manifest.rows == 75
    assert len(logs(old / "units" / "images")) == 1
    assert all(int(url.rpartition("/")[2]) >= 50 for url in web.asked)  # of the last unit
    run_images(work.stage(plain), InlineEngine())
    assert toys.content(old) == toys.content(plain)
    for folder in (old, plain):
        stage = work.stage(folder, web=work.ToyWeb(healed=True), retry=True)
        assert run_images(stage, InlineEngine()).exit_code == 0
    assert toys.content(old) == toys.content(plain)
    assert Manifest.read(old).files["images"][0].name == "00000-000~1.array_record"
    assert json.loads((old / "units/images/00000-000.json").read_text())["generation"] == 0
