"""The largest batch: found with few compiles, whatever the compiler does beyond the limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pinxit.plan.compile_cache import Compiled
from pinxit.plan.memory import candidates, largest_batch, memory_of, with_batch
from pinxit.plan.targets import GIB, get_target
from pinxit.recipes import coyo_256
from pinxit.train.settings import TrainConfig

PARTS = {"parameters": 300, "optimiser": 600, "ema": 600, "encoders": 100, "inputs": 8}


def compiler(fixed: float, each: float, *, refuses: float | None, calls: list[int]) -> Any:
    """Says that a batch takes ``fixed + each * batch`` GiB; above `refuses` it fails as TPUs do."""

    def compile_one(config: TrainConfig) -> Compiled:
        calls.append(config.batch_size)
        needed = int((fixed + each * config.batch_size) * GIB)
        result: dict[str, Any] = {"bytes_by_part": PARTS, "unread_bytes": 0}
        if refuses is not None and needed > refuses * GIB:
            result |= {"fits": False, "needed": needed, "available": int(refuses * GIB)}
        else:
            result |= {"fits": True, "memory": {"peak": needed, "arguments": sum(PARTS.values())}}
        return Compiled(config, "x", result, cached=False)

    return compile_one


@pytest.mark.parametrize("refuses", [15.48, None])
@pytest.mark.parametrize(
    ("fixed", "each", "name"),
    [(2.0, 0.003, "tpu-v3-8"), (2.0, 0.05, "tpu-v3-8"), (9.0, 0.2, "a100-40"), (1, 1, "v100-16")],
)
def test_it_is_the_largest(fixed: float, each: float, name: str, refuses: float | None):
    target = get_target(name)
    limit = target.chip.memory / GIB if refuses is None else refuses
    calls: list[int] = []
    found = largest_batch(
        coyo_256().resolved(),
        "full",
        target,
        compiler(fixed, each, refuses=refuses, calls=calls),
    )
    fitting = [b for b in candidates(target.devices, 2**16) if fixed + each * b <= limit]
    assert found.batch == max(fitting)
    assert found.memory is not None and found.memory.fits
    assert len(calls) == len(set(calls)) <= 6
    assert found.tried[found.batch] == found.memory.peak


def test_nothing_fits():
    calls: list[int] = []
    target = get_target("v100-16")
    found = largest_batch(
        coyo_256().resolved(), "none", target, compiler(20, 1, refuses=None, calls=calls)
    )
    assert (found.batch, found.memory) == (0, None)
    assert 1 in calls


def test_a_pod_is_not_too_large():
    target, calls = get_target("tpu-v3-2048"), []
    found = largest_batch(
        coyo_256().resolved(), "full", target, compiler(2, 13 / 2**20, refuses=15.48, calls=calls)
    )
    assert found.batch == 2**20
    config = replace(coyo_256().resolved(), batch_size=2048 * 64, gradient_accumulation_steps=64)
    assert largest_batch(
        config, "full", target, compiler(2, 13 / 2**20, refuses=15.48, calls=calls)
    ).batch == 2**20  # fmt: skip


def test_parts_add_up_to_the_peak():
    target = get_target("tpu-v3-8")
    for fixed, fits in ((4.0, True), (40.0, False)):
        one = compiler(fixed, 0, refuses=15.48, calls=[])(coyo_256())
        memory = memory_of(one, target)
        assert sum(memory.parts.values()) == memory.peak
        assert memory.fits is fits and (memory.free > 0) is fits


def test_batches_are_multiples_of_the_devices():
    assert candidates(8, 100) == [8, 16, 24, 32, 48, 64, 96]
    assert candidates(1, 8) == [1, 2, 3, 4, 6, 8]
    config = replace(coyo_256(), gradient_accumulation_steps=2)
    assert with_batch(config, 48, "dots").model.remat == "dots"
