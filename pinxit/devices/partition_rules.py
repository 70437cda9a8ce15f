"""Partition rules: an ordered table that maps parameter paths to mesh axes.

Kernels are ``(in, out)``. The kernels of the blocks have a leading depth axis, which is never
sharded because the blocks run one after the other. Over ``tensor``, maps into heads and hidden
units are sharded by their outputs, and the maps back by their inputs (Shoeybi et al. 2019,
arXiv:1909.08053), so that two maps need one exchange. Over ``fsdp``, the other axis of the matrix
is sharded, and gathered where it is used (Rajbhandari et al. 2019, arXiv:1910.02054). The
modulation acts on whole activations, so it is not sharded over ``tensor``. (If it is and the batch
is sharded over two axes, XLA's partitioner computes a different result, as of jax 0.10.2.) An array
that the table does not name, or whose axis does not divide, is sharded over ``fsdp`` along its
longest axis that divides. Small arrays are replicated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from jax.sharding import PartitionSpec

FSDP, TENSOR = "fsdp", "tensor"
BATCH = ("data", FSDP)
"""The mesh axes over which a batch is sharded."""
MINIMUM = 2**14
"""Arrays with fewer elements are not sharded over ``fsdp``."""

Axes = tuple[str | None, ...]

RULES: tuple[tuple[str, Axes], ...] = (
    (r"blocks/attention/(query|key|value|text_key|text_value)/kernel", (None, FSDP, TENSOR)),
    (r"blocks/attention/out/kernel", (None, TENSOR, FSDP)),
    (r"blocks/mlp/(gate|up)/kernel", (None, FSDP, TENSOR)),
    (r"blocks/mlp/down/kernel", (None, TENSOR, FSDP)),
    (r"blocks/modulation/a/kernel", (None, FSDP, None)),
    (r"blocks/modulation/b/kernel", (None, None, FSDP)),
    (r"blocks/modulation/(table|bias)", (None, FSDP)),
    (r"blocks/modulation/kernel", (None, FSDP, None)),
    (r"(time_in|resolution_in)/first/kernel", (FSDP, TENSOR)),
    (r"(time_in|resolution_in)/first/bias", (TENSOR,)),
    (r"(time_in|resolution_in)/second/kernel", (TENSOR, FSDP)),
    (r"(modulation|final_modulation)/kernel", (FSDP, None)),
    (r"(text_in|final_out)/kernel", (FSDP, None)),
    (r"(image_in|bottleneck_in)/kernel", (None, FSDP)),
)
"""The end of a parameter's path (all of it, or the part after a ``/``) and the mesh axis of each of
its dimensions. The first rule that matches applies. Averages and optimiser moments have the same
path ending and shape as their parameter, so they have the same sharding."""


def spec_of(path: str, shape: tuple[int, ...], mesh: Mapping[str, int]) -> PartitionSpec:
    """Returns the partition of the array at `path`, in which every sharded dimension divides.

    `mesh` maps the names of the mesh axes to their sizes.
    """
    preferred: Axes = next(
        (
            axes
            for pattern, axes in RULES
            if len(axes) == len(shape) and re.search(rf"(^|/){pattern}$", path)
        ),
        (None,) * len(shape),
    )
    large = math.prod(shape) >= MINIMUM
    chosen: list[str | None] = []
    for size, name in zip(shape, preferred, strict=True):
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
    """Shards the longest dimension that divides over all of `axes`; small arrays stay whole."""
    ways = math.prod(mesh[axis] for axis in axes)
    longest = _longest(shape, ways, list(range(len(shape))))
    if ways == 1 or longest is None or math.prod(shape) < MINIMUM:
        return PartitionSpec()
    return PartitionSpec(*(None,) * longest, axes)


def _longest(shape: tuple[int, ...], ways: int, among: list[int]) -> int | None:
    """Returns the longest of the dimensions `among` whose size divides by `ways`, or None."""
    dividing = [i for i in among if shape[i] % ways == 0]
    return max(dividing, key=lambda i: shape[i]) if dividing else None
