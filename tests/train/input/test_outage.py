"""Waiting for a network or a source: what is said, when the wait ends, and that no row is lost."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from coyo_files import write_coyo
from mortal_server import NETWORK, MortalServer

from pinxit.config import UsageError
from pinxit.data.fetch.fetcher import FetchConfig, Fetched
from pinxit.data.fetch.shared_fetcher import fetch_all
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import ImageConfig
from pinxit.data.row import Row, Unit
from pinxit.data.sources.catalogue import open_source
from pinxit.train.input.attempt_order import Attempts
from pinxit.train.input.image_stream import Stream
from pinxit.train.input.outage import LEAST, Ended, Outage, patiently
from pinxit.train.settings import TrainConfig

FETCH = FetchConfig(
    allow_networks=(NETWORK,), timeout=2, connect_timeout=1, retries=0, concurrency=1
)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def outage_of(hours: float, lines: list[str], time: Time) -> Outage:
    return Outage(hours=hours, say=lines.append, sleep=time.sleep, clock=lambda: time.now)


def test_a_wait_says_what_for_since_when_and_how_much_longer():
    lines: list[str] = []
    time = Time()
    outage = outage_of(3, lines, time)
    outage.wait("no host answers", "the network", lambda: time.now >= 1800)
    assert lines[0].startswith("no host answers. Training waits for the network since 20")
    assert "for at most 3h00m (--outage_hours), and then goes on. No row is lost" in lines[0]
    assert 4 <= len(lines) - 2 <= 7 and lines[1].startswith("still waiting for the network: 1m")
    assert lines[1].endswith("for at most 2h58m more")
    assert lines[-1].startswith("the network can be reached again after 30m")
    assert 1800 <= time.now <= 1830 and outage.total == pytest.approx(time.now)


@pytest.mark.parametrize(("hours", "limit"), [(0, LEAST), (0.5, 1800)])
def test_a_wait_ends_at_its_limit(hours: float, limit: float):
    time = Time()
    outage = outage_of(hours, [], time)
    with pytest.raises(
        Ended, match=r"^no host answers, for .* since .* \(--outage_hours\)\. Is th"
    ):
        outage.wait("no host answers", "the network", lambda: False)
    assert limit <= time.now <= limit + 1


def test_a_wait_hears_that_the_run_is_to_stop_also_while_a_connection_hangs():
    hanging = threading.Event()
    outage = Outage(hours=1)
    outage.stopping = lambda: True
    with pytest.raises(Ended, match="closed"):
        outage.wait("no host answers", "the network", lambda: False)
    outage.stopping = hanging.is_set
    with pytest.raises(Ended, match="closed"):
        outage.tested(lambda: bool(hanging.set()) or threading.Event().wait(5))


def test_the_limit_is_a_number_of_hours():
    with pytest.raises(UsageError, match=r"^outage_hours: -1 is too small; valid: at least 0"):
        TrainConfig(outage_hours=-1)
    assert Outage(hours=0.5).limit == 1800


def test_an_error_of_the_test_is_raised():
    with pytest.raises(ZeroDivisionError):
        Outage(hours=1).tested(lambda: 1 // 0 == 1)


@pytest.fixture
def server() -> Iterator[MortalServer]:
    with MortalServer() as running:
        yield running


def stream_of(
    path: Path, say: list[str], *, hours: float = 1, fetch: FetchConfig = FETCH
) -> Stream:
    return Stream(
        open_source("coyo", path=str(path)),
        filters=FilterConfig(min_side=1),
        fetch=fetch,
        images=ImageConfig(size=16, workers=1, max_repeats=0),
        outage=Outage(hours=hours, say=say.append),
    )


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the fetcher finish requests in their order: one at a time, however long it takes."""
    monkeypatch.setattr("pinxit.data.fetch.request_turns.PATIENCE", 1e6)


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("seconds", [0.0, 2.5])
def test_after_an_outage_the_rows_come_in_the_same_order(
    server: MortalServer, tmp_path: Path, seconds: float
):
    path = write_coyo(tmp_path / "t.parquet", 120, url=[server.url(i) for i in range(120)])
    said: list[str] = []
    stream = stream_of(path, said)
    keys: list[str] = []
    for number, image in enumerate(itertools.islice(stream.row_images(), 100)):
        keys.append(image.attempt.row.key)
        stream.settle([image.attempt])
        if number == 30 and seconds:
            server.kill()
            threading.Timer(seconds, server.revive).start()
    assert keys == [
        str(attempt)
        for attempt in itertools.islice(Attempts(stream.source, stream.attempts.filters), 100)
    ]
    assert stream.counts == {"ok": 100}
    assert len(said) == (2 if seconds else 0), said
    if seconds:
        assert "could be reached in" in said[0] and "connect: " in said[0]
        assert said[1].startswith("the network can be reached again after")


def test_many_requests_at_once_lose_no_row(server: MortalServer, tmp_path: Path):
    path = write_coyo(tmp_path / "t.parquet", 400, url=[server.url(i) for i in range(400)])
    said: list[str] = []
    stream = stream_of(path, said, fetch=dataclasses.replace(FETCH, concurrency=16))
    keys: list[str] = []
    for number, image in enumerate(itertools.islice(stream.row_images(), 250)):
        keys.append(image.attempt.row.key)
        stream.settle([image.attempt])
        if number == 60:
            server.kill()
            threading.Timer(2, server.revive).start()
    assert len(set(keys)) == 250 and stream.counts == {"ok": 250} and len(said) == 2, said


def test_a_position_taken_during_an_outage_repeats_its_rows(server: MortalServer, tmp_path: Path):
    path = write_coyo(tmp_path / "t.parquet", 120, url=[server.url(i) for i in range(120)])
    stream = stream_of(path, [])
    stream.outage.say = lambda line: server.kill()
    keys: list[str] = []
    with pytest.raises(Ended, match="closed"):
        for number, image in enumerate(stream.row_images()):
            keys.append(image.attempt.row.key)
            position = stream.settle([image.attempt])
            if number == 30:
                server.kill()
                stream.outage.stopping = lambda: bool(stream.patient.doubtful)
    assert stream.settle(()).counts == {"ok": len(keys)} == position.counts
    server.revive()
    later = Stream(
        stream.source,
        filters=stream.attempts.filters,
        fetch=FETCH,
        images=stream.images,
        start=stream.position([stream.settle(())]),
    )
    keys += [
        image.attempt.row.key for image in itertools.islice(later.row_images(), 120 - len(keys))
    ]
    assert len(keys) == len(set(keys)) == 120


def test_without_any_network_a_new_run_ends_soon(tmp_path: Path):
    urls = [f"http://127.0.0.{2 + i % 100}:9/{i}" for i in range(300)]
    path = write_coyo(tmp_path / "t.parquet", 300, url=urls)
    time, said = Time(), list[str]()
    stream = stream_of(path, said, fetch=dataclasses.replace(FETCH, ports=(9,), concurrency=64))
    stream.outage = outage_of(6, said, time)
    with pytest.raises(Ended, match=r"none of \d+ hosts could be reached in 64 consecutive attem"):
        next(stream.row_images())
    assert LEAST <= time.now <= LEAST + 1 and "at most 1m30s" in said[0]
    assert stream.settle(()).counts == {}


def test_rows_of_dead_hosts_are_dead_if_others_answer(server: MortalServer, tmp_path: Path):
    dead = [f"http://127.0.1.{i}:{server.port + 1}/{i}" for i in range(90)]
    alive = [server.url(i) for i in range(10)]
    path = write_coyo(tmp_path / "t.parquet", 100, url=alive + dead)
    said: list[str] = []
    stream = stream_of(path, said, fetch=dataclasses.replace(FETCH, concurrency=16))
    stream.patient.settle_seconds = 0.0  # the run is over within a second
    for image in itertools.islice(stream.row_images(), 20):
        stream.settle([image.attempt])
    assert stream.settle(()).counts["connect"] >= 80 and said == []


def test_a_row_of_a_host_that_answered_fails_twice_before_it_is_dead(
    server: MortalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A moment's outage that is too short to be noticed costs no row."""
    path = write_coyo(tmp_path / "t.parquet", 120, url=[server.url(i) for i in range(120)])
    said: list[str] = []
    stream, failures = stream_of(path, said), iter([50, 51, 52])
    stream.patient.settle_seconds = 0.0  # within the first epoch

    def shaky(links, *, config):
        number = next(failures, -1)
        for count, (keys, fetched) in enumerate(fetch_all(links, config=config)):
            if count == number:
                number = next(failures, -1)
                fetched = Fetched("connect", None, "broken", reached=False)
            yield keys, fetched

    monkeypatch.setattr("pinxit.train.input.image_stream.fetch_all", shaky)
    keys = set[str]()
    for image in itertools.islice(stream.row_images(), 120):
        keys.add(image.attempt.row.key)
        stream.settle([image.attempt])
    assert len(keys) == 120 and stream.counts == {"ok": 120} and said == []


class Remote:
    """A source of two files, on a server that is away at times."""

    name, revision, has_images, unit_rows, columns = "toy", "1", False, None, None
    unused = ()

    def __init__(self, away: dict[str, int], error: Exception) -> None:
        self.away = away
        """Number of reads that fail, by unit."""
        self.error = error

    def units(self, *, limit: int | None = None) -> list[Unit]:
        return [Unit("000", "a"), Unit("001", "b")][:limit]

    def read(self, unit: Unit) -> Iterator[Row]:
        for number in range(5):
            if number == 2 and self.away.get(unit.id, 0):
                self.away[unit.id] -= 1
                raise self.error
            yield Row(f"{unit.id}/{number:08d}", "http://a.b/", "some words here", 500, 500)

    def count(self, unit: Unit) -> int:
        return 5


def order_of(source: Remote, said: list[str], time: Time, count: int = 10) -> list[str]:
    attempts = Attempts(source, FilterConfig(), outage=outage_of(1, said, time), say=said.append)
    return [str(attempt) for attempt in itertools.islice(attempts, count)]


def test_a_source_that_is_away_is_waited_for():
    class Away(Remote):
        def read(self, unit: Unit) -> Iterator[Row]:
            if 5 <= time.now < 600:
                raise ConnectionError("refused")
            for row in super().read(unit):
                time.now += 1
                yield row

    time, said = Time(), list[str]()
    expected = order_of(Remote({}, OSError()), [], Time())
    assert order_of(Away({}, OSError()), said, time) == expected
    assert "cannot be read: refused" in said[0] and "the source of toy can be rea" in said[-1]
    assert 600 <= time.now < 700


def test_one_file_that_is_away_is_skipped_as_before():
    time, said = Time(), list[str]()
    keys = order_of(Remote({"000": 99}, ConnectionError("refused")), said, time, 7)
    assert {key[:3] for key in keys[2:]} | {"000"} == {"000", "001"}
    assert any("skipping the rest of unit 000" in line for line in said)


def test_a_damaged_file_is_not_waited_for():
    time, said = Time(), list[str]()
    order_of(Remote({"000": 99}, OSError(5, "Input/output error")), said, time, 7)
    assert not any("waits for" in line for line in said)


def test_a_source_that_cannot_be_listed_is_waited_for():
    time, said = Time(), list[str]()

    def listed() -> str:
        if time.now < 100:
            raise UsageError("the hub cannot be reached") from ConnectionError("refused")
        return "listed"

    assert patiently(listed, outage_of(1, said, time), "coyo") == "listed" and time.now >= 100
    assert said[0].startswith("coyo cannot be reached: the hub cannot be reached. Training waits")

    def wrong() -> str:
        raise UsageError("no such dataset")

    with pytest.raises(UsageError, match="no such dataset"):
        patiently(wrong, outage_of(1, said, time), "coyo")
