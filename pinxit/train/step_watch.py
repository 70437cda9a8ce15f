"""Watches the training step: announces its compilation, counts its operations, profiles it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax

from pinxit.devices.common_steps import Together
from pinxit.devices.device_figures import memory_figures, peak_flops
from pinxit.devices.flops import count
from pinxit.devices.processes import Stopped
from pinxit.encoders.text_columns import TextColumns
from pinxit.progress import duration
from pinxit.train.build import Parts, build_step
from pinxit.train.settings import TrainConfig
from pinxit.train.start_lines import compile_line
from pinxit.train.step_profile import StepProfile


class WatchedStep:
    """Runs the step. Says that it compiles first, and how long that took."""

    def __init__(
        self,
        step: Together,
        *,
        parts: Parts,
        start: int,
        figures: StepFigures,
        profile: StepProfile,
        say: Callable[[str], object],
        compiled: Callable[[], object] = lambda: None,
    ) -> None:
        """Takes the step. `compiled` is called once, after the first step."""
        self._step = step
        self._when_compiled = compiled
        self._parts = parts
        self._number = start
        self._compiled = self._taken = self._stopped = False
        self._figures = figures
        self._profile = profile
        self._say = say

    def __call__(self, state: Any, frozen: Any, columns: dict[str, Any]) -> Any:
        self._number += 1
        self._profile.before(self._number)
        if self._taken:
            result = self._step(state, frozen, columns)
        else:
            result = self._first(state, frozen, columns)
        self._profile.after(self._number, result)
        return result

    def close(self) -> None:
        """Ends a profile that still records, because training stopped inside its range."""
        self._profile.close()

    def compile(self, state: Any, frozen: Any, columns: Mapping[str, Any] | None) -> None:
        """Compiles the step for columns of these shapes, if they are known.

        After a signal, it returns, and the first step raises `Stopped`.
        """
        if columns is None:
            return
        try:
            self._compile(state, frozen, dict(columns))
        except Stopped:
            self._stopped = True

    def _compile(self, state: Any, frozen: Any, columns: dict[str, Any]) -> None:
        self._figures.count(state, frozen, columns)
        platform = self._parts.mesh.devices.flat[0].platform
        self._say(compile_line(self._parts.model, platform))
        start = time.perf_counter()
        self._step.compiled(state, frozen, columns)
        seconds = time.perf_counter() - start
        self._compiled = True
        shown = f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
        self._say(f"compiled the training step in {shown}")

    def _first(self, state: Any, frozen: Any, columns: dict[str, Any]) -> Any:
        if self._stopped:
            raise Stopped
        if not self._compiled:
            self._compile(state, frozen, columns)
        result = self._step(state, frozen, columns)
        jax.block_until_ready(result)  # what waits for the compilation does not disturb this step
        self._taken = True
        self._when_compiled()
        return result


class StepFigures:
    """Figures about the devices for each row of metrics: memory, and the share of their peak.

    The model FLOPs utilisation (MFU) is the operations of a step, divided by its seconds and by the
    peak of all devices. Operations that are computed again to save memory do not count. On devices
    whose peak is not known, there is no MFU.
    """

    def __init__(self, config: TrainConfig, parts: Parts, text: TextColumns) -> None:
        self._config = config
        self._parts = parts
        self._text = text
        devices = list(parts.mesh.devices.flat)
        self._own = [d for d in devices if d.process_index == jax.process_index()]
        each = peak_flops(str(devices[0].device_kind), parts.model.dtype)
        self._peak = None if each is None else each * len(devices)
        self._operations: float | None = None

    def count(self, state: Any, frozen: Any, columns: dict[str, Any]) -> None:
        """Counts the operations of a step with these arguments, if the peak is known."""
        if self._peak is None:
            return
        try:
            self._operations = step_flops(
                self._config, self._parts, self._text, (state, frozen, columns)
            )
        except Exception:  # a figure that cannot be computed must not end the run
            self._operations = None

    def of(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Returns the figures for a row of metrics."""
        figures, seconds = memory_figures(self._own), row.get("seconds_per_step")
        if self._operations and self._peak and seconds:
            figures["mfu"] = self._operations / seconds / self._peak
        return figures


def step_flops(
    config: TrainConfig, parts: Parts, text: TextColumns, arguments: tuple[Any, Any, Any]
) -> float:
    """Counts the operations of one step, over all devices, as `pinxit plan` does.

    They are counted without recomputation and with XLA's attention, since other kernels hide their
    operations. The blocks are scanned, which has the same operations and traces fast.
    """
    model = replace(parts.model, attention="xla", remat="none", scan_blocks=True, scan_unroll=1)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), arguments
    )
    step: Any = build_step(config, replace(parts, model=model), shapes[0], text)
    return count(step.trace(*shapes).jaxpr)
