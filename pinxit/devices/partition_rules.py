"""Which axis of which array is cut over which axis of the mesh: an ordered table of paths.

Kernels are ``(in, out)``; those of the blocks have the depth in front, which is never cut, because
the blocks run one after the other. Over ``tensor``, maps into heads and hidden units are cut by
their outputs and the maps back by their inputs (Shoeybi et al. 2019, arXiv:1909.08053), so that two
maps need one exchange; over ``fsdp`` the other axis of the matrix is cut, which is gathered where
it is used (Rajbhandari et al. 2019, arXiv:1910.02054). The modulation meets activations that are
whole, so it is not cut over ``tensor`` (with that, and a batch cut over two axes, XLA's partitioner
computed another result, jax 0.10.2). What the table does not name, or what does
not divide, is cut along its longest axis that does; small arrays are copied.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from jax.sharding import PartitionSpec

FSDP, TENSOR = "fsdp", "tensor"
BATCH = ("data", FSDP)
"""The axes of the mesh over which a batch is cut."""
MINIMUM = 2**14
"""Arrays with fewer elements are not cut over ``fsdp``."""

Axes = tuple[str | None, ...]

RULES: tuple[tuple[str, Axes], ...] = (
    (r"blocks/attention/(query|key|value|text_key|text_value)/kernel", (None, FSDP, TENSOR)),
    (r"blocks/attention/out/kernel", (None, TENSOR, FSDP)),
    (r"blocks/mlp/(gate|up)/kernel", (None, FSDP, TENSOR)),
    (r"blocks/mlp/down/kernel", (None, TENSOR, FSDP)),
    (r"blocks/modulation/a/kernel", (None, FSDP, None)),
    (r"blocks/modulation/b/kernel", (None, None, FSDP)),
    (r"blocks/modulation/table", (None, FSDP)),
    (r"(time_in|resolution_in)/first/kernel", (FSDP, TENSOR)),
    (r"(time_in|resolution_in)/first/bias", (TENSOR,)),
    (r"(time_in|resolution_in)/second/kernel", (TENSOR, FSDP)),
    (r"(modulation|final_modulation)/kernel", (FSDP, None)),
    (r"(text_in|final_out)/kernel", (FSDP, None)),
    (r"(image_in|bottleneck_in)/kernel", (None, FSDP)),
)
"""Path of a parameter, from its beginning or from a ``/`` to its end, and the mesh axis of each of
its dimensions. The first rule that fits is used. Averages and moments are at paths that end alike,
with the same shape, so they lie as their parameter does."""


def spec_of(path: str, shape: tuple[int, ...], mesh: Mapping[str, int]) -> PartitionSpec:
    """How the array at `path` is cut; `mesh` are the sizes of the axes. Every cut divides."""
    wanted: Axes = next(
        (
            axes
            for pattern, axes in RULES
            if len(axes) == len(shape) and re.search(rf"(^|/){pattern}$", path)
        ),
        (None,) * len(shape),
    )
    large = math.prod(shape) >= MINIMUM
    chosen: list[str | None] = []
    for size, name in zip(shape, wanted, strict=True):
        ways = mesh.get(name, 1) if name else 1
        fits = ways > 1 and size % ways == 0 and (large or name != FSDP)
        chosen.append(name if fits else None)
    if mesh.get(FSDP, 1) > 1 and large and FSDP not in chosen:
        longest = _longest(shape, mesh[FSDP], [i for i, name in enumerate(chosen) if not name])
        if longest is not None:
            chosen[longest] = FSDP
    while chosen and chosen[-1] is None:
        chosen.pop()
    return PartitionSpec(*chosen)


def cut_longest(
    shape: tuple[int, ...], mesh: Mapping[str, int], axes: tuple[str, ...]
) -> PartitionSpec:
    """The longest dimension that divides over all these axes is; small arrays are not."""
    ways = math.prod(mesh[axis] for axis in axes)
    longest = _longest(shape, ways, list(range(len(shape))))
    if ways == 1 or longest is None or math.prod(shape) < MINIMUM:
        return PartitionSpec()
    return PartitionSpec(*(None,) * longest, axes)


def _longest(shape: tuple[int, ...], ways: int, among: list[int]) -> int | None:
    """The longest of these dimensions that divides."""
    dividing = [i for i in among if shape[i] % ways == 0]
    return max(dividing, key=lambda i: shape[i]) if dividing else None
