"""Whole runs of `pinxit prepare` while servers or the network go away: no row is lost to that."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from coyo_files import write_coyo
from mortal_server import NETWORK, MortalServer
from prepared_toys import content

from pinxit.cli.main import main
from pinxit.data.prepared.manifest import Manifest
from pinxit.prepare import second_round
from pinxit.prepare.images import OPEN_UNITS

ROWS = 120
"""Rows of a table, in units of 40."""
ENGINES = {
    "inline": ["--engine", "inline"],
    "local": ["--engine", "local", "--workers", "2"],
    "rank": ["--engine", "rank", "--rank", "0", "--world", "1", "--workers", "1"],
}


EACH = pytest.mark.parametrize(
    "engine", ["inline", "local", pytest.param("rank", marks=pytest.mark.slow)]
)
FEW = pytest.mark.parametrize(
    "engine",
    ["inline", *(pytest.param(name, marks=pytest.mark.slow) for name in ("local", "rank"))],
)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[MortalServer, MortalServer]]:
    with MortalServer() as first, MortalServer() as second:
        yield first, second


@pytest.fixture
def server(servers: tuple[MortalServer, MortalServer]) -> MortalServer:
    """A server that is 40 hosts."""
    return servers[0]


@pytest.fixture
def other(servers: tuple[MortalServer, MortalServer]) -> MortalServer:
    """Another server, which is one host."""
    return servers[1]


@pytest.fixture(scope="module")
def table(servers: tuple[MortalServer, MortalServer], tmp_path_factory) -> Path:
    """A table whose URLs are half of the first server's and half of the second's."""
    path = tmp_path_factory.mktemp("a table") / "t.parquet"
    one = f"http://127.0.1.5:{servers[1].port}"
    return table_of(path, [f"{one}/{i}" if i % 2 else servers[0].url(i) for i in range(ROWS)])


@pytest.fixture(scope="module")
def calm(table: Path, tmp_path_factory) -> tuple[str, dict[str, object]]:
    """What a run without an outage makes of the table."""
    out = tmp_path_factory.mktemp("calm") / "out"
    assert main(words(table, out, "--engine", "inline")) == 0
    return prepared(out)


def words(table: Path, out: Path, *more: object) -> list[str]:
    given = ["prepare", "coyo", "--dataset_path", table, "--out", out, "--vae", "none"]
    given += ["--image_size", 16, "--unit_rows", 40, "--images.workers", 1]
    given += ["--fetch.allow_networks", NETWORK, "--fetch.retries", 0, "--fetch.concurrency", 4]
    given += ["--fetch.timeout", 30, "--fetch.connect_timeout", 10, "--outage_hours", 0.0017]
    return [str(word) for word in [*given, *more]]


def table_of(path: Path, urls: list[str]) -> Path:
    return write_coyo(path, len(urls), group=40, url=urls)


@contextmanager
def away(*servers: MortalServer, after: int, seconds: float) -> Iterator[None]:
    """Takes servers away for some seconds once the last of them has answered so often."""
    enough, gone = servers[-1]._server.answered + after, threading.Event()

    def work() -> None:
        while servers[-1]._server.answered < enough:
            time.sleep(0.002)
        for one in servers:
            one.kill()
        gone.set()
        time.sleep(seconds)
        for one in servers:
            one.revive()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    assert gone.is_set()
    thread.join()


def prepared(out: Path) -> tuple[str, dict[str, object]]:
    """The fingerprint of a set and its bytes, without the report and what runs differ in."""
    apart = ("report", "manifest.json")
    data = {name: raw for name, raw in content(out).items() if not name.startswith(apart)}
    return Manifest.read(out).fingerprint(), data


@EACH
def test_an_outage_of_the_network_leaves_no_trace(
    server: MortalServer,
    other: MortalServer,
    table: Path,
    calm: object,
    tmp_path: Path,
    engine: str,
    capsys: pytest.CaptureFixture[str],
):
    with away(other, server, after=20, seconds=2.0):
        assert main(words(table, tmp_path / "out", *ENGINES[engine])) == 0
    assert Manifest.read(tmp_path / "out").counts == {"ok": ROWS}
    assert prepared(tmp_path / "out") == calm
    assert "temporary" not in capsys.readouterr().err


@FEW
def test_an_outage_of_one_server_leaves_no_trace(
    other: MortalServer, table: Path, calm: object, tmp_path: Path, engine: str
):
    with away(other, after=10, seconds=2.5):
        assert main(words(table, tmp_path / "out", *ENGINES[engine])) == 0
    assert Manifest.read(tmp_path / "out").counts == {"ok": ROWS}
    assert prepared(tmp_path / "out") == calm


@FEW
def test_a_network_that_stays_away_ends_with_1_and_comes_back(
    server: MortalServer,
    other: MortalServer,
    table: Path,
    calm: object,
    tmp_path: Path,
    engine: str,
    capsys: pytest.CaptureFixture[str],
):
    command = words(table, tmp_path / "out", "--skip_failed", 1, *ENGINES[engine])
    command[command.index("--outage_hours") + 1] = "0.00017"
    with away(other, server, after=20, seconds=4.0):
        assert main(command) == 1
    message = capsys.readouterr().err.replace("\n", " ")
    assert "LongOutage: none of" in message and "(--outage_hours)" in message
    assert "left out" not in message and not (tmp_path / "out" / "manifest.json").exists()
    assert main(command) == 0
    assert prepared(tmp_path / "out") == calm


def test_a_server_that_dies_costs_its_rows_which_can_be_retried(
    other: MortalServer,
    table: Path,
    calm: object,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    command = words(table, tmp_path / "out", "--engine", "inline")
    command[command.index("--outage_hours") + 1] = "0.00034"
    other.kill()
    try:
        assert main(command) == 0
    finally:
        other.revive()
    counts = Manifest.read(tmp_path / "out").counts
    assert counts == {"connect": ROWS // 2, "ok": ROWS // 2}
    message = capsys.readouterr().err.replace("\n", " ")
    assert "20 of its 40 rows did not reach the host 127.0.1.5; it is tried again at" in message
    line = "60 rows failed for reasons that may be temporary (connect 60); to retry them: pinxit"
    assert line in message
    advised = message.partition("to retry them: ")[2].strip()
    assert f"'{table}'" in advised and advised.endswith("--retry_failed 1")
    assert main(shlex.split(advised)[1:]) == 0
    assert Manifest.read(tmp_path / "out").counts == {"ok": ROWS}
    assert "temporary" not in capsys.readouterr().err


def dead(server: MortalServer, number: int) -> str:
    return f"http://127.0.2.{1 + number % 250}:{server.port + 1}/{number}"


def test_a_set_with_half_of_its_hosts_dead_is_finished(
    server: MortalServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    urls = [dead(server, i) if i % 2 else server.url(i) for i in range(400)]
    table = table_of(tmp_path / "t.parquet", urls)
    start = time.monotonic()
    assert main(words(table, tmp_path / "out", "--engine", "inline")) == 0
    assert time.monotonic() - start < 25  # nothing was waited for
    assert Manifest.read(tmp_path / "out").counts == {"ok": 200, "connect": 200}
    message = capsys.readouterr().err
    assert "200 rows failed for reasons that may be temporary (connect 200)" in message
    assert "tried again at the end" not in message


def test_a_unit_that_is_far_worse_is_believed_the_second_time(
    server: MortalServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    pauses: list[float] = []
    rounds = second_round.in_two_rounds
    monkeypatch.setattr(
        "pinxit.prepare.stages.in_two_rounds",
        lambda *args, **more: rounds(*args, **more, sleep=pauses.append),
    )
    last = OPEN_UNITS + 1  # so that some units are done before it begins
    rows = range(40 * (last + 1))
    urls = [dead(server, i) if i % 4 and i // 40 == last else server.url(i) for i in rows]
    table = table_of(tmp_path / "t.parquet", urls)
    assert main(words(table, tmp_path / "out", "--engine", "inline")) == 0
    message = capsys.readouterr().err
    assert "the hosts of 75% of its rows were not reached, of the other units 0%; it is" in message
    assert Manifest.read(tmp_path / "out").counts == {"ok": len(rows) - 30, "connect": 30}
    assert pauses == [pytest.approx(6.12)]


REFUSED: dict[str, Callable[[int], str]] = {
    "scheme": lambda i: f"ftp://h{i}.test/",
    "blocked": lambda i: f"http://10.0.0.{i % 250}/a.jpg",
    "odd": lambda i: "http://[::1]@/",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_rows_refused_without_a_packet_do_not_prove_a_network(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
):
    urls = [REFUSED[kind](i) if i % 2 else f"http://127.0.3.{i + 1}:9/{i}" for i in range(ROWS)]
    table = table_of(tmp_path / "t.parquet", urls)
    out = tmp_path / "out"
    assert main(words(table, out, "--engine", "inline", "--skip_failed", 1)) == 1
    assert "Offline: unit 00000-000: none of 20 hosts could be reached" in capsys.readouterr().err
    assert not list((out / "units").rglob("log-*")) and not (out / "manifest.json").exists()
