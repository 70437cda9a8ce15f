"""What is known of the devices while they compute: their memory, and their peak of FLOP/s."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

TERA = 1e12
PEAKS = {
    r"TPU v3": (61.6, 61.6),
    r"TPU v4": (275, 275),
    r"TPU v5 lite|TPU v5e": (197, 197),
    r"TPU v6 lite|TPU v6e": (918, 918),
    r"(Tesla|NVIDIA) V100-SXM.*": (125, 15.7),
    r"(NVIDIA )?A100.*": (312, 156),
    r"NVIDIA H100 80GB HBM3|NVIDIA H200": (989, 494),
}
"""The vendors' peak TFLOP/s of dense products, in half precision and in float32 as JAX computes it
by default, by the name that JAX gives a device. A TPU v3 core is one device. These are the figures
that `pinxit plan` computes with."""


def peak_flops(kind: str, dtype: str) -> float | None:
    """Returns the peak FLOP/s of a kind of device for `dtype`, or None if it is not known."""
    for pattern, (half, single) in PEAKS.items():
        if re.fullmatch(pattern, kind):
            return (single if dtype == "float32" else half) * TERA
    return None


def counted_kinds(kinds: Sequence[str]) -> str:
    """Returns the kinds of devices with the number of each: "8 x TPU v3"."""
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))


def memory_figures(devices: Sequence[Any]) -> dict[str, float]:
    """Returns the peak memory of the fullest device and the memory that programs may use, in GB.

    Figures that the devices do not report are left out, so there are none for CPUs.
    """
    statistics = [_statistics(device) for device in devices]
    peaks = [one["peak_bytes_in_use"] for one in statistics if "peak_bytes_in_use" in one]
    limits = [one["bytes_limit"] for one in statistics if one.get("bytes_limit")]
    figures = {"device_memory_gb": max(peaks) / 1e9} if peaks else {}
    return figures | ({"device_memory_limit_gb": min(limits) / 1e9} if limits and peaks else {})


def _statistics(device: Any) -> dict[str, Any]:
    try:
        return device.memory_stats() or {}
    except Exception:  # each backend raises its own type if it cannot tell, which costs no step
        return {}
