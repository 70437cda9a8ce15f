"""Lets JAX run the programs of a CPU in the thread that calls them.

JAX's default is a thread pool. In its threads, glibc takes the memory of each array above 64 MiB
from the kernel and gives it back after the program, whatever its settings are, and the kernel
clears all of it each time: 5 % of a training step or more. In the main thread, glibc keeps the
memory if it is told to (`pinxit.cli.xla_environment`).
"""

from __future__ import annotations

import jax

OPTION = "jax_cpu_enable_async_dispatch"
"""JAX's option for the thread pool."""


def run_in_callers_thread() -> None:
    """Makes a call of a program for one CPU return when the program has ended, from now on.

    This has no effect if JAX has looked for devices already, and none on other devices or on
    programs for several CPU devices.
    """
    jax.config.update(OPTION, False)
