"""The arrays that a plan counts are those that real builds hold, with T5 and autoencoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pinxit.plan.compile_cache import Compiled
from pinxit.plan.memory import memory_of
from pinxit.plan.targets import GIB, get_target
from pinxit.recipes import mock

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "plan_vs_run.py"
COUNTERS = 32
"""Bytes of the state that are no part of a plan: the step, the seed and counts, each one number."""


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_four_real_builds_hold_what_is_planned(devices: int):
    command = [sys.executable, str(SCRIPT), "--counts", "--json", "--devices", str(devices)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout)
    assert len(results) == 4
    for name, result in results.items():
        live, planned = result["live"], result["planned"]
        assert planned["encoders"] == live["encoders"] > 80_000, name
        assert planned["inputs"] == live["inputs"], name
        assert 0 <= live["state"] - planned["state"] <= COUNTERS, name
    # T5 is there whether its embeddings are stored or computed in the step
    stored = results["latents, T5 stored"]["planned"]["encoders"]
    in_step = results["images, VAE and T5 in the step"]["planned"]["encoders"]
    assert stored == in_step or devices > 1


def test_what_the_program_does_not_read_is_added_to_its_peak():
    parts = {
        "parameters": 1 * GIB,
        "optimiser": 2 * GIB,
        "ema": GIB,
        "encoders": GIB,
        "encoders beside the step": 9 * GIB,
        "inputs": 3 << 20,
    }
    facts = {"fits": True, "memory": {"peak": 7 * GIB, "arguments": 5 * GIB + (1 << 20)}}
    result = {"bytes_by_part": parts, "unread_bytes": 9 * GIB + (2 << 20), **facts}
    memory = memory_of(Compiled(mock(), "v100-16", result, cached=False), get_target("v100-16"))
    assert memory.peak == sum(memory.parts.values()) == 16 * GIB + (2 << 20)
    assert not memory.fits and memory.free < 0
    refused = {**result, "fits": False, "needed": 20 * GIB, "available": 15 * GIB}
    memory = memory_of(Compiled(mock(), "x", refused, cached=False), get_target("v100-16"))
    assert memory.peak == 29 * GIB + (2 << 20) and not memory.fits
