"""A processor is named with the instruction sets that a cap leaves, and caps reach both sides."""

from __future__ import annotations

import os

import processor_class
import pytest
from processor_class import (
    CAPPED_SETS,
    CAPS,
    INSTRUCTIONS,
    instruction_sets,
    processor,
    processor_words,
    side_environment,
    usable_cores,
)

from pinxit.cli.xla_environment import CPU_MALLOC, NO_YNN, YNN_PRODUCTS

ZEN_3 = "fpu sse sse2 avx fma avx2 bmi2"
ZEN_5 = f"{ZEN_3} avx512f avx512dq avx512bw avx512vl avx512_bf16"
SAPPHIRE = f"{ZEN_5} amx_bf16 amx_tile amx_int8"


@pytest.mark.parametrize(
    ("flags", "sets"),
    [
        ("fpu sse avx", []),
        ("avx2", []),  # without FMA, which AVX2's rate needs
        (ZEN_3, ["AVX2"]),
        (f"{ZEN_3} avx512f", ["AVX2"]),  # the first Xeon Phi
        (ZEN_5, ["AVX2", "AVX-512", "AVX512-BF16"]),
        (SAPPHIRE, ["AVX2", "AVX-512", "AVX512-BF16", "AMX"]),
    ],
)
def test_instruction_sets_are_named(flags, sets):
    assert instruction_sets(flags) == sets
    assert instruction_sets(flags, "avx2") == [name for name in sets if name == "AVX2"]


def test_a_processor_is_read_from_the_kernel_and_put_into_words():
    text = f"processor : 0\nmodel name\t: AMD EPYC 9B45\nflags\t\t: {ZEN_5}\nbogomips: 5192.24\n"
    known = processor(cpuinfo=text)
    assert (known["model"], known["cores"]) == ("AMD EPYC 9B45", usable_cores())
    assert processor_words({**known, "cores": 2}) == (
        "AMD EPYC 9B45, 2 cores, AVX2, AVX-512, AVX512-BF16"
    )
    capped = processor("avx2", text)
    assert processor_words({**capped, "cores": 1}) == "AMD EPYC 9B45, 1 core, AVX2"


def test_without_linux_the_sets_are_unknown():
    known = processor(cpuinfo="")
    assert known["model"] and known["instructions"] == []


def test_sides_have_one_environment_and_a_cap_adds_to_it(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    plain, capped = side_environment(), side_environment("avx2")
    assert plain["XLA_FLAGS"] == f"--xla_force_host_platform_device_count=1 {NO_YNN}"
    assert capped["XLA_FLAGS"] == f"{plain['XLA_FLAGS']} --xla_cpu_max_isa=AVX2"
    assert CPU_MALLOC.items() <= plain.items() and os.environ.items() - plain.items() <= {
        item for item in os.environ.items() if item[0] in plain
    }
    for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "TORCHINDUCTOR_CPP_MARCH"):
        assert (name not in plain and "2" in capped[name]) or "v3" in capped[name]
    for name in ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        assert plain[name] != capped[name], "a cache of wider programs"


def test_half_precision_has_the_library_that_a_run_chooses(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    for seconds, flag in ((0.5, YNN_PRODUCTS), (2.0, NO_YNN)):
        times = {"bfloat16 xla": 1.0, "bfloat16 ynn": seconds}
        monkeypatch.setattr(
            processor_class, "product_times", lambda dtypes, say, times=times: times
        )
        assert side_environment(amp=True)["XLA_FLAGS"] == flag
    assert side_environment()["XLA_FLAGS"] == NO_YNN


def test_flags_that_a_user_has_set_stay(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{NO_YNN}dot")
    assert side_environment()["XLA_FLAGS"] == f"{NO_YNN}dot"


def test_every_cap_says_what_it_leaves():
    assert set(CAPS) == set(CAPPED_SETS)
    assert all(name in INSTRUCTIONS for names in CAPPED_SETS.values() for name in names)
