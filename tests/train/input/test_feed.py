"""What a run may ask of its data, and what a feed that says nothing answers."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from pinxit.train.input.encode_chunk import stream_chunk
from pinxit.train.input.feed import Feed
from pinxit.train.input.in_memory import InMemoryFeed
from pinxit.train.input.prepared import PreparedFeed
from pinxit.train.input.streamed import StreamedFeed


class Quiet(Feed):
    """Rows that are always there."""

    def held_out(self) -> list[Any]:
        return []

    def position(self, step: int) -> int:
        return step


def test_what_a_feed_need_not_say():
    feed = Quiet()
    feed.begin(0)
    feed.watch(lambda: True)
    assert feed.shapes() is None
    assert (feed.figures(), feed.results(), feed.ended()) == ({}, {}, "")


@pytest.mark.parametrize("kind", [InMemoryFeed, PreparedFeed, StreamedFeed])
def test_every_feed_says_where_it_is_and_what_it_holds_out(kind: type[Feed]):
    for name in ("held_out", "position"):
        assert name in vars(kind), "the protocol's own returns nothing"
    for name, method in inspect.getmembers(Feed, inspect.isfunction):
        if not name.startswith("_"):
            of = list(inspect.signature(getattr(kind, name)).parameters)
            assert of == list(inspect.signature(method).parameters), name


def test_each_process_encodes_as_many_images_as_its_devices_hold():
    one = stream_chunk(256, 256, devices=8)
    assert one == 32  # four for each device
    # a pod of four such hosts, where each encodes its own part
    assert stream_chunk(256, 1024, devices=32, processes=4) == 4 * one
    assert stream_chunk(16, 12, devices=4, processes=2) == 2 * stream_chunk(16, 6, devices=2)
