"""Counts the floating-point operations of a traced function.

Only matrix products and convolutions count, in every iteration of a loop. A product of ``(m, k)``
with ``(k, n)`` counts as ``2 m k n``. Elementwise operations are left out, as is usual for model
FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any


def count(jaxpr: Any) -> float:
    """Counts the operations of a (closed) jaxpr, a loop's body once per iteration.

    A conditional counts as its costliest branch. The body of a loop of unknown length counts once.
    """
    return float(sum(count_by_dtype(jaxpr).values()))


def count_by_dtype(jaxpr: Any) -> dict[str, float]:
    """Counts the operations as `count` does, by the dtype of the factors (the wider of two)."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return _total(_of(equation) for equation in jaxpr.eqns)


def _of(equation: Any) -> dict[str, float]:
    name, params = equation.primitive.name, equation.params
    if name in ("dot_general", "conv_general_dilated"):
        factors = [factor.aval.dtype for factor in equation.invars[:2]]
        dtype = max(factors, key=lambda dtype: dtype.itemsize).name
        return {dtype: _dot(equation) if name == "dot_general" else _convolution(equation)}
    if name == "cond":
        branches = [count_by_dtype(branch) for branch in params["branches"]]
        return max(branches, key=lambda branch: sum(branch.values()))
    once = _total(count_by_dtype(inner) for inner in _inner(params))
    times = params["length"] if name == "scan" else 1
    return {dtype: times * operations for dtype, operations in once.items()}


def _total(counts: Iterable[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in counts:
        for dtype, operations in one.items():
            total[dtype] = total.get(dtype, 0.0) + operations
    return total


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Yields the jaxprs among an equation's parameters."""
    for value in params.values():
        if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
            yield value


def _dot(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    terms = math.prod(left[axis] for axis in contracted)
    return 2.0 * terms * math.prod(equation.outvars[0].aval.shape)


def _convolution(equation: Any) -> float:
    """Counts a convolution: each output sums over the kernel's window and the input channels.

    If the input is dilated, as in a gradient, the inserted zeros do not count.
    """
    params = equation.params
    kernel = equation.invars[1].aval.shape
    spec = params["dimension_numbers"].rhs_spec
    window = math.prod(kernel[axis] for axis in spec[2:]) * kernel[spec[1]]
    dilation = math.prod(params["lhs_dilation"])
    return 2.0 * window * math.prod(equation.outvars[0].aval.shape) / dilation
