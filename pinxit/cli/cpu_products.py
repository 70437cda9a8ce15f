"""Chooses which library computes matrix products on a CPU, by a short measurement.

XLA has programs of its own for products, and can pass them to the library YNN. Which is faster
depends on the processor and the precision: with AVX512-BF16, YNN takes two thirds of the time for
bfloat16 and a little more for float32. So a process measures both once, on attention and an MLP,
and `pinxit train` starts with the faster one. The times are kept in
``~/.cache/pinxit/products.json``, by processor, cores and versions, since several machines may
share the folder. XLA's own programs stay unless YNN saves more than `MARGIN`, so that noise does
not decide.

The library changes the rounding of products. So a run that goes on takes the one in its folder's
environment.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinxit.cli.xla_environment import AUTO, LIBRARIES, NO_YNN, PRODUCTS
from pinxit.files import write_json
from pinxit.processor import model_and_flags, usable_cores
from pinxit.user_cache import user_cache

if TYPE_CHECKING:
    from pinxit.train.settings import TrainConfig

DEFAULT = "xla"
MARGIN = 0.1
"""Share of the time that YNN must save to be chosen."""
SLOWER = 1.1
"""Ratio of half precision's time to that of float32 from which a run says so."""
PATIENCE = 120.0
"""Seconds after which a measurement is given up."""
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""The instruction sets that matter for products, as Linux names them."""


def choose_products(
    config: TrainConfig,
    say: Callable[[str], None],
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Sets the library for a run's products in ``XLA_FLAGS``, before JAX reads them.

    It does nothing unless this process has been restarted with `AUTO`. `say` gets what the user
    should know. A measurement that fails leaves XLA's own programs. While the measuring process
    starts, `meanwhile` is called, which should take no longer.
    """
    if os.environ.get(PRODUCTS) != AUTO:
        return
    dtype = _dtype_of(config)
    library = _of_run(config)
    dtypes = ("float32",) if dtype == "float32" else ("float32", dtype)
    needed = library is None or dtype != "float32"
    times = product_times(dtypes, say, meanwhile=meanwhile) if needed else {}
    if library is None:
        library = faster(times, dtype)
    flags = os.environ.get("XLA_FLAGS", "").replace(NO_YNN, LIBRARIES[library])
    os.environ.update({"XLA_FLAGS": flags, PRODUCTS: library})
    if warning := slow_precision(times, dtype):
        say(warning)


def _dtype_of(config: TrainConfig) -> str:
    """Returns the dtype in which a run computes on a CPU."""
    return config.model.dtype or ("bfloat16" if config.use_amp else "float32")


def _of_run(config: TrainConfig) -> str | None:
    """Returns the library that the run has used before in this dtype, or None."""
    from pinxit.train.run_folder import folder_of, has_run, saved_config

    folder = folder_of(config)
    if not has_run(folder) or _dtype_of(saved_config(folder)) != _dtype_of(config):
        return None
    words = str(_known(folder.root / "environment.json").get("xla_flags", "")).split()
    return next((name for name, flag in LIBRARIES.items() if flag in words), None)


def faster(times: dict[str, float], dtype: str) -> str:
    """Returns the library to take for a dtype, by the times of `product_times`."""
    ours, other = times.get(f"{dtype} {DEFAULT}"), times.get(f"{dtype} ynn")
    if ours is None or other is None:
        return DEFAULT
    return "ynn" if other < (1 - MARGIN) * ours else DEFAULT


def slow_precision(times: dict[str, float], dtype: str) -> str:
    """Returns a warning if half precision is slower than float32 here, or an empty text."""
    best = {
        kind: min((times[key] for key in times if key.split()[0] == kind), default=None)
        for kind in ("float32", dtype)
    }
    full, half = best["float32"], best[dtype]
    if full is None or half is None or half < SLOWER * full:
        return ""
    return (
        f"this processor takes {half / full:.1f} times as long for products in {dtype} as in "
        "float32: --use_amp 0 is faster here"
    )


def products_file() -> Path:
    """Returns the file with the measured times."""
    return user_cache("products.json")


def processor_key(cpuinfo: str | None = None) -> str:
    """Returns what a measurement holds for: processor, cores, version and XLA's other flags.

    `cpuinfo` is the text of ``/proc/cpuinfo``, which is read by default.
    """
    model, flags = model_and_flags(cpuinfo)
    sets = [name for name in INSTRUCTIONS if name in flags.split()]
    about = [f"{usable_cores()} cores", f"jaxlib {version('jaxlib')}"]
    return ", ".join([model, *sets, *about, *_other_flags()])


def _other_flags() -> list[str]:
    """Returns XLA's flags without the one for the library."""
    words = os.environ.get("XLA_FLAGS", "").split()
    return [word for word in words if not word.startswith(NO_YNN)]


def product_times(
    dtypes: Sequence[str],
    say: Callable[[str], None],
    path: Path | None = None,
    *,
    meanwhile: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Returns the seconds that each library takes in each dtype, such as "bfloat16 ynn".

    They come from the file, or else from a process that measures them; `meanwhile` is called while
    that process starts. They are empty if it fails.
    """
    path = path or products_file()
    known = _known(path)
    key = processor_key()
    times = dict(known.get(key, {}))
    missing = [dtype for dtype in dtypes if f"{dtype} {DEFAULT}" not in times]
    if not missing:
        return times
    kinds = " and ".join(missing)
    say(f"measuring which library multiplies matrices of {kinds} faster here (once)")
    new = _measured_by_a_process(missing, meanwhile)
    if not new:
        say(f"the measurement failed, so XLA's own programs are used ({PRODUCTS}=ynn changes it)")
        return {}
    times |= new
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**known, key: times})
    except OSError as error:
        say(f"the measurement cannot be kept, so each start measures again ({error})")
    return times


def _known(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file. A damaged file counts as empty, and is written again."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _measured_by_a_process(
    dtypes: Sequence[str], meanwhile: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Measures in another process, since XLA reads its flags once in each."""
    environ = {**os.environ, "XLA_FLAGS": " ".join(_other_flags()), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "pinxit.cli.product_times", *dtypes]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            meanwhile()
            output, _ = process.communicate(timeout=PATIENCE)
            return dict(json.loads(output)) if process.returncode == 0 else {}
        except (subprocess.TimeoutExpired, ValueError):
            return {}
        finally:
            process.kill()
