"""The steps of all processes: each compiles a step first, and all end after the same one."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pinxit.devices.processes import Stopped, meet, several

DELAY = 2
"""Number of steps after which all processes know of a signal: the flag is summed while they run."""


class Together:
    """A jitted step that is compiled for each new batch shape before it runs on it.

    A signal ends a compilation: then the step raises `Stopped` and has not used up the state.
    Processes compile at different speeds, and collectives time out sooner than the key-value store,
    so several processes wait on the store first.
    """

    def __init__(
        self,
        step: Any,
        attend: Callable[[Callable[[], Any]], Any] = lambda act: act(),
        *,
        signal: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Takes a function `attend` that calls another one, and raises `Stopped` if a signal
        arrives meanwhile. `signal` is as for `alone`."""
        self._step = step
        self._attend = attend
        self._signal = signal
        self._compiled: dict[Any, Any] = {}

    def __call__(self, state: Any, frozen: Any, raw: dict[str, Any]) -> Any:
        """Runs the step, after compiling it if the batch shape is new."""
        return self.compiled(state, frozen, raw)(state, frozen, raw)

    def compiled(self, state: Any, frozen: Any, raw: dict[str, Any]) -> Any:
        """Returns the program for a batch of these shapes. `raw` may have shapes for arrays."""
        key = tuple(sorted((name, array.shape) for name, array in raw.items()))
        if key not in self._compiled:
            self._compiled[key] = self._compile(state, frozen, raw)
        return self._compiled[key]

    def _compile(self, state: Any, frozen: Any, raw: dict[str, Any]) -> Any:
        compiled = None
        with contextlib.suppress(Stopped):
            compiled = self._attend(lambda: self._step.lower(state, frozen, raw).compile())
        stop = compiled is None
        if several():
            name = f"compiled/{len(self._compiled) + 1}"
            stop = meet(name, stop=stop, signal=self._signal)
        if stop:
            raise Stopped
        return compiled


class Agreement:
    """Finds out, at the same step in all processes, whether any of them wants to stop.

    Each call starts a small sum over the mesh and returns the result of `DELAY` calls before, so no
    process waits. All processes must call it equally often. A single process gets its own flag back
    at once.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._several = several()
        self._size = mesh.size
        self._cut = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._sum = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._waiting: deque[jax.Array] = deque()
        self.reached = False
        """Whether the processes have agreed to stop."""

    def __call__(self, stop: bool) -> bool:
        """Returns True once the flag of any process has arrived."""
        if not self._several:
            return stop
        self._start(stop)
        while len(self._waiting) > DELAY:
            self._finish()
        return self.reached

    def now(self, stop: bool) -> bool:
        """Returns the same, including all flags up to this call; waits for the other processes."""
        if not self._several:
            return stop
        self._start(stop)
        while self._waiting:
            self._finish()
        return self.reached

    def _start(self, stop: bool) -> None:
        flags = np.full(self._size, stop, np.int32)
        shape = (self._size,)
        flag = jax.make_array_from_callback(shape, self._cut, lambda index: flags[index])
        self._waiting.append(self._sum(flag))

    def _finish(self) -> None:
        self.reached |= bool(np.asarray(self._waiting.popleft()) > 0)
