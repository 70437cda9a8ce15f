"""Tests of streams of server-sent events."""

import asyncio
from collections.abc import AsyncIterator

from pinxit.serve.server_events import SIGN, server_event, with_signs


def test_an_event_may_have_an_id():
    assert server_event("rows", {"a": "b\nc"}) == b'event: rows\ndata: {"a": "b\\nc"}\n\n'
    assert server_event("rows", {}, id="f:3") == b"event: rows\nid: f:3\ndata: {}\n\n"


def test_a_quiet_stream_has_signs_and_ends_with_its_listener():
    seen: list[str] = []

    async def events() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.sleep(60)
            yield b"never"
        finally:
            seen.append("ended")

    async def listen() -> None:
        async for event in with_signs(events(), quiet=0.01):
            if event == SIGN and "sign" not in seen:
                seen.append("sign")

    async def leave() -> None:
        listener = asyncio.create_task(listen())
        await asyncio.sleep(0.2)
        listener.cancel()
        await asyncio.wait({listener})
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert seen == ["sign", "ended"]


def test_signs_come_between_the_events_alone():
    async def events() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(0.1)
        yield b"last"

    async def received() -> list[bytes]:
        return [event async for event in with_signs(events(), quiet=0.02)]

    first, *signs, last = asyncio.run(received())
    assert (first, last) == (b"first", b"last")
    assert signs and set(signs) == {SIGN}
