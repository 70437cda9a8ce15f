"""Postpones Python's garbage collection while a command starts, and skips it when a process ends.

Importing JAX and Flax creates hundreds of thousands of objects that live until the end. The
collector, which looks for unreachable cycles among them again and again, took a fifth of the CPU
time of a command that draws one picture, and as much again at its end. `benchmarks/start_times.py`
measures this.
"""

from __future__ import annotations

import gc

_postponed = False


def postpone() -> None:
    """Stops the collector until `resume` is called. It stays off if the caller has stopped it."""
    global _postponed
    _postponed = gc.isenabled()
    gc.disable()


def resume() -> None:
    """Starts the collector again if `postpone` has stopped it, otherwise does nothing.

    The objects that exist by now are not looked at any more.
    """
    global _postponed
    if _postponed:
        _postponed = False
        gc.freeze()
        gc.enable()


def skip_last() -> None:
    """Makes the end of this process fast: its last collection finds nothing to look at.

    Functions of `atexit` and `weakref.finalize` run nevertheless.
    """
    gc.freeze()
