"""Out of memory becomes advice with numbers: what was needed, what there is, and what fits.

When the compiler or a device refuses for want of memory, the same step is compiled with other
settings on the same devices (nothing is allocated: see `abstract.py`), those that cost the least
speed first, until some fit. What each takes is the compiler's own figure, its peak.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from traceback import clear_frames, walk_tb
from typing import Any, get_args

import jax
import psutil

from pinxit import config as configuration
from pinxit.models.transformer import preset
from pinxit.train.settings import ModelConfig, TrainConfig

WANTED = 2
"""Settings that fit after which no more are compiled."""
ROOM = 0.97
"""Share of a device's memory that a step may plan for; the rest is the allocator's own."""
UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SIZE = r"(\d+(?:\.\d+)?)\s*(bytes|[KMGT]i?B?\b|B\b)"

MeasureFn = Callable[[TrainConfig], int]
"""Peak bytes of the step with these settings on each device; raises what the compiler raises."""


@dataclass(frozen=True)
class Shortage:
    """What an error says of memory, in bytes; None where it does not."""

    needed: int | None = None
    available: int | None = None
    asked: int | None = None
    """The one allocation that failed."""


@dataclass(frozen=True)
class Change:
    """Settings to try, and what they cost."""

    settings: dict[str, Any]
    cost: str
    same_run: bool = True
    """Whether a run may go on with them; otherwise it needs another name."""

    @property
    def flags(self) -> str:
        """As words of the command line."""
        return " ".join(f"--{name} {_word(value)}" for name, value in self.settings.items())


@dataclass(frozen=True)
class Tried:
    """A change that was compiled."""

    change: Change
    peak: int | None
    """Bytes on each device; None where the compiler itself ran out of memory."""
    fits: bool


@dataclass(frozen=True)
class Advice:
    """All that can be said of a run that ran out of memory."""

    shortage: Shortage
    limit: int | None
    """Bytes that each device has."""
    device: str
    count: int
    peak: int | None
    """Of the step as it was; None where it could not be compiled."""
    where: str
    """What the run was doing."""
    tried: tuple[Tried, ...] = field(default=())

    @property
    def fitting(self) -> list[Tried]:
        """Those that fit, in the order of `ladder`."""
        return [one for one in self.tried if one.fits]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is a want of memory, of the host or of a device."""
    if isinstance(error, MemoryError):
        return True
    said = str(error)
    known = "RESOURCE_EXHAUSTED" in said or "out of memory" in said.lower()
    return isinstance(error, jax.errors.JaxRuntimeError) and known


def shortage(said: str) -> Shortage:
    """The figures in an error's text, as XLA words it for TPUs, GPUs and CPUs."""
    forms = (
        rf"\({SIZE}\) exceeds available \w+ \({SIZE}\)",
        rf"Used {SIZE} of {SIZE} \w+",
        rf"requires {SIZE}.*?only {SIZE}",
    )
    for form in forms:
        if found := re.search(form, said, re.IGNORECASE | re.DOTALL):
            return Shortage(needed=_bytes(*found.group(1, 2)), available=_bytes(*found.group(3, 4)))
    form = rf"(?:allocat\w*|request for)\s+(?:of\s+)?{SIZE}"
    found = re.search(form, said, re.IGNORECASE)
    return Shortage(asked=_bytes(*found.group(1, 2)) if found else None)


def _bytes(number: str, unit: str) -> int:
    key = "" if unit.lower() == "bytes" else unit[:1].upper()
    return int(float(number) * UNITS[key])


def device_limit() -> int | None:
    """Bytes that a device lets programs have: the allocator's limit, or the host's memory."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if limit := stats.get("bytes_limit"):
        return int(limit)
    if device.platform == "cpu":
        return psutil.virtual_memory().total // max(1, jax.local_device_count())
    return None


# --- what to try ------------------------------------------------------------------------------


def ladder(config: TrainConfig, *, devices: int, remat: str = "none") -> Iterator[Change]:
    """Changes to try, the cheapest for speed first; `remat` is the network's as it is.

    Accumulation adds no arithmetic, rematerialisation does; a smaller batch is another run.
    """
    known = [name for name in _remats() if name != "offload"]
    policies = known[known.index(remat) :] if remat in known else [remat]
    pieces = _pieces(config, devices)
    few = [n for n in pieces if n <= 4 * config.gradient_accumulation_steps]
    order = sorted(product(policies, few or pieces[:1]), key=lambda pair: _cost(pair, policies))
    order += [(policies[-1], n) for n in pieces if n not in few]
    if "offload" in _remats() and remat != "offload" and jax.default_backend() != "cpu":
        order.append(("offload", pieces[-1]))
    for chunk in _chunks(config, devices):
        yield Change({"encoder_chunk": chunk}, f"encoders take {chunk} rows at once")
    for policy, count in order:
        settings: dict[str, Any] = {}
        if policy != remat:
            settings["model.remat"] = policy
        if count != config.gradient_accumulation_steps:
            settings["gradient_accumulation_steps"] = count
        if settings:
            yield Change(_divided(config, settings), _costs(settings))
    yield from _other(config, devices, policies[-1], pieces[-1])


def _other(config: TrainConfig, devices: int, policy: str, count: int) -> Iterator[Change]:
    """What is left when recomputing and accumulating do not do."""
    least = {"model.remat": policy, "gradient_accumulation_steps": count}
    least = {k: v for k, v in least.items() if v != 1}
    cut = f"fsdp={devices}"
    if devices > 1 and config.mesh in ("auto", f"data={devices}"):
        yield Change({"mesh": cut}, "the state is cut over the devices, and gathered")
        both = _divided(config, {**least, "mesh": cut})
        yield Change(both, "and all is recomputed, in pieces")
    if not config.use_amp and config.model.dtype is None:
        yield Change({"use_amp": True}, "half the activations, and faster", same_run=False)
        both = _divided(config, {**least, "use_amp": True})
        yield Change(both, "and all is recomputed", same_run=False)
    if len(config.ema.lengths) > 1:
        middle = sorted(config.ema.lengths)[len(config.ema.lengths) // 2]
        fewer = _divided(config, {**least, "ema.lengths": (middle,)})
        yield Change(fewer, "one average of the parameters in place of several", same_run=False)
    batch = config.batch_size
    while batch % (2 * devices) == 0:
        batch //= 2
        changes = {"model.remat": policy, "batch_size": batch, "gradient_accumulation_steps": 1}
        changes = _divided(config, changes)
        yield Change(changes, f"a batch of {batch} in place of {config.batch_size}", same_run=False)


def _pieces(config: TrainConfig, devices: int) -> list[int]:
    """Numbers of pieces that the batch can be cut in: as it is, twice, four times, ..."""
    found = [config.gradient_accumulation_steps]
    while config.batch_size % (2 * found[-1] * devices) == 0:
        found.append(2 * found[-1])
    return found


def _chunks(config: TrainConfig, devices: int) -> list[int]:
    """Rows at once for encoders that run in the step: a quarter of them, and as few as there are
    devices."""
    if not config.encode_in_step:
        return []
    piece = config.encoder_chunk or config.batch_size // config.gradient_accumulation_steps
    sizes = {piece // 4, devices} if piece % (4 * devices) == 0 else {devices}
    return [size for size in sorted(sizes, reverse=True) if size < piece and piece % size == 0]


def _divided(config: TrainConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """`settings`, with a chunk of the encoders that still divides what is encoded together."""
    batch = settings.get("batch_size", config.batch_size)
    count = settings.get("gradient_accumulation_steps", config.gradient_accumulation_steps)
    fits = not config.encoder_chunk or batch // count % config.encoder_chunk == 0
    return settings if fits else {**settings, "encoder_chunk": batch // count}


def _cost(pair: tuple[str, int], policies: Sequence[str]) -> tuple[int, int]:
    return policies.index(pair[0]), pair[1]


def _costs(settings: dict[str, Any]) -> str:
    said = {
        "dots": "computes again what is between matrix products",
        "full": "computes each block twice",
        "offload": "keeps matrix products in the host's memory",
    }
    parts = []
    if "model.remat" in settings:
        parts.append(said.get(settings["model.remat"], settings["model.remat"]))
    if "gradient_accumulation_steps" in settings:
        parts.append(f"the batch in {settings['gradient_accumulation_steps']} pieces")
    return ", ".join(parts)


def _remats() -> tuple[str, ...]:
    """The policies that there are."""
    literal = configuration.options(configuration.hints(ModelConfig)["remat"])[0]
    return get_args(literal)


# --- trying -----------------------------------------------------------------------------------


def step_measure(config: TrainConfig) -> int:
    """Compiles the step for the devices that are here; nothing is loaded or allocated."""
    from pinxit.train.abstract_program import abstract_program

    return peak_bytes(abstract_program(config).lower().compile())


def peak_bytes(compiled: Any) -> int:
    """What a compiled program takes at its peak on each device, arguments included."""
    stats = compiled.memory_analysis()
    peak = getattr(stats, "peak_memory_in_bytes", 0)
    parts = stats.argument_size_in_bytes + stats.temp_size_in_bytes
    parts += stats.output_size_in_bytes - stats.alias_size_in_bytes
    # the CPU's peak leaves out the temporaries; elsewhere the sum of all overstates
    return int(parts if jax.default_backend() == "cpu" else peak or parts)


def advise(
    error: BaseException,
    config: TrainConfig,
    *,
    measure: MeasureFn,
    limit: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Advice:
    """What to do about `error`; `say` is told of each compilation. `limit` in bytes a device."""
    devices, said = jax.devices(), shortage(str(error))
    limit = limit or said.available or device_limit()
    about = (said, limit, str(devices[0].device_kind), len(devices))
    where = _where(error)
    say("out of memory; compiling the step with other settings to see what fits")
    peak = _measured(measure, config)
    if where != "training" and peak is not None and _fits(peak, limit):
        return Advice(*about, peak, where)
    if peak is not None and said.asked is not None and _fits(peak, limit):
        # the compiler's figure was too small once: from now on it is held against less
        limit = min(limit or peak, peak)
    tried: list[Tried] = []
    remat = config.model.remat or preset(config.model.preset).remat
    for change in ladder(config, devices=len(devices), remat=remat):
        changed = configuration.replace(config, change.settings)
        found = _measured(measure, changed)
        fits = found is not None and _fits(found, limit)
        tried.append(Tried(change, found, fits))
        say(f"  {change.flags}: {_size(found)} ({'fits' if fits else 'too much'})")
        if sum(one.fits for one in tried) >= WANTED:
            break
    return Advice(*about, peak, where, tuple(tried))


def _measured(measure: MeasureFn, config: TrainConfig) -> int | None:
    try:
        return measure(config)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return shortage(str(error)).needed


def _fits(peak: int, limit: int | None) -> bool:
    return limit is None or peak < ROOM * limit


def _where(error: BaseException) -> str:
    """What the run was doing when the error was raised."""
    names = {frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)}
    if any(name.startswith(("pinxit.train.report.", "pinxit.pipeline")) for name in names):
        return "drawing or measuring"
    if names & {"pinxit.train.input.streamed_loader", "pinxit.train.input.in_memory"}:
        return "encoding data"
    return "training"


def memory_advice(
    error: BaseException,
    config: TrainConfig,
    *,
    measure: MeasureFn | None = None,
    limit: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """The advice on an error, in words. What its frames hold is let go of first: the state may
    still fill the device."""
    clear_frames(error.__traceback__)
    try:
        found = advise(error, config, measure=measure or step_measure, limit=limit, say=say)
    except ValueError as problem:
        said = " ".join(str(error).split())[:400]
        return f"out of memory: {said}\nwhat would fit cannot be told: {problem}"
    return message(found)


# --- saying -----------------------------------------------------------------------------------


def message(advice: Advice) -> str:
    """The advice in words: one line each for what was, what fits, and what else there is."""
    lines = [_headline(advice)]
    fitting = advice.fitting
    if advice.where != "training" and not advice.tried:
        what = (
            "another program may hold the device's memory; --encoder_dtype bfloat16 halves what "
            "the encoders take"
            if advice.where == "encoding data"
            else "try smaller --evaluation.batch_size, fewer --samples.prompts or "
            "--samples.seeds, or --evaluation.images 0"
        )
        lines.append(f"the step itself fits; it was {advice.where}: {what}")
    for one in fitting:
        name = "" if one.change.same_run else "; another run: --name OTHER"
        about = f"{_size(one.peak)} on each device; {one.change.cost}{name}"
        lines.append(f"  add {one.change.flags}   ({about})")
    if advice.tried and not fitting:
        least = min((one.peak for one in advice.tried if one.peak), default=None)
        lines.append(
            f"nothing that was tried fits (the least took {_size(least)}): more devices with "
            "--mesh fsdp=*, a smaller --model.preset, or a smaller --image_size"
        )
    if advice.device and jax.default_backend() == "gpu":
        lines.append(
            "JAX takes three quarters of a GPU's memory unless told otherwise: "
            "XLA_PYTHON_CLIENT_MEM_FRACTION=.92 gives more, if nothing else uses the card"
        )
    lines.append("pinxit plan tells what fits before anything is started")
    return "\n".join(lines)


def _headline(advice: Advice) -> str:
    said, peak = advice.shortage, advice.peak
    needed = said.needed or peak
    parts = ["out of memory"]
    if needed:
        parts.append(f"the step needs {_size(needed)} on each device")
    if said.asked:
        parts.append(f"an allocation of {_size(said.asked)} failed")
    if advice.limit:
        devices = f"{advice.count} x {advice.device}" if advice.count > 1 else advice.device
        parts.append(f"there are {_size(said.available or advice.limit)} ({devices})")
    return f"{parts[0]}: {', '.join(parts[1:])}" if parts[1:] else parts[0]


def _size(count: int | None) -> str:
    if count is None:
        return "more than there is"
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count} bytes"


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
