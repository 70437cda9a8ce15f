"""Devices as a mesh with named axes: who computes which samples, and who keeps which parameters.

::

    data      copies of the model; each computes its own samples
    fsdp      devices that share one copy of the state and compute their own samples
    tensor    devices that share one copy and compute parts of the same samples

A batch is cut over ``data`` and ``fsdp``. Arrays of the state are cut over ``fsdp`` and ``tensor``
by `pinxit.devices.partition_rules`, copied over ``data``. The step needs no code for any of it: XLA
sees where arrays lie and adds what the devices must tell one another.

A mesh is written ``data=2,fsdp=4``; axes not named have size 1 and one axis may be ``*``, all that
the others leave. ``auto`` copies a state that takes a small share of a device's memory, and cuts
another one over the devices of each process, as few as hold it well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from pinxit.config import UsageError
from pinxit.devices.partition_rules import BATCH, FSDP, TENSOR, cut_longest, spec_of

AXES = ("data", FSDP, TENSOR)
SMALL = 0.25
"""A state that takes no more than this share of a device's memory is copied to each."""
HELD = 0.5
"""A state that is cut takes no more than this share of each, where there are enough devices."""
FROZEN_MINIMUM = 2**30
"""Frozen weights of fewer bytes are copied to every device that runs them in the step."""


@dataclass(frozen=True)
class Layout:
    """A mesh's shape, and why it was chosen."""

    shape: tuple[int, int, int]
    """Devices along ``data``, ``fsdp`` and ``tensor``."""
    why: str
    """For the one who reads the log; empty where the shape was given."""

    def __str__(self) -> str:
        named = zip(AXES, self.shape, strict=True)
        said = ",".join(f"{name}={size}" for name, size in named if size > 1) or "one device"
        return f"{said} ({self.why})" if self.why else said


def make_mesh(
    spec: str = "auto",
    devices: Sequence[Any] | None = None,
    *,
    state_bytes: int | None = None,
    memory_bytes: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Mesh:
    """The mesh that `spec` asks for, of all devices or these; `say` is told which it is.

    `state_bytes` is the size of the whole state and `memory_bytes` that of one device's memory, by
    default what the device tells: ``auto`` needs them. The devices may be only described
    (`jax.experimental.topologies`). Raises `UsageError` for a mesh that the devices do not allow.
    """
    found = list(jax.devices() if devices is None else devices)
    layout = choose(spec, found, state_bytes=state_bytes, memory_bytes=memory_bytes)
    if len(found) > 1:
        say(f"mesh: {len(found)} devices ({found[0].device_kind}) as {layout}")
    return Mesh(_arranged(layout.shape, found), AXES)


def choose(
    spec: str,
    devices: Sequence[Any],
    *,
    state_bytes: int | None = None,
    memory_bytes: int | None = None,
) -> Layout:
    """The shape of `make_mesh`'s mesh."""
    if spec.strip() != "auto":
        return Layout(parse_mesh(spec, len(devices)), "")
    if state_bytes is None or len(devices) == 1:
        return Layout((len(devices), 1, 1), "")
    if devices[0].platform == "cpu":
        return Layout((len(devices), 1, 1), "copies: CPU devices share their memory")
    memory = memory_bytes or device_memory(devices)
    return _automatic(devices, state_bytes, memory)


def _automatic(devices: Sequence[Any], state_bytes: int, memory: int | None) -> Layout:
    """Copies of a small state; otherwise cut within processes, or as few of them as hold it."""
    size = f"the state is {state_bytes / 2**30:.1f} GiB"
    if memory is not None and state_bytes <= SMALL * memory:
        share = f"{state_bytes / memory:.0%} of a device's {memory / 2**30:.0f}"
        return Layout((len(devices), 1, 1), f"copies: {size}, {share}")
    owners = [device.process_index for device in devices]
    counts = {owner: owners.count(owner) for owner in owners}
    local = counts[owners[0]] if len(set(counts.values())) == 1 else len(devices)
    hosts = len(devices) // local
    widths = [local * n for n in range(1, hosts + 1) if hosts % n == 0 and local * n > 1]
    limit = math.inf if memory is None else HELD * memory
    width = next((width for width in widths if state_bytes / width <= limit), widths[-1])
    what = "an unknown share" if memory is None else f"{state_bytes / memory:.0%}"
    why = f"cut {width} ways: {size}, {what} of a device's memory"
    return Layout((len(devices) // width, width, 1), why)


def device_memory(devices: Sequence[Any]) -> int | None:
    """Bytes of memory of one of these devices, in whole GiB, as this process's own tells; None: it
    does not tell. All processes must find the same, and only its own device answers a process."""
    own = (device for device in devices if device.process_index == jax.process_index())
    try:
        told = next(own, devices[0]).memory_stats()
    except (AttributeError, NotImplementedError, jax.errors.JaxRuntimeError):
        return None  # it is only described
    limit = (told or {}).get("bytes_limit")
    return None if not limit else int(limit) // 2**30 * 2**30


def parse_mesh(spec: str, count: int) -> tuple[int, int, int]:
    """The sizes of `AXES` that ``data=2,fsdp=*`` means for so many devices."""
    form = "auto, or sizes such as data=2,fsdp=4, one of which may be *"
    sizes: dict[str, int] = {}
    for part in spec.split(","):
        match = re.fullmatch(r"(\w+)=(\*|-1|[1-9]\d*)", part.strip())
        if match is None:
            raise UsageError("mesh", spec, problem=f"not understood at {part!r}", valid=form)
        if match[1] not in AXES:
            raise UsageError("mesh", spec, problem=f"without an axis {match[1]!r}", valid=AXES)
        if match[1] in sizes:
            raise UsageError("mesh", spec, problem=f"naming {match[1]} twice", valid=form)
        sizes[match[1]] = 0 if match[2] in ("*", "-1") else int(match[2])
    given = math.prod(size for size in sizes.values() if size)
    rest = [axis for axis, size in sizes.items() if not size]
    if len(rest) > 1:
        raise UsageError("mesh", spec, problem="leaving two axes open", valid=form)
    fits = count % given == 0 if rest else count == given
    if not fits:
        raise UsageError("mesh", spec, problem=f"not of {count} devices", valid=_allowed(count))
    return tuple(sizes.get(a, 1) or count // given for a in AXES)  # pyrefly: ignore[bad-return]


def _allowed(count: int) -> str:
    """What so many devices allow, for a message."""
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    sizes = ", ".join(map(str, divisors))
    return f"sizes whose product is {count} (each one of {sizes}), such as data={count}"


def _arranged(shape: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
    """The devices in this shape: neighbours along the last axes are near one another."""
    plain = np.empty(len(devices), object)
    plain[:] = list(devices)
    plain = plain.reshape(shape)
    if devices[0].platform != "tpu" or sorted(shape)[:-1] == [1] * (len(shape) - 1):
        return plain
    try:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    except (NotImplementedError, ValueError, AssertionError):
        return plain  # a shape that the wires do not favour; any order is right


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis cut over the devices that compute different samples."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(mesh: Mesh, batch_size: int) -> Int[np.ndarray, " b"]:
    """Which samples of a batch the devices of this process compute, in order."""
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    every = np.arange(batch_size)
    return np.unique(np.concatenate([every[index] for index in places.values() if index]))


def batch_parts(mesh: Mesh) -> int:
    """How many devices compute different samples."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def check_batch(batch_size: int, accumulation: int, mesh: Mesh) -> None:
    """Raises unless every piece of the batch divides over the devices."""
    parts = batch_parts(mesh)
    if batch_size % (accumulation * parts):
        raise UsageError(
            f"batch_size: {batch_size} must be a multiple of gradient_accumulation_steps "
            f"{accumulation} times the {parts} devices that share a batch, {accumulation * parts}"
        )


def check_tensor(mesh: Mesh, *, heads: int) -> None:
    """Raises unless attention heads can be shared out over ``tensor``."""
    size = mesh.shape[TENSOR]
    if heads % size:
        allowed = [n for n in range(1, heads + 1) if heads % n == 0]
        problem = f"not possible: tensor must divide the model's {heads} heads"
        raise UsageError("mesh", f"tensor={size}", problem=problem, valid=allowed)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Where each array of `state` lies: by the rules, which hold for a parameter, its averages and
    its optimiser's moments alike. `state` may be shapes."""

    def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, spec_of(name, tuple(leaf.shape), dict(mesh.shape)))

    return jax.tree_util.tree_map_with_path(of, state)


def weight_sharding(mesh: Mesh) -> Callable[[str, tuple[int, ...]], NamedSharding] | None:
    """Where each tensor of a frozen encoder lies that a process runs by itself: cut over its own
    devices. None where it has one.
    """
    own = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    if len(own) == 1:
        return None
    local = Mesh(np.asarray(own), (FSDP,))
    return lambda name, shape: NamedSharding(local, cut_longest(shape, dict(local.shape), (FSDP,)))


def frozen_shardings(frozen: Any, mesh: Mesh) -> Any:
    """Where the arrays lie that a step reads and never changes: copied, or, of `FROZEN_MINIMUM`
    bytes and more in all, cut over the devices (of a process, where there are several)."""
    leaves = jax.tree.leaves(frozen)
    total = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    axes = _within_processes(mesh) if total >= FROZEN_MINIMUM else ()
    sizes = dict(mesh.shape)
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, cut_longest(tuple(leaf.shape), sizes, axes)), frozen
    )


def _within_processes(mesh: Mesh) -> tuple[str, ...]:
    """The axes along which the devices belong to one process."""
    owner = np.vectorize(lambda device: device.process_index)(mesh.devices)
    same = [bool((owner == owner.take([0], axis)).all()) for axis in range(owner.ndim)]
    return tuple(name for name, inside in zip(mesh.axis_names, same, strict=True) if inside)
