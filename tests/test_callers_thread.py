"""Temporary arrays of programs keep their memory from call to call."""

import subprocess
import sys

import pytest

from pinxit.cli.xla_environment import CPU_MALLOC

PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from pinxit.callers_thread import run_in_callers_thread

if "caller" in sys.argv:
    run_in_callers_thread()
x = jnp.ones((5_000, 5_000))
weigh = jax.jit(lambda x: jnp.sin(x) @ x[0])
for _ in range(3):
    weigh(x).block_until_ready()
print(weigh.lower(x).compile().memory_analysis().temp_size_in_bytes)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    weigh(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this is about glibc")
def test_large_temporaries_are_mapped_once():
    # Pages of 4 KiB in place of huge ones, so that there are many to count.
    environ = {name: CPU_MALLOC[name] for name in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")}

    def faults(*words: str) -> int:
        command = [sys.executable, "-c", PROGRAM, *words]
        done = subprocess.run(
            command, env={**environ, "PATH": ""}, capture_output=True, text=True, check=True
        )
        size, count = map(int, done.stdout.split())
        assert size > 100_000_000
        return count

    assert faults("caller") < 30_000 < 100_000 < faults(), "one mapping is 24,400 pages"


def test_a_run_asks_for_it_first(monkeypatch):
    from pinxit.train import run as module
    from pinxit.train.settings import TrainConfig

    calls = []
    monkeypatch.setattr(module, "run_in_callers_thread", lambda: calls.append("thread"))
    monkeypatch.setattr(module, "_run", lambda *_: calls.append("run"))
    module.run(TrainConfig())
    assert calls == ["thread", "run"]
