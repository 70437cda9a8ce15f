import os
import subprocess
import sys

from pinxit.cli.xla_environment import CPU_MALLOC, GUARD, NO_YNN, OFF, tuned


def test_starts_over_once_on_linux_with_glibc():
    environ = tuned({"A": "b"}, platform="linux", libc="glibc")
    assert environ == {"A": "b", GUARD: "1", **CPU_MALLOC, "XLA_FLAGS": NO_YNN}
    assert tuned(environ, platform="linux", libc="glibc") is None


def test_the_users_own_flags_stay():
    def flags(given: str) -> str:
        environ = tuned({"XLA_FLAGS": given}, platform="linux", libc="glibc")
        assert environ is not None
        return environ["XLA_FLAGS"]

    assert flags("--xla_cpu_enable_fast_math=false") == f"--xla_cpu_enable_fast_math=false {NO_YNN}"
    chosen = f"{NO_YNN}LIBRARY_FUSION_TYPE_DOT"
    assert flags(chosen) == chosen


def test_xla_knows_the_flags():
    environ = {**os.environ, "XLA_FLAGS": NO_YNN, "JAX_PLATFORMS": "cpu"}
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
