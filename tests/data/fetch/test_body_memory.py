"""Memory for bodies: given in order, returned, and grown into."""

import asyncio

from pinxit.data.fetch.body_memory import BodyMemory, BodyShare


def test_memory_is_given_in_order_and_returned():
    async def main():
        memory, got = BodyMemory(10), []

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
        middle, large = BodyMemory(10), BodyMemory(100)
        sizes = ((5, middle), (100, large))
        share = BodyShare(sizes, free=2)
        assert share.room == 2
        await share.grow(3, None)
        assert (share.room, middle._free, large._free) == (5, 5, 100)
        await share.grow(6, None)
        assert (share.room, middle._free, large._free) == (100, 10, 0)
        announced, short = BodyShare(sizes, free=2), BodyShare(sizes, free=2)
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
        BodyShare(sizes, free=2).shrink(0)
        assert (middle._free, large._free) == (10, 100)

    asyncio.run(main())
