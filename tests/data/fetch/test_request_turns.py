"""Limits hold, and a slow host holds up nobody else."""

import asyncio

import pytest

from pinxit.config import UsageError
from pinxit.data.fetch import request_turns as turns
from pinxit.data.fetch.request_turns import Memory, Resting, Share, Turns, Unreachable, spare_places


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
        assert subject._hosts == {} and subject._common._value == 4

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
        assert subject._common._value == 2 and subject._spare == spare
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


def test_memory_is_given_in_order_and_returned():
    async def main():
        memory, got = Memory(10), []

        async def use(amount: int) -> None:
            held = await memory.take(amount)
            got.append(amount)
            await asyncio.sleep(0.01)
            memory.give(held)

        users = [asyncio.create_task(use(amount)) for amount in (4, 4, 9, 1, 99)]
        await asyncio.sleep(0)
        assert got == [4, 4]
        await asyncio.gather(*users)
        assert got == [4, 4, 9, 1, 99] and memory._free == 10  # 1 waits behind 9; 99 is all
        held = await memory.take(10)
        first, second = (asyncio.create_task(use(amount)) for amount in (10, 5))
        await asyncio.sleep(0)
        first.cancel()
        memory.give(held)
        await asyncio.gather(first, second, return_exceptions=True)
        assert got[-1] == 5 and memory._free == 10 and not memory._waiting

        held = await memory.take(10)
        late = asyncio.create_task(use(3))
        await asyncio.sleep(0)
        memory.give(held)  # granted, and cancelled before it could run
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        assert memory._free == 10

    asyncio.run(main())


def test_a_share_grows_through_the_sizes():
    async def main():
        middle, large = Memory(10), Memory(100)
        sizes = ((5, middle), (100, large))
        share = Share(sizes, free=2)
        assert share.room == 2
        await share.grow(3, None)
        assert (share.room, middle._free, large._free) == (5, 5, 100)
        await share.grow(6, None)
        assert (share.room, middle._free, large._free) == (100, 10, 0)
        announced, short = Share(sizes, free=2), Share(sizes, free=2)
        await short.grow(3, 4)
        assert (short.room, middle._free) == (5, 6)
        waiting = asyncio.create_task(announced.grow(3, 60))
        await asyncio.sleep(0)
        assert not waiting.done()
        share.release()
        share.release()
        await waiting
        assert (announced.room, large._free) == (100, 40)
        announced.shrink(25)
        assert large._free == 75
        announced.shrink(30)
        assert large._free == 75
        announced.release()
        short.release()
        Share(sizes, free=2).shrink(0)
        assert (middle._free, large._free) == (10, 100)

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
