"""Arranges devices in a mesh, which determines where samples are computed and parameters stored.

::

    data      replicas of the model, each of which computes its own samples
    fsdp      devices that share one copy of the state and compute their own samples
    tensor    devices that share one copy of the state and compute parts of the same samples

A batch is sharded over ``data`` and ``fsdp``. The arrays of the state are sharded over ``fsdp`` and
``tensor`` by `pinxit.devices.partition_rules`, and replicated over ``data``. The step needs no code
for this: XLA reads the shardings of its arrays and inserts the communication.

A mesh is written ``data=2,fsdp=4``. Axes that are not named have size 1, and one axis may be ``*``,
which stands for the remaining devices. ``auto`` replicates a state that takes a small share of a
device's memory. It shards a larger state over the devices of each process, or of as few processes
as hold it.
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
"""Names of the mesh axes, in order."""
SMALL = 0.25
"""A state that takes at most this share of a device's memory is replicated."""
HELD = 0.5
"""A sharded state takes at most this share of each device's memory, if there are enough devices."""
FROZEN_MINIMUM = 2**30
"""Frozen weights of fewer bytes are replicated on every device that runs them in the step."""


@dataclass(frozen=True)
class Layout:
    """A mesh's shape and the reason for it."""

    shape: tuple[int, int, int]
    """Number of devices along ``data``, ``fsdp`` and ``tensor``."""
    why: str
    """The reason for the log; empty if the user chose the shape."""

    def __str__(self) -> str:
        named = zip(AXES, self.shape, strict=True)
        shape = ",".join(f"{name}={size}" for name, size in named if size > 1) or "one device"
        return f"{shape} ({self.why})" if self.why else shape


def make_mesh(
    spec: str = "auto",
    devices: Sequence[Any] | None = None,
    *,
    state_bytes: int | None = None,
    memory_bytes: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Mesh:
    """Makes the mesh `spec` of `devices`, by default all, and passes a description to `say`.

    `state_bytes` is the size of the whole state and `memory_bytes` the size of one device's memory,
    by default as the device reports it. ``auto`` needs both. The devices need not be present
    (`jax.experimental.topologies`). Raises `UsageError` if the devices cannot form the mesh.
    """
    all_devices = list(jax.devices() if devices is None else devices)
    layout = choose(spec, all_devices, state_bytes=state_bytes, memory_bytes=memory_bytes)
    if len(all_devices) > 1:
        say(f"mesh: {len(all_devices)} devices ({all_devices[0].device_kind}) as {layout}")
    return Mesh(_arranged(layout.shape, all_devices), AXES)


def choose(
    spec: str,
    devices: Sequence[Any],
    *,
    state_bytes: int | None = None,
    memory_bytes: int | None = None,
) -> Layout:
    """Chooses the shape of the mesh that `make_mesh` makes."""
    if spec.strip() != "auto":
        return Layout(parse_mesh(spec, len(devices)), "")
    if state_bytes is None or len(devices) == 1:
        return Layout((len(devices), 1, 1), "")
    if devices[0].platform == "cpu":
        return Layout((len(devices), 1, 1), "replicated: CPU devices share their memory")
    memory = memory_bytes or device_memory(devices)
    return _automatic(devices, state_bytes, memory)


def _automatic(devices: Sequence[Any], state_bytes: int, memory: int | None) -> Layout:
    """Replicates a small state, and shards a larger one within as few processes as hold it."""
    size = f"the state is {state_bytes / 2**30:.1f} GiB"
    if memory is not None and state_bytes <= SMALL * memory:
        share = f"{state_bytes / memory:.0%} of a device's {memory / 2**30:.0f} GiB"
        return Layout((len(devices), 1, 1), f"replicated: {size}, {share}")
    owners = [device.process_index for device in devices]
    counts = {owner: owners.count(owner) for owner in owners}
    local = counts[owners[0]] if len(set(counts.values())) == 1 else len(devices)
    hosts = len(devices) // local
    widths = [local * n for n in range(1, hosts + 1) if hosts % n == 0 and local * n > 1]
    limit = math.inf if memory is None else HELD * memory
    width = next((width for width in widths if state_bytes / width <= limit), widths[-1])
    part = "an unknown share" if memory is None else f"{state_bytes / memory:.0%}"
    why = f"sharded {width} ways: {size}, {part} of a device's memory"
    return Layout((len(devices) // width, width, 1), why)


def device_memory(devices: Sequence[Any]) -> int | None:
    """Returns one device's memory in bytes, rounded down to whole GiB, or None if it is unknown.

    A process can only query its own devices. Rounding makes all processes find the same number.
    """
    own = (device for device in devices if device.process_index == jax.process_index())
    try:
        statistics = next(own, devices[0]).memory_stats()
    except (AttributeError, NotImplementedError, jax.errors.JaxRuntimeError):
        return None  # the device is not present
    limit = (statistics or {}).get("bytes_limit")
    return None if not limit else int(limit) // 2**30 * 2**30


def parse_mesh(spec: str, count: int) -> tuple[int, int, int]:
    """Parses a mesh such as ``data=2,fsdp=*`` for `count` devices into the sizes of `AXES`."""
    form = "auto, or sizes such as data=2,fsdp=4, one of which may be *"
    sizes: dict[str, int] = {}
    for part in spec.split(","):
        match = re.fullmatch(r"(\w+)=(\*|-1|[1-9]\d*)", part.strip())
        if match is None:
            raise UsageError("mesh", spec, problem=f"not understood at {part!r}", valid=form)
        if match[1] not in AXES:
            raise UsageError(
                "mesh", spec, problem=f"naming an unknown axis {match[1]!r}", valid=AXES
            )
        if match[1] in sizes:
            raise UsageError("mesh", spec, problem=f"naming {match[1]} twice", valid=form)
        sizes[match[1]] = 0 if match[2] in ("*", "-1") else int(match[2])
    product = math.prod(size for size in sizes.values() if size)
    open_axes = [axis for axis, size in sizes.items() if not size]
    if len(open_axes) > 1:
        raise UsageError("mesh", spec, problem="using * for two axes", valid=form)
    fits = count % product == 0 if open_axes else count == product
    if not fits:
        raise UsageError(
            "mesh", spec, problem=f"not a mesh of {count} devices", valid=_allowed(count)
        )
    return tuple(sizes.get(a, 1) or count // product for a in AXES)  # pyrefly: ignore[bad-return]


def _allowed(count: int) -> str:
    """Describes the meshes of `count` devices for an error message."""
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    sizes = ", ".join(map(str, divisors))
    return f"sizes whose product is {count} (each one of {sizes}), such as data={count}"


def _arranged(shape: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
    """Arranges the devices so that neighbours along the last axes are close to each other."""
    plain = np.empty(len(devices), object)
    plain[:] = list(devices)
    plain = plain.reshape(shape)
    if devices[0].platform != "tpu" or sorted(shape)[:-1] == [1] * (len(shape) - 1):
        return plain
    try:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    except (NotImplementedError, ValueError, AssertionError):
        return plain  # no good layout for this shape is known, and any order works


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the leading axis over devices that compute different samples."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array with a copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(mesh: Mesh, batch_size: int) -> Int[np.ndarray, " b"]:
    """Returns the indices of the samples that this process's devices compute, in order."""
    indices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    rows = np.arange(batch_size)
    return np.unique(np.concatenate([rows[index] for index in indices.values() if index]))


def check_own_rows(mesh: Mesh, batch_size: int, *, data: str) -> None:
    """Raises `UsageError` if two processes compute the same samples, which `data` does not allow,
    since each process has samples of its own."""
    rows = dict[int, set[int]]()
    for device, index in batch_sharding(mesh).devices_indices_map((batch_size,)).items():
        rows.setdefault(device.process_index, set()).update(range(batch_size)[index[0]])
    if sum(map(len, rows.values())) != batch_size:
        shape = ",".join(f"{name}={size}" for name, size in mesh.shape.items())
        problem = f"not possible with {data}: several processes compute the same samples"
        valid = f"a mesh whose axis {TENSOR} lies within each process, or a prepared dataset"
        raise UsageError("mesh", shape, problem=problem, valid=valid)


def process_count(mesh: Mesh) -> int:
    """Returns the number of processes whose devices the mesh has. The devices need not be
    present."""
    return len({device.process_index for device in mesh.devices.flat})


def local_mesh() -> Mesh:
    """Returns the mesh of this process's devices, which compute different samples."""
    return Mesh(np.array(jax.local_devices()).reshape(-1, 1, 1), AXES)


def batch_parts(mesh: Mesh) -> int:
    """Returns the number of parts that a batch is sharded into."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def check_batch(batch_size: int, accumulation: int, mesh: Mesh) -> None:
    """Raises `UsageError` unless the batch of each accumulation step divides over the devices."""
    parts = batch_parts(mesh)
    if batch_size % (accumulation * parts):
        raise UsageError(
            f"batch_size: {batch_size} must be a multiple of gradient_accumulation_steps "
            f"{accumulation} times the {parts} devices that share a batch, {accumulation * parts}"
        )


def check_tensor(mesh: Mesh, *, heads: int) -> None:
    """Raises `UsageError` unless the attention heads divide over ``tensor``."""
    size = mesh.shape[TENSOR]
    if heads % size:
        allowed = [n for n in range(1, heads + 1) if heads % n == 0]
        problem = f"not possible: tensor must divide the model's {heads} heads"
        raise UsageError("mesh", f"tensor={size}", problem=problem, valid=allowed)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Returns the sharding of each array of `state`, whose leaves may be shapes.

    A parameter, its averages and its optimiser moments have the same sharding.
    """

    def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, spec_of(name, tuple(leaf.shape), dict(mesh.shape)))

    return jax.tree_util.tree_map_with_path(of, state)


def weight_sharding(mesh: Mesh) -> Callable[[str, tuple[int, ...]], NamedSharding] | None:
    """Returns the sharding of the weights of a frozen encoder that a process runs by itself.

    It is a function of a tensor's name and shape that shards over the process's own devices, or
    None if the process has one device.
    """
    own = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    if len(own) == 1:
        return None
    local = Mesh(np.asarray(own), (FSDP,))
    return lambda name, shape: NamedSharding(local, cut_longest(shape, dict(local.shape), (FSDP,)))


def frozen_shardings(frozen: Any, mesh: Mesh) -> Any:
    """Returns the shardings of the arrays that a step reads and never changes.

    They are replicated if they have fewer than `FROZEN_MINIMUM` bytes in all. Otherwise they are
    sharded over the devices of each process.
    """
    leaves = jax.tree.leaves(frozen)
    total = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    axes = _within_processes(mesh) if total >= FROZEN_MINIMUM else ()
    sizes = dict(mesh.shape)
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, cut_longest(tuple(leaf.shape), sizes, axes)), frozen
    )


def _within_processes(mesh: Mesh) -> tuple[str, ...]:
    """Returns the mesh axes along which all devices belong to one process."""
    owner = np.vectorize(lambda device: device.process_index)(mesh.devices)
    same = [bool((owner == owner.take([0], axis)).all()) for axis in range(owner.ndim)]
    return tuple(name for name, inside in zip(mesh.axis_names, same, strict=True) if inside)
