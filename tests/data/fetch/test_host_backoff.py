"""Hosts that are out of reach, or asked for quiet, are left alone for a while."""

import asyncio
from pathlib import Path

from pinxit.data.fetch import host_backoff as turns
from pinxit.data.fetch.host_backoff import SILENT_AFTER, SILENT_FOR, Resting, Silent, Unreachable
from pinxit.data.fetch.shared_pauses import SharedPauses


def test_unreachable_after_some_failures_in_a_row(monkeypatch):
    async def main():
        known = Unreachable(size=2)
        for _ in range(turns.UNREACHABLE_AFTER - 1):
            known.failed("a:80")
        assert not known.is_known("a:80")
        known.failed("a:80")
        assert known.is_known("a:80") and not known.is_known("a:443")
        known.reached("a:80")
        assert not known.is_known("a:80")
        for origin in ("b", "c", "d"):
            known.failed(origin)
        assert set(known._failed) == {"c", "d"}

    asyncio.run(main())
    monkeypatch.setattr(turns, "UNREACHABLE_FOR", 0.5)

    async def over():
        known = Unreachable()
        for _ in range(turns.UNREACHABLE_AFTER):
            known.failed("a")
        assert known.is_known("a")
        await asyncio.sleep(0.6)
        assert not known.is_known("a")
        known.failed("a")
        assert not known.is_known("a")

    asyncio.run(over())


def test_resting_servers_are_known_until_their_time_is_over():
    async def main():
        resting = Resting(size=2)
        assert resting.status("a:80") is None
        resting.ask("a:80", "http_429", 0.5)
        resting.ask("a:80", "http_503", 0.01)  # the longer time counts
        await asyncio.sleep(0.02)
        assert resting.status("a:80") == "http_503" and resting.status("a:443") is None
        await asyncio.sleep(0.6)
        assert resting.status("a:80") is None and not resting._asked
        for origin in ("b", "c", "d"):
            resting.ask(origin, "http_503", 60)
        assert set(resting._asked) == {"c", "d"}

    asyncio.run(main())


def test_processes_count_together_what_a_host_does_not_answer(tmp_path: Path):
    now = [1000.0]
    one, other = (Silent(SharedPauses(tmp_path / "silent", clock=lambda: now[0])) for _ in range(2))
    now[0] += 1
    for number in range(SILENT_AFTER):
        assert not one.is_known("a:80") and not other.is_known("a:80")
        (one if number % 3 else other).failed("a:80")
        now[0] += 1
    assert one.is_known("a:80") and other.is_known("a:80") and not other.is_known("b:80")
    one.clear()  # the network was away
    assert not one.is_known("a:80") and other.is_known("a:80")
    now[0] += 1
    one.failed("a:80")
    assert not other.is_known("a:80")
    for _ in range(SILENT_AFTER - 1):
        one.failed("a:80")
    assert other.is_known("a:80")
    one.answered("a:80")
    assert not one.is_known("a:80") and not other.is_known("a:80")
    for _ in range(SILENT_AFTER):
        other.failed("a:80")
    now[0] += SILENT_FOR - 1
    assert one.is_known("a:80")
    now[0] += 1
    assert not one.is_known("a:80")
    one.failed("a:80")
    assert not one.is_known("a:80")
