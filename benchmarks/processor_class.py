"""Names the processor that a figure holds for, and caps the instructions that a process may use.

A figure of speed holds for a class of processors: the model, the number of cores that the process
may use, and the widest vector instructions. `CAPS` has the environment variables that make both
runtimes ignore wider ones. These are several, since each library looks at the processor by itself:

- XLA's own code obeys ``--xla_cpu_max_isa``. Its matrix products come from oneDNN, which obeys
  ``ONEDNN_MAX_CPU_ISA``. YNN's obey neither, so they stay switched off, as in training.
- torch's own loops obey ``ATEN_CPU_CAPABILITY``, its products in float32 come from MKL, which obeys
  ``MKL_ENABLE_INSTRUCTIONS`` (on AMD's processors they reach the rate of AVX2 in any case), its
  convolutions and bfloat16 products obey ``ONEDNN_MAX_CPU_ISA``, and the code of `torch.compile`
  obeys ``ATEN_CPU_CAPABILITY`` and ``TORCHINDUCTOR_CPP_MARCH``.

`python benchmarks/product_rates.py --cap avx2` shows the effect on matrix products.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pinxit.cli.cpu_products import faster, product_times
from pinxit.cli.xla_environment import CPU_MALLOC, GUARD, NO_YNN
from pinxit.cli.xla_environment import LIBRARIES as PRODUCT_FLAGS
from pinxit.processor import model_and_flags, usable_cores

INSTRUCTIONS = {
    "AVX2": ("avx2", "fma"),
    "AVX-512": ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
    "AVX512-BF16": ("avx512_bf16",),
    "AMX": ("amx_tile", "amx_bf16"),
}
"""The instruction sets that matter here, the oldest first, with Linux's names of their parts."""

CAPS: dict[str, dict[str, str]] = {
    "avx2": {
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "TORCHINDUCTOR_CPP_MARCH": "x86-64-v3",
    },
}
"""The variables of each cap. The value of XLA_FLAGS is added to the flags that are there."""
CAPPED_SETS = {"avx2": ("AVX2",)}
"""The instruction sets that each cap leaves."""
LIBRARIES = ("pinxit", "jax", "jaxlib", "torch", "diffusers", "transformers")


def instruction_sets(flags: str, cap: str | None = None) -> list[str]:
    """Returns which of `INSTRUCTIONS` are among the kernel's `flags` and are left by the cap."""
    present = set(flags.split())
    names = [name for name, parts in INSTRUCTIONS.items() if present.issuperset(parts)]
    return names if cap is None else [name for name in names if name in CAPPED_SETS[cap]]


def processor(cap: str | None = None, cpuinfo: str | None = None) -> dict[str, Any]:
    """Returns the model's name, the number of usable cores and the instruction sets.

    `cpuinfo` is the text of ``/proc/cpuinfo``, which is read by default. Elsewhere than on Linux
    the sets are unknown, and the list is empty.
    """
    model, flags = model_and_flags(cpuinfo)
    sets = instruction_sets(flags, cap)
    return {"model": model, "cores": usable_cores(), "instructions": sets}


def processor_words(known: Mapping[str, Any]) -> str:
    """Returns a processor in words: "AMD EPYC, 2 cores, AVX2, AVX-512"."""
    cores = f"{known['cores']} core{'s' if known['cores'] != 1 else ''}"
    return ", ".join([known["model"], cores, *known["instructions"]])


def versions() -> dict[str, str]:
    """Returns the versions of the libraries that are installed, without importing them."""
    installed = {}
    for name in LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def side_environment(cap: str | None = None, *, amp: bool = False) -> dict[str, str]:
    """Returns the environment of a measured process, the same for every side.

    Memory is tuned as in training (`pinxit.cli.xla_environment`), JAX runs on the CPU, and compiled
    programs are cached. With a cap, the caches are others. With `amp`, XLA computes products with
    the library that a training run in bfloat16 chooses here (`pinxit.cli.cpu_products`).
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pinxit"
    cache = cache / "benchmarks" / (cap or "native")
    flags = os.environ.get("XLA_FLAGS", "")
    products = NO_YNN
    if amp and NO_YNN not in flags:
        times = product_times(("bfloat16",), lambda line: print(line, file=sys.stderr))
        products = PRODUCT_FLAGS[faster(times, "bfloat16")]
    environment = {
        **os.environ,
        **CPU_MALLOC,
        GUARD: "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "torch"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "XLA_FLAGS": flags if NO_YNN in flags else f"{flags} {products}".strip(),
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")))
        ),
    }
    for name, value in CAPS[cap].items() if cap else ():
        before = f"{environment['XLA_FLAGS']} " if name == "XLA_FLAGS" else ""
        environment[name] = f"{before}{value}"
    return environment
