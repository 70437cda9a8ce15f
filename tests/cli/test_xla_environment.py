import os
import subprocess
import sys

import pytest

from pinxit.cli.xla_environment import (
    AUTO,
    CPU_MALLOC,
    GPU_MEMORY,
    GUARD,
    NO_YNN,
    OFF,
    PRODUCTS,
    YNN_PRODUCTS,
    tuned,
)
from pinxit.plan.compile_worker import GPU_SHARE, usable
from pinxit.plan.targets import GPU_RESERVE, get_target


def test_starts_over_once_on_linux_with_glibc():
    environ = tuned({"A": "b"}, platform="linux", libc="glibc")
    expected = {"A": "b", GUARD: "1", **CPU_MALLOC, "XLA_FLAGS": NO_YNN, PRODUCTS: AUTO}
    assert environ == expected
    assert tuned(environ, platform="linux", libc="glibc") is None


def test_the_users_own_flags_stay():
    def flags(given: str) -> str:
        environ = tuned({"XLA_FLAGS": given}, platform="linux", libc="glibc")
        assert environ is not None
        return environ["XLA_FLAGS"]

    assert flags("--xla_cpu_enable_fast_math=false") == f"--xla_cpu_enable_fast_math=false {NO_YNN}"
    chosen = f"{NO_YNN}LIBRARY_FUSION_TYPE_DOT"
    assert flags(chosen) == chosen


@pytest.mark.parametrize("flag", [NO_YNN, YNN_PRODUCTS])
def test_xla_knows_the_flags(flag):
    environ = {**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    product = "import jax.numpy as jnp; print(float((jnp.ones((9, 9)) @ jnp.ones(9)).sum()))"
    command = [sys.executable, "-c", product]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "81.0"), done.stderr


def test_stays_where_it_cannot_help_or_is_not_wanted():
    assert tuned({}, platform="darwin", libc="") is None
    assert tuned({}, platform="linux", libc="musl") is None
    assert tuned({OFF: "1"}, platform="linux", libc="glibc") is None
    assert tuned({"GLIBC_TUNABLES": "mine"}, platform="linux", libc="glibc") is None
    assert tuned({OFF: "0"}, platform="linux", libc="glibc") is not None


def test_plans_choose_for_the_share_of_a_gpu_that_runs_use(monkeypatch):
    assert float(GPU_MEMORY) == GPU_SHARE
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    chip = get_target("v100-16").chip.memory
    assert usable(get_target("v100-16")) == min(chip, int((chip + GPU_RESERVE) * GPU_SHARE))
    assert usable(get_target("tpu-v3-8")) == get_target("tpu-v3-8").chip.memory
    assert usable(None) is None
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    assert usable(get_target("v100-16")) == int((chip + GPU_RESERVE) * 0.5)
