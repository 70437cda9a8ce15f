"""The limits per host and the pauses of hosts hold over threads, fetchers and processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from polite_server import NETWORK, PoliteServer, ends_of, fetch_in_process

from pinxit.data.fetch import machine_limits
from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.fetch.machine_limits import MachineLimits, limits_of_machine, shared_folder
from pinxit.data.fetch.shared_fetcher import SharedFetcher, fetch_all
from pinxit.data.fetch.shared_pauses import LONGEST, RECORDS, SharedPauses

HOST = "127.3.0.1"
CONFIG = FetchConfig(allow_networks=(NETWORK,), retries=0, timeout=20)


@pytest.fixture
def server() -> Iterator[PoliteServer]:
    with PoliteServer() as running:
        yield running


def urls_of(server: PoliteServer, host: str, kind: str, count: int) -> list[str]:
    return [server.url(host, kind, number) for number in range(count)]


# --- processes --------------------------------------------------------------------------------


def test_four_processes_together_keep_the_limit_of_one_host(server):
    others = [f"127.3.1.{n}" for n in range(1, 5)]
    lists = [
        [
            url
            for i in range(30)
            for url in (server.url(HOST, "good", i), server.url(own, "good", i))
        ]
        for own in others
    ]
    processes = [fetch_in_process(urls, per_host=3) for urls in lists]
    for process, urls in zip(processes, lists, strict=True):
        assert ends_of(process) == dict.fromkeys(urls, "ok")
    assert server.most[HOST] == 3 and server.requests(HOST) == 120
    assert max(server.most[own] for own in others) == 3


def test_without_a_shared_folder_each_process_has_the_limit(server, monkeypatch):
    monkeypatch.setenv(machine_limits.VARIABLE, machine_limits.ALONE)
    server.delay = 3.0
    processes = [fetch_in_process(urls_of(server, HOST, "good", 3), per_host=3) for _ in range(2)]
    for process in processes:
        assert set(ends_of(process).values()) == {"ok"}
    assert 3 <= server.most[HOST] <= 6
    assert shared_folder() is None


def test_a_process_that_is_killed_leaves_its_slots_to_the_others(server):
    first = fetch_in_process(urls_of(server, HOST, "hang", 2), per_host=2, timeout=600)
    assert server.hanging.wait(60)
    while server.now[HOST] < 2:
        pass
    second = fetch_in_process(urls_of(server, HOST, "good", 2), per_host=2)
    other = fetch_in_process(urls_of(server, "127.3.0.9", "good", 2), per_host=2)
    assert set(ends_of(other).values()) == {"ok"}, "another host is not waited for"
    assert server.requests(HOST) == 2 and second.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    assert set(ends_of(second).values()) == {"ok"} and server.most[HOST] == 2


@pytest.mark.parametrize(("seconds", "status"), [(2, "ok"), (60, "http_429")])
def test_a_pause_that_one_process_was_asked_for_is_kept_by_the_others(server, seconds, status):
    server.pauses[HOST] = 1
    kind = f"pause-{seconds}"
    one = fetch_in_process([server.url(HOST, kind, 0)], per_host=1)
    assert list(ends_of(one).values()) == ["http_429"]
    others = [fetch_in_process(urls_of(server, HOST, kind, 3), per_host=1) for _ in range(2)]
    for process in others:
        assert set(ends_of(process).values()) == {status}
    times = [time for _, _, time in server.seen]
    if status == "ok":
        assert len(times) == 7 and times[1] - times[0] >= 0.99 * seconds
    else:
        assert len(times) == 1, "nobody asked again"


# --- one process ------------------------------------------------------------------------------


def test_lists_of_one_fetcher_and_other_fetchers_share_the_limit(server):
    config = FetchConfig(allow_networks=(NETWORK,), per_host=2)
    with SharedFetcher(config) as fetcher:
        lists = [fetcher.fetch(enumerate(urls_of(server, HOST, "good", 20))) for _ in range(2)]
        lists.append(fetch_all(enumerate(urls_of(server, HOST, "good", 20)), config))
        firsts = [next(results) for results in lists]
        ends = [*firsts, *(end for results in lists for end in results)]
    assert [fetched.status for _, fetched in ends] == ["ok"] * 60
    assert server.most[HOST] == 2


def test_a_pause_is_kept_over_the_lists_of_one_fetcher(server):
    server.pauses[HOST] = 8
    asked = 0
    with SharedFetcher(CONFIG) as fetcher:
        for _ in range(3):
            ends = dict(fetcher.fetch(enumerate(urls_of(server, HOST, "pause-600", 20))))
            assert {fetched.status for fetched in ends.values()} == {"http_429"}
            asked = asked or server.requests(HOST)
        assert server.requests(HOST) == asked <= 8, "nobody asked again"


def test_hosts_that_could_not_be_reached_are_tried_again_once_they_are_forgotten():
    url = f"http://{HOST}:1/"
    with SharedFetcher(CONFIG) as fetcher:
        details = []
        for turn in range(3):
            if turn == 2:
                fetcher.forget_failures()
            ends = dict(fetcher.fetch((i, url) for i in range(20)))
            details.append(sum("a moment ago" in fetched.detail for fetched in ends.values()))
    assert details[0] < 20 and details[1] == 20 and details[2] < 20


def test_closing_one_list_leaves_the_others(server):
    with SharedFetcher(CONFIG) as fetcher:
        urls = [server.url(HOST, "good", 0), server.url("127.3.0.2", "hang", 1)]
        hanging = fetcher.fetch(enumerate(urls))
        good = fetcher.fetch(enumerate(urls_of(server, HOST, "good", 30)))
        next(hanging), next(good)
        assert server.hanging.wait(60)
        hanging.close()
        assert len(list(good)) == 29


# --- the slots --------------------------------------------------------------------------------


def in_process(folder: Path, code: str) -> str:
    """Runs code with `limits` in another process, and returns what it printed."""
    start = "from pathlib import Path; from pinxit.data.fetch.machine_limits import MachineLimits\n"
    start += f"limits = MachineLimits(Path({str(folder)!r}))\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_slots_are_numbered_per_host_and_given_back(tmp_path):
    limits = MachineLimits(tmp_path)
    assert [limits.take("a.test", 2) for _ in range(3)] == [0, 1, None]
    assert limits.take("b.test", 2) == 0 and limits.take("A.TEST", 3) == 2
    assert (
        in_process(tmp_path, "print(limits.take('a.test', 2), limits.take('a.test', 4))")
        == "None 3"
    )
    limits.give("a.test", 0)
    limits.give("a.test", 2)
    assert (
        in_process(tmp_path, "print([limits.take('a.test', 3) for _ in range(3)])")
        == "[0, 2, None]"
    )
    limits.close()
    assert limits._files, "slots are in use"
    for host, slot in (("a.test", 1), ("b.test", 0)):
        limits.give(host, slot)
    limits.close()
    assert not limits._files and limits.take("a.test", 1) == 0


class Other:
    """Another process, whose limits are asked a step at a time."""

    def __init__(self, folder: Path) -> None:
        code = "import sys; from pathlib import Path\n"
        code += "from pinxit.data.fetch.machine_limits import MachineLimits\n"
        code += f"limits = MachineLimits(Path({str(folder)!r}))\n"
        code += "for line in sys.stdin: print(eval(line), flush=True)"
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True
        )

    def __call__(self, code: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"limits.{code}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


def test_a_process_without_a_slot_gets_the_next_one(tmp_path):
    limits, other = MachineLimits(tmp_path), Other(tmp_path)
    assert [limits.take("a.test", 2) for _ in range(2)] == [0, 1]
    assert other("take('a.test', 2)") == "None"
    limits.give("a.test", 0)
    assert limits.take("a.test", 2) is None, "the other one has none"
    other("give_up_all()")
    assert limits.take("a.test", 2) == 0, "it does not want one"
    assert other("take('a.test', 2)") == "None"
    limits.give("a.test", 0)
    assert limits.take("a.test", 2) is None and other("take('a.test', 2)") == "0"
    limits.give("a.test", 1)
    assert limits.take("a.test", 2) == 1, "now both have some"
    other.process.communicate()


def test_slots_of_one_process_alone():
    limits = MachineLimits(None)
    assert [limits.take("a.test", 1), limits.take("a.test", 1)] == [0, None]
    limits.give_up("a.test")


def test_the_folder_belongs_to_the_user_alone(tmp_path, monkeypatch):
    folder = tmp_path / "limits"
    monkeypatch.setenv(machine_limits.VARIABLE, str(folder))
    assert shared_folder() == folder and limits_of_machine() is limits_of_machine()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert shared_folder() is None
    folder.rmdir()
    folder.symlink_to(tmp_path)
    assert shared_folder() is None, "a link of someone else's"
    folder.unlink()
    folder.touch()
    assert shared_folder() is None
    monkeypatch.delenv(machine_limits.VARIABLE)
    monkeypatch.setattr(machine_limits, "MEMORY", tmp_path)
    assert shared_folder() == tmp_path / f"pinxit-{os.getuid()}"


# --- the pauses -------------------------------------------------------------------------------


def test_pauses_are_shared_until_they_are_over(tmp_path):
    now = [1000.0]
    one, other = (SharedPauses(tmp_path / "pauses", clock=lambda: now[0]) for _ in range(2))
    alone = SharedPauses(None, clock=lambda: now[0])
    for subject in (one, alone):
        assert subject.left("a.test") is None
        subject.ask("a.test", 429, 10)
        subject.ask("a.test", 503, 5)
    assert (
        other.left("A.test") == alone.left("a.test") == (10, 503) and other.left("b.test") is None
    )
    now[0] += 11
    assert other.left("a.test") is None and alone.left("a.test") is None
    one.ask("a.test", 429, 1e9)
    assert other.left("a.test") == (LONGEST, 429)
    now[0] -= 100  # the clock was put back
    assert other.left("a.test") is None


def test_a_full_bucket_forgets_the_pause_that_ends_first(tmp_path, monkeypatch):
    monkeypatch.setattr("pinxit.data.fetch.shared_pauses.BUCKETS", 1)
    pauses = SharedPauses(tmp_path / "pauses")
    for number in range(RECORDS + 1):
        pauses.ask(f"host{number}", 429, 100 + number)
    assert [pauses.left(f"host{number}") is not None for number in range(RECORDS + 1)] == [
        False, *[True] * RECORDS
    ]  # fmt: skip
    data = bytearray((tmp_path / "pauses").read_bytes())
    data[30] ^= 1
    (tmp_path / "pauses").write_bytes(data)
    assert (
        sum(pauses.left(f"host{number}") is not None for number in range(RECORDS + 1))
        == RECORDS - 1
    )


def test_a_folder_that_is_gone_or_full_stops_nothing(tmp_path):
    limits = MachineLimits(tmp_path / "none")
    assert limits.take("a.test", 1) == 0
    limits.give("a.test", 0)
    limits.pauses.ask("a.test", 429, 5)
    assert limits.pauses.left("a.test") is not None
