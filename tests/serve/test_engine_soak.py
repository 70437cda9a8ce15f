"""A long mixed load leaves the memory of the engine flat.

``PINXIT_SOAK_SECONDS=7200 pytest -m slow tests/serve/test_engine_soak.py -s`` runs it for two
hours.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from pinxit.config import UsageError
from pinxit.flow.solvers import SOLVERS
from pinxit.serve.engine.engine import DrawingEngine, QueueFull
from pinxit.serve.engine.jobs import DrawRequest
from pinxit.serve.settings import StudioConfig

SECONDS = float(os.environ.get("PINXIT_SOAK_SECONDS", "60"))
SIZES = [None, (64, 48), (32, 64)]
PROMPTS = ["a red circle", "a blue square above a green cone", "", "rain " * 100]
MOST_GROWTH = 60e6
"""Bytes by which the last fifth may exceed the second fifth."""


def request(chance: random.Random) -> DrawRequest:
    """Returns a random request, some of which are refused or fail."""
    sampling = {"steps": chance.choice([1, 4, 9]), "solver": chance.choice(["euler", "heun"])}
    if chance.random() < 0.2:
        sampling["guidance_scale"] = 1.0
    if chance.random() < 0.05:
        sampling["solver"] = "broken"
    settings = {"n": chance.choice([1, 1, 3]), "seed": chance.randrange(2**31)}
    if chance.random() < 0.05:
        settings["size"] = (65, 64)
    else:
        settings["size"] = chance.choice(SIZES)
    if chance.random() < 0.3:
        noise = np.random.default_rng(chance.randrange(9))
        settings["image"] = Image.fromarray(noise.integers(0, 255, (70, 90, 3), np.uint8))
    return DrawRequest(
        chance.choice(PROMPTS), sampling=sampling, previews=chance.choice([0, 2, -1]), **settings
    )


async def client(engine: DrawingEngine, chance: random.Random, until: float, counts: dict) -> None:
    """Asks for pictures one after another, cancels some, and leaves some alone."""

    def count(name: str) -> None:
        counts[name] = counts.get(name, 0) + 1

    while time.monotonic() < until:
        try:
            job = await asyncio.to_thread(engine.submit, request(chance))
        except QueueFull:
            count("refused")
            await asyncio.sleep(0.05)
            continue
        except UsageError:
            count("wrong")
            continue
        leave = chance.choice(["stay", "stay", "stay", "cancel", "vanish"])
        seen = 0
        async for _ in job.events():
            seen += 1
            if leave != "stay" and seen > 3:
                break
        if leave == "cancel":
            job.cancel()
        count(leave if leave != "stay" else job.state)


def compile_all(engine: DrawingEngine) -> None:
    """Draws a picture of every form that clients ask for."""
    image = Image.new("RGB", (70, 90))
    for size, solver, scale in itertools.product(SIZES, ["euler", "heun"], [1.0, 3.0]):
        sampling = {"steps": 4, "solver": solver, "guidance_scale": scale}
        settings = {"image": image} if solver == "euler" else {}
        job = engine.submit(
            DrawRequest("a cube", size=size, sampling=sampling, previews=1, **settings)
        )
        assert job.wait(600).state == "done"


async def memory(until: float) -> list[float]:
    """Returns the memory of this process, once a second or 200 times in all."""
    process, values = psutil.Process(), []
    while time.monotonic() < until:
        gc.collect()
        values.append(float(process.memory_info().rss))
        await asyncio.sleep(max(1.0, SECONDS / 200))
    return values


@pytest.mark.slow
def test_a_mixed_load_leaves_memory_flat(tmp_path, monkeypatch):
    def broken(velocity_fn, x, times, conditioning):
        raise MemoryError("RESOURCE_EXHAUSTED")

    monkeypatch.setitem(SOLVERS, "broken", broken)
    engine = DrawingEngine(StudioConfig(runs=str(tmp_path), max_waiting=16))
    engine.kept_seconds = SECONDS / 20
    counts: dict[str, int] = {}
    compile_all(engine)

    async def load() -> list[float]:
        until = time.monotonic() + SECONDS
        clients = [client(engine, random.Random(i), until, counts) for i in range(12)]
        values, *_ = await asyncio.gather(memory(until), *clients)
        return values

    values = asyncio.run(load())
    engine.drain(60)
    statistics = engine.statistics()
    engine.close()
    fifth = max(1, len(values) // 5)
    early, late = np.median(values[fifth : 2 * fifth]), np.median(values[-fifth:])
    print(counts, statistics, [round(value / 1e6) for value in values])
    print(f"memory: {early / 1e6:.0f} MB in the second fifth, {late / 1e6:.0f} MB in the last")
    assert counts["done"] > 10 and counts["failed"] and counts["cancel"] and counts["vanish"]
    assert statistics["waiting"] == statistics["drawing"] == 0
    assert late - early < MOST_GROWTH
