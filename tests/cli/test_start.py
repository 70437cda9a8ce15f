"""The work of starting a command, in numbers that do not depend on a clock."""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from pinxit import garbage_collection
from pinxit.encoders.fingerprint import SAMPLES, fingerprint

MOST_PROGRAMS = 4
"""The programs of a picture: the text encoder, noise, the solver, the decoder."""


def run(code: str, cache: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu", **environ}
    return subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )


def test_help_imports_nothing_heavy(tmp_path: Path):
    code = (
        "import sys\nfrom pinxit.cli.main import main\ncode = main(['--help'])\n"
        "heavy = {'jax', 'jaxlib', 'numpy', 'flax', 'PIL', 'rich', 'tyro', 'typeguard'}\n"
        "print(code, sorted(heavy & set(sys.modules)))"
    )
    assert run(code, tmp_path).stdout.splitlines()[-1] == "0 []"


def test_a_picture_takes_four_programs_and_no_library_of_training(tmp_path: Path):
    code = (
        "import sys\nfrom pinxit.cli.main import main\n"
        f"code = main(['generate', 'a red house', '--steps', '2', '--out', {str(tmp_path)!r}])\n"
        "others = {'ftfy', 'wcwidth', 'grain', 'matplotlib', 'tensorboardX', 'torch', 'aiohttp'}\n"
        "print(code, sorted(others & set(sys.modules)))"
    )
    done = run(code, tmp_path, JAX_LOG_COMPILES="1")
    assert done.stdout.splitlines()[-1] == "0 []"
    assert done.stderr.count("Finished XLA compilation") == MOST_PROGRAMS, done.stderr


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_numpy_finds_the_fingerprint_that_programs_find(dtype: str):
    values = np.random.default_rng(0).normal(size=(70, 90)) * 10.0 ** np.arange(-4, 5).repeat(10)
    array = values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    digest = hashlib.sha256(b"['a'] (70, 90)")
    samples = jnp.ravel(jnp.asarray(array))[:: array.size // SAMPLES]
    digest.update(np.asarray(samples.astype(jnp.bfloat16).astype(jnp.float32)).tobytes())
    expected = digest.hexdigest()[:16]
    split = jax.sharding.NamedSharding(jax.make_mesh((1,), ("a",)), jax.sharding.PartitionSpec())
    for leaf in (array, jnp.asarray(array), jax.device_put(array, split), array.T.copy().T):
        assert fingerprint({"a": leaf}) == expected


def test_collection_is_postponed_until_arguments_are_read():
    assert gc.isenabled()
    garbage_collection.postpone()
    try:
        assert not gc.isenabled()
    finally:
        garbage_collection.resume()
    assert gc.isenabled()
    gc.unfreeze()
    gc.disable()  # the caller's choice stays
    try:
        garbage_collection.postpone()
        garbage_collection.resume()
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "words", [["train", "--no_such_option", "1"], ["doctor", "--timeout", "0"]]
)
def test_collection_goes_on_after_an_error(words: list[str], tmp_path: Path):
    code = f"import gc\nfrom pinxit.cli.main import main\nprint(main({words!r}), gc.isenabled())"
    assert run(code, tmp_path).stdout.splitlines()[-1] == "2 True"
