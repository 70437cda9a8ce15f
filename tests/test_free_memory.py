"""Free memory goes back to the system, in particular after a program is compiled."""

import os
import subprocess
import sys

import pytest

from pinxit import free_memory
from pinxit.free_memory import COMPILED, READ, return_after_compiling

PROGRAM = """
import sys
import jax, jax.numpy as jnp
from pinxit import free_memory

free_memory.WORTHWHILE = {free_memory.COMPILED: 0.0}
returned = []
free_memory.return_free_memory = lambda: returned.append(1) is None
if "register" in sys.argv:
    free_memory.return_after_compiling()
    free_memory.return_after_compiling()
jax.jit(lambda x: jnp.sin(x) * 2).lower(jnp.ones(3)).compile()
print(len(returned) > 0)
before = len(returned)
jax.jit(lambda x: jnp.cos(x) * 2).lower(jnp.ones(3)).compile()
print(len(returned) - before)
"""


@pytest.mark.parametrize(("words", "expected"), [(["register"], "True 1"), ([], "False 0")])
def test_jax_tells_when_it_has_compiled(words, expected):
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert " ".join(done.stdout.split()) == expected


def test_a_program_from_the_cache_counts_too(tmp_path):
    program = """
import jax, jax.numpy as jnp
from pinxit import free_memory

events = []
free_memory._compiled = lambda event, seconds, **_: events.append(event)
free_memory.return_after_compiling()
jax.jit(lambda x: jnp.sin(x) * 2).lower(jnp.ones(3)).compile()
print(free_memory.READ in events)
"""
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-c", program]
    said = [
        subprocess.run(
            command, env={**os.environ, **settings}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert said == ["False", "True"]


def test_only_long_compilations_count(monkeypatch):
    calls = []
    monkeypatch.setattr(free_memory, "return_free_memory", lambda: calls.append(1))
    free_memory._compiled(COMPILED, 0.1)
    free_memory._compiled(READ, 0.01)
    free_memory._compiled("/jax/core/compile/jaxpr_trace_duration", 9.0)
    assert calls == []
    free_memory._compiled(COMPILED, 0.4, fun_name="step")
    assert calls == [1]
    free_memory._compiled(READ, 0.1)
    assert calls == [1, 1]


def test_a_heap_with_a_gap_shrinks():
    """What stays above a large gap keeps glibc from returning it by itself."""
    pytest.importorskip("resource")
    if not sys.platform.startswith("linux"):
        pytest.skip("the size of the process is read from /proc")
    program = """
import os
from pinxit.free_memory import return_free_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

pieces = [bytearray(b"x") * 50_000 for _ in range(4000)]
full = resident()
pieces[:-1] = []
kept = resident()
assert return_free_memory()
print(full, kept, resident())
"""
    environ = {"MALLOC_TRIM_THRESHOLD_": "100000000000", "PATH": ""}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    full, kept, after = (int(word) for word in done.stdout.split())
    assert kept > full - 50_000_000 and after < full - 150_000_000


def test_it_is_registered_once():
    assert return_after_compiling() is None is return_after_compiling()
    assert return_after_compiling.cache_info().currsize == 1
