"""Limits hold, and a slow host holds up nobody else."""

import asyncio

import pytest

from pinxit.config import UsageError
from pinxit.data.fetch import request_turns as turns
from pinxit.data.fetch.request_turns import Turns, spare_places


async def occupy(subject: Turns, host: str, seconds: float, log: list, now: list) -> None:
    async with subject.turn(host):
        now.append(host)
        log.append((len(now), now.count(host)))
        await asyncio.sleep(seconds)
        now.remove(host)


def test_both_limits_hold_and_are_reached():
    async def main():
        subject, log, now = Turns(6, 3, spare=0), [], []
        hosts = [f"h{i // 10}" for i in range(40)]
        await asyncio.gather(*(occupy(subject, host, 0.002, log, now) for host in hosts))
        assert max(total for total, _ in log) == 6
        assert max(own for _, own in log) == 3
        assert subject._hosts == {}

    asyncio.run(main())


def test_who_waits_for_a_slow_host_keeps_no_place():
    async def main():
        subject, log, now = Turns(4, 2, spare=0), [], []
        slow = [asyncio.create_task(occupy(subject, "slow", 600, log, now)) for _ in range(50)]
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await asyncio.gather(*(occupy(subject, f"h{i}", 0, log, now) for i in range(50)))
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert subject._hosts == {} and subject._common._free == 4

    asyncio.run(main())


def test_a_long_request_gives_its_place_up(monkeypatch):
    monkeypatch.setattr(turns, "PATIENCE", 0.02)

    async def main(spare: int) -> int:
        subject, log, now = Turns(2, 9, spare=spare), [], []
        slow = [asyncio.create_task(occupy(subject, f"s{i}", 30, log, now)) for i in range(8)]
        for _ in range(3000):  # a busy machine may take its time
            if len(now) >= 2 + spare:
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # ten times as long as it takes for another one
        running = len(now)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert subject._common._free == 2 and subject._spare == spare
        return running

    assert asyncio.run(main(0)) == 2
    assert asyncio.run(main(3)) == 5


def test_quiet_holds_for_the_host_alone():
    async def main():
        subject, loop = Turns(4, 1, spare=0), asyncio.get_running_loop()
        async with subject.turn("a"):
            subject.quiet("a", 0.8)
        begun = loop.time()
        async with subject.turn("b"):
            assert loop.time() - begun < 0.7
        async with subject.turn("a"):
            assert loop.time() - begun >= 0.79
        assert subject._hosts == {}
        async with subject.turn("a"):
            subject.quiet("a", 0.3)
        assert "a" in subject._hosts
        await asyncio.sleep(0.4)
        assert subject._hosts == {}

    asyncio.run(main())


def test_pause_and_awaited():
    async def main():
        subject = Turns(2, 1, spare=0)
        log, now = [], []
        async with subject.turn("a"):
            assert not subject.awaited("a")
            waiting = asyncio.create_task(occupy(subject, "a", 0, log, now))
            await asyncio.sleep(0.01)
            assert subject.awaited("a") and not subject.awaited("b")
            subject.pause()
        await asyncio.sleep(0.02)
        assert log == []
        subject.resume()
        await waiting
        assert log == [(1, 1)]

    asyncio.run(main())


def test_the_limit_of_open_files_is_respected():
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, limit[1]))
        assert spare_places(10) == 40
        assert spare_places(256) == 44
        with pytest.raises(UsageError, match=r"concurrency: 301 .*400 files.*at most 300"):
            spare_places(301)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
