"""Turns an out-of-memory error into advice: the memory needed, the memory available, what fits.

When the compiler or a device runs out of memory, other settings are tried, those that cost the
least speed first. Their memory is estimated (`pinxit.train.step_memory`), which takes a second. At
most `COMPILATIONS` of those that fit by the estimate are then compiled for the same devices, if
their blocks run in a loop: such a program compiles in minutes, many unrolled blocks take up to an
hour. Nothing is allocated (see `abstract_program.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from traceback import clear_frames, walk_tb
from typing import Any

import jax
import psutil

from pinxit import config as configuration
from pinxit.models.transformer import preset
from pinxit.train.auto_settings import abstract_parts, settled
from pinxit.train.settings import TrainConfig
from pinxit.train.step_memory import MARGIN, step_estimate
from pinxit.train.watch.memory_savings import Change, ladder

SUGGESTIONS = 2
"""Number of fitting settings after which the search stops."""
COMPILATIONS = 2
"""Largest number of programs to compile for one piece of advice."""
FEW_BLOCKS = 6
"""Number of unrolled blocks that compile about as fast as a loop."""
ROOM = 0.97
"""Fraction of a device's memory that a step may use. The allocator needs the rest."""
UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SIZE = r"(\d+(?:\.\d+)?)\s*(bytes|[KMGT]i?B?\b|B\b)"

WATCHING = (
    "try smaller --evaluation.batch_size, fewer --samples.prompts or --samples.seeds, or "
    "--evaluation.images 0"
)
"""Settings that lower the memory of sampling and evaluating."""

MeasureFn = Callable[[TrainConfig], int]
"""Returns the step's peak bytes on each device. Raises the compiler's errors."""


@dataclass(frozen=True)
class Shortage:
    """The memory figures in an error, in bytes. A figure that the error does not give is None."""

    needed: int | None = None
    available: int | None = None
    asked: int | None = None
    """Size of the single allocation that failed."""


@dataclass(frozen=True)
class Trial:
    """The memory of the step with a change."""

    change: Change
    peak: int | None
    """Bytes on each device, or None if the compiler itself ran out of memory."""
    fits: bool
    compiled: bool = True
    """Whether the compiler reported the bytes, rather than the estimate."""


@dataclass(frozen=True)
class Advice:
    """The diagnosis of a run that ran out of memory."""

    shortage: Shortage
    limit: int | None
    """Memory of each device, in bytes."""
    device: str
    count: int
    peak: int | None
    """Bytes of the step with the run's settings: those in the error, or else the estimate."""
    where: str
    """Activity at the time: training, encoding data, or sampling or evaluating."""
    trials: tuple[Trial, ...] = field(default=())

    @property
    def fitting(self) -> list[Trial]:
        """The trials that fit, in the order of `ladder`."""
        return [trial for trial in self.trials if trial.fits]


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means that the host or a device ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    known = "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
    return isinstance(error, jax.errors.JaxRuntimeError) and known


def shortage(text: str) -> Shortage:
    """Reads the figures from an error's text, in the wordings of XLA for TPUs, GPUs and CPUs."""
    forms = (
        rf"\({SIZE}\) exceeds available \w+ \({SIZE}\)",
        rf"Used {SIZE} of {SIZE} \w+",
        rf"requires {SIZE}.*?only {SIZE}",
    )
    for form in forms:
        if match := re.search(form, text, re.IGNORECASE | re.DOTALL):
            return Shortage(needed=_bytes(*match.group(1, 2)), available=_bytes(*match.group(3, 4)))
    form = rf"(?:allocat\w*|request for)\s+(?:of\s+)?{SIZE}"
    match = re.search(form, text, re.IGNORECASE)
    return Shortage(asked=_bytes(*match.group(1, 2)) if match else None)


def _bytes(number: str, unit: str) -> int:
    key = "" if unit.lower() == "bytes" else unit[:1].upper()
    return int(float(number) * UNITS[key])


def device_limit() -> int | None:
    """Returns the bytes that programs may use on a device, or None if unknown.

    This is the allocator's limit. On the CPU it is the host's memory, divided by the device count.
    """
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if limit := stats.get("bytes_limit"):
        return int(limit)
    if device.platform == "cpu":
        return psutil.virtual_memory().total // max(1, jax.local_device_count())
    return None


# --- trials -----------------------------------------------------------------------------------


def step_measure(config: TrainConfig) -> int:
    """Compiles the step for the local devices and returns its peak bytes on each device, with what
    else stays there, such as encoders beside the step. Nothing is loaded or allocated."""
    from pinxit.train.abstract_program import abstract_program

    program = abstract_program(config)
    traced = program.trace()
    return peak_bytes(traced.lower().compile()) + program.unread_bytes(traced)


def peak_bytes(compiled: Any) -> int:
    """Returns a compiled program's peak bytes on each device, including its arguments."""
    stats = compiled.memory_analysis()
    peak = getattr(stats, "peak_memory_in_bytes", 0)
    parts = stats.argument_size_in_bytes + stats.temp_size_in_bytes
    parts += stats.output_size_in_bytes - stats.alias_size_in_bytes
    # on the CPU the peak excludes temporaries; on other devices the sum is too large
    return int(parts if jax.default_backend() == "cpu" else peak or parts)


def step_guess(config: TrainConfig) -> int:
    """Returns the estimated peak bytes of the step on each local device. Nothing is compiled."""
    parts = abstract_parts(config)
    return step_estimate(config, parts).total(config, parts.model)


def advise(
    error: BaseException,
    config: TrainConfig,
    *,
    measure: MeasureFn,
    estimate: MeasureFn = step_guess,
    limit: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Advice:
    """Returns a diagnosis of `error`, with settings that fit.

    `measure` compiles a step, `estimate` does not. `limit` is the memory of a device in bytes, by
    default as in the error, or as the device reports. `say` receives a line for each compilation.
    """
    devices, reported = jax.devices(), shortage(str(error))
    limit = limit or reported.available or device_limit()
    about = (reported, limit, str(devices[0].device_kind), len(devices))
    where = _where(error)
    estimated = estimate(config)
    peak = reported.needed or estimated
    if where != "training" and _fits(peak, limit):
        return Advice(*about, peak, where)
    if reported.asked is not None and _fits(peak, limit):
        # the program needs more than estimated, so compare candidates against a lower limit
        limit = min(limit or peak, peak)
    say("out of memory: looking for settings that fit")
    search = _Search(config, measure, estimate, limit, max(1.0, peak / estimated), say)
    return Advice(*about, peak, where, tuple(search.trials(len(devices))))


@dataclass
class _Search:
    """The search for settings that fit."""

    config: TrainConfig
    measure: MeasureFn
    estimate: MeasureFn
    limit: int | None
    correction: float
    """Factor by which the estimate of the run's own settings was too low."""
    say: Callable[[str], None]
    compilations: int = 0

    def trials(self, devices: int) -> Iterator[Trial]:
        """Yields the trials until enough settings fit."""
        network = preset(self.config.model.preset, **self.config.model.overrides())
        unrolled, fitting = not network.scan_blocks, 0
        changes = ladder(self.config, devices=devices, remat=network.remat, unrolled=unrolled)
        for change in changes:
            trial = self._trial(change)
            fitting += trial.fits
            yield trial
            if fitting >= SUGGESTIONS:
                return

    def _trial(self, change: Change) -> Trial:
        """Estimates the step with a change, and compiles it if it seems to fit and is quick."""
        changed = configuration.replace(self.config, change.settings)
        needed = int(self.estimate(changed) * self.correction)
        fits = _fits(needed, self.limit, room=1 - MARGIN)
        network = preset(changed.model.preset, **changed.model.overrides())
        quick = network.scan_blocks or network.depth <= FEW_BLOCKS
        if not fits or not quick or self.compilations >= COMPILATIONS:
            return Trial(change, needed, fits, compiled=False)
        self.compilations += 1
        self.say(f"  compiling the step with {change.flags}")
        peak = _measured(self.measure, changed)
        fits = peak is not None and _fits(peak, self.limit)
        self.say(f"  {change.flags}: {_size(peak)} ({'fits' if fits else 'too much'})")
        return Trial(change, peak, fits)


def _measured(measure: MeasureFn, config: TrainConfig) -> int | None:
    try:
        return measure(config)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return shortage(str(error)).needed


def _fits(peak: int, limit: int | None, *, room: float = ROOM) -> bool:
    return limit is None or peak < room * limit


def _where(error: BaseException) -> str:
    """Returns what the run was doing when the error was raised."""
    names = {frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)}
    if any(name.startswith(("pinxit.train.report.", "pinxit.pipeline")) for name in names):
        return "sampling or evaluating"
    if names & {"pinxit.train.input.streamed_loader", "pinxit.train.input.in_memory"}:
        return "encoding data"
    return "training"


def memory_advice(
    error: BaseException,
    config: TrainConfig,
    *,
    measure: MeasureFn | None = None,
    estimate: MeasureFn | None = None,
    limit: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """Returns the advice on an error as text. Clears the error's frames first, because they may
    hold a state that still fills the device."""
    clear_frames(error.__traceback__)
    try:
        config = config.resolved()
        config = settled(config, abstract_parts(config))[0]
        advice = advise(
            error,
            config,
            measure=measure or step_measure,
            estimate=estimate or step_guess,
            limit=limit,
            say=say,
        )
    except ValueError as problem:
        text = " ".join(str(error).split())[:400]
        return f"out of memory: {text}\ncannot determine which settings would fit: {problem}"
    return message(advice)


def memory_hint(error: BaseException) -> str:
    """Returns what to do about an out-of-memory error beside the training, without compiling."""
    asked = shortage(str(error)).asked
    size = f" (an allocation of {_size(asked)} failed)" if asked else ""
    return f"out of memory while sampling or evaluating{size}: {WATCHING}"


# --- report -----------------------------------------------------------------------------------


def message(advice: Advice) -> str:
    """Returns the advice as lines of text: the shortage, the settings that fit, and hints."""
    lines = [_headline(advice)]
    fitting = advice.fitting
    if advice.where != "training" and not advice.trials:
        hint = (
            "another program may be using the device's memory. --encoder_dtype bfloat16 halves the "
            "memory of the encoders"
            if advice.where == "encoding data"
            else WATCHING
        )
        lines.append(f"the training step fits. Memory ran out while {advice.where}: {hint}")
    for trial in fitting:
        name = "" if trial.change.same_run else ", needs a new run: --name NEW"
        size = _size(trial.peak) if trial.compiled else f"about {_size(trial.peak)}, not compiled,"
        about = f"{size} on each device, {trial.change.cost}{name}"
        lines.append(f"  add {trial.change.flags}   ({about})")
    if advice.trials and not fitting:
        least = min((trial.peak for trial in advice.trials if trial.peak), default=None)
        lines.append(
            f"no settings that were tried fit (the smallest needs {_size(least)}). Use more "
            "devices with --mesh fsdp=*, a smaller --model.preset, or a smaller --image_size"
        )
    if advice.device and jax.default_backend() == "gpu":
        lines.append(
            "`pinxit` lets JAX use 92 % of a GPU's memory; from Python, JAX uses three quarters. "
            "XLA_PYTHON_CLIENT_MEM_FRACTION changes that"
        )
    lines.append("`pinxit plan` shows before a run which settings fit")
    return "\n".join(lines)


def _headline(advice: Advice) -> str:
    reported, peak = advice.shortage, advice.peak
    needed = reported.needed or peak
    parts = ["out of memory"]
    if needed:
        parts.append(f"the step needs {_size(needed)} on each device")
    if reported.asked:
        parts.append(f"an allocation of {_size(reported.asked)} failed")
    if advice.limit:
        devices = f"{advice.count} x {advice.device}" if advice.count > 1 else advice.device
        parts.append(f"{_size(reported.available or advice.limit)} are available ({devices})")
    return f"{parts[0]}: {', '.join(parts[1:])}" if parts[1:] else parts[0]


def _size(count: int | None) -> str:
    if count is None:
        return "more than is available"
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count} bytes"
