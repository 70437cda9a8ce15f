"""This machine's processor, and the cores that this process may use."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def usable_cores() -> int:
    """Returns the number of cores that this process may use, which a mask may restrict."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def model_and_flags(cpuinfo: str | None = None) -> tuple[str, str]:
    """Returns the name of the processor, and the words for what it can do ("fma avx2 …").

    `cpuinfo` is the text of ``/proc/cpuinfo``, which is read by default. Elsewhere than on Linux
    there are no such words.
    """
    path = Path("/proc/cpuinfo")
    text = cpuinfo if cpuinfo is not None else path.read_text() if path.exists() else ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields.items()}
    model = named.get("model name") or platform.processor() or platform.machine()
    return model, named.get("flags", "")
