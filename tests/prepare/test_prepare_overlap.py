"""`pinxit prepare` with several open units: stragglers hold nothing back, the bytes are equal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from coyo_files import write_coyo
from hostile_server import LOOPBACK, HostileServer
from polite_server import NETWORK, PoliteServer
from prepare_work import ToySource
from prepared_toys import content

from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import ImageConfig
from pinxit.data.prepared.manifest import Manifest
from pinxit.data.sources.catalogue import open_source
from pinxit.prepare.engines.base import Engine
from pinxit.prepare.engines.local import InlineEngine, LocalEngine
from pinxit.prepare.images import OPEN_UNITS, ImageStage
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.network_wait import SharedWait
from pinxit.prepare.stages import StageResult, run_images

KINDS = ("good", "404", "png", "good", "500", "html", "good", "noai", "redirected", "slow")
UNIT = 20
FETCH = FetchConfig(allow_networks=(NETWORK,), retries=0, timeout=120, concurrency=8)


def stage(table: Path, out: Path, **more) -> ImageStage:
    settings = {"fetch": FETCH, "outage_hours": 0, "previews": 0} | more
    return ImageStage(
        open_source("parquet", path=str(table), unit_rows=UNIT),
        out,
        filters=FilterConfig(min_side=16, min_words=None),
        image=ImageConfig(size=16, workers=1, max_repeats=0),
        **settings,
    )


def finished(out: Path, units: list[str]) -> bool:
    done = Ledger(out, "images").units()
    return all(unit in done for unit in units)


@pytest.fixture
def server() -> Iterator[PoliteServer]:
    with PoliteServer() as running:
        yield running


@pytest.mark.parametrize("engine", [InlineEngine(), LocalEngine()], ids=lambda e: e.name)
def test_a_url_that_hangs_does_not_hold_back_the_next_units(
    server: PoliteServer, tmp_path: Path, engine: Engine
):
    urls = [server.url(f"127.4.0.{1 + i % 9}", "good", i) for i in range(4 * UNIT)]
    urls[3] = server.url("127.4.1.1", "hang", 3)
    table = write_coyo(tmp_path / "t.parquet", len(urls), group=UNIT, url=urls)
    work, results = stage(table, tmp_path / "out"), list[StageResult]()
    units = [unit.id for unit in work.source.units()]
    thread = threading.Thread(target=lambda: results.append(run_images(work, engine, workers=1)))
    thread.start()
    assert server.hanging.wait(60)
    while not finished(tmp_path / "out", units[1:]):
        assert thread.is_alive()  # the hanging request ends after two minutes, and the thread too
        threading.Event().wait(0.01)
    assert not finished(tmp_path / "out", units[:1]), "its URL still hangs"
    server.release()
    thread.join(120)
    assert results[0].done == 4 and Manifest.read(tmp_path / "out").counts == {"ok": 4 * UNIT}


def test_the_bytes_do_not_depend_on_the_open_units(tmp_path: Path):
    sets = []
    fetch = FetchConfig(allow_networks=(LOOPBACK,), retries=0, timeout=20)
    with HostileServer() as server:
        urls = [server.url(KINDS[i % len(KINDS)], i) for i in range(5 * UNIT)]
        table = write_coyo(tmp_path / "t.parquet", len(urls), group=UNIT, url=urls)
        for open_units in (1, 3):
            out = tmp_path / f"out-{open_units}"
            work = stage(table, out, fetch=fetch, open_units=open_units)
            assert run_images(work, InlineEngine()).exit_code == 0
            files = content(out)
            sets.append({name: files[name] for name in files if not name.startswith("manifest")})
    assert sets[0] == sets[1] and len(sets[0]) >= 10


def test_a_pause_is_kept_over_units_and_workers(server: PoliteServer, tmp_path: Path):
    host = "127.4.2.1"
    server.pauses[host] = 10**6
    urls = [server.url(host, "pause-600", i) for i in range(6 * UNIT)]
    urls[::2] = [server.url(f"127.4.3.{1 + i % 9}", "good", i) for i in range(3 * UNIT)]
    table = write_coyo(tmp_path / "t.parquet", len(urls), group=UNIT, url=urls)
    work = stage(table, tmp_path / "out")
    assert run_images(work, LocalEngine(), workers=2).exit_code == 0
    assert Manifest.read(tmp_path / "out").counts == {"http_429": 3 * UNIT, "ok": 3 * UNIT}
    assert server.requests(host) <= 8, "no more than were under way when the host first said so"


def test_sources_that_hold_their_images_have_one_open_unit(tmp_path: Path):
    assert ImageStage(ToySource(has_images=True), tmp_path).open_units == 1
    assert ImageStage(ToySource(), tmp_path).open_units == OPEN_UNITS > 1


# --- one outage for all open units ------------------------------------------------------------


def in_threads(*works) -> list[object]:
    ends: list[object] = []

    def run(work) -> None:
        try:
            ends.append(work())
        except OSError as error:
            ends.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ends


@pytest.mark.parametrize("error", [None, OSError("too long")])
def test_units_wait_once_for_an_outage(error: OSError | None):
    waits, entered = [], threading.Barrier(3)
    wait = SharedWait(lambda problem, is_over: waited(problem))

    def waited(problem: str) -> None:
        waits.append(problem)
        entered.wait(60)
        threading.Event().wait(0.2)  # the others are at the wait by now
        if error is not None:
            raise error

    def unit() -> None:
        wait("none of 3 hosts answers", lambda: True)

    def second() -> None:
        entered.wait(60)
        unit()

    ends = in_threads(unit, second, second)
    assert len(waits) == 1
    assert [str(end) for end in ends] == ["None" if error is None else "too long"] * 3
    assert wait._outage is None


def test_units_test_the_connection_once():
    tests, asked = [], threading.Barrier(3)
    wait = SharedWait(lambda problem, is_over: None)

    def is_up() -> bool:
        tests.append(True)
        if len(tests) == 1:
            asked.wait(60)
            threading.Event().wait(0.2)  # the others have asked by now
        return True

    def second() -> bool:
        asked.wait(60)
        return wait.tested(is_up)

    assert in_threads(lambda: wait.tested(is_up), second, second) == [True] * 3
    assert len(tests) == 1
    assert wait.tested(is_up) and len(tests) == 2, "an old result is not used"
