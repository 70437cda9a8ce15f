"""Chooses what suits a device: the half precision of `use_amp` and the attention kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import psutil

from pinxit.config import UsageError, choice
from pinxit.models.attention_kernels import fastest, works
from pinxit.models.transformer import TransformerConfig


@dataclass(frozen=True)
class Hardware:
    """One kind of device, whether present or not."""

    platform: str
    """The JAX platform: cpu, gpu or tpu."""
    kind: str = ""
    """The name that JAX gives it, such as "TPU v3"."""
    capability: float = 0.0
    """Compute capability of a GPU, such as 8.0."""

    @property
    def amp_dtype(self) -> str:
        """The half precision: bfloat16, or float16 (with loss scaling) on GPUs before the A100."""
        old = self.platform == "gpu" and self.capability < 8.0
        return "float16" if old else "bfloat16"

    def encoder_dtype(self, requested: str) -> str:
        """Returns the encoders' dtype: float32 if bfloat16 is requested but not available."""
        return requested if requested in ("float32", self.amp_dtype) else "float32"

    def attention(self, dtype: str) -> str:
        """Returns the fastest attention kernel for this device."""
        return fastest(self.platform, self.kind, dtype, capability=self.capability)


def check_encoder_dtype(dtype: str) -> None:
    """Raises unless this host's device can compute the frozen encoders in `dtype`."""
    choice("encoder_dtype", dtype, ("float32", "bfloat16"))
    if dtype == "float32":
        return
    device = jax.local_devices()[0]
    if hardware_of(device).encoder_dtype(dtype) != dtype:
        problem = f"not supported on a {device.device_kind}"
        raise UsageError("encoder_dtype", dtype, problem=problem, valid="float32")


def capability_of(version: Any) -> float:
    """Returns the compute capability of an NVIDIA GPU; 9 for other devices (AMD's say gfx90a)."""
    try:
        return float(version or 9)
    except (TypeError, ValueError):
        return 9.0


def hardware_of(device: Any) -> Hardware:
    """Describes a JAX device. A GPU without a stated compute capability counts as 9.0."""
    capability = capability_of(getattr(device, "compute_capability", None))
    gpu = device.platform in ("gpu", "cuda")
    return Hardware(
        platform="gpu" if gpu else device.platform,
        kind=device.device_kind,
        capability=capability if gpu else 0.0,
    )


def cgroup_number(name: str) -> int | None:
    """Reads a limit of the container, or returns None if there is none."""
    try:
        text = Path("/sys/fs/cgroup", name).read_text().split()[0]
    except (OSError, IndexError):
        return None
    return int(text) if text.isdigit() else None


def host_memory() -> int:
    """Returns the bytes of memory that this process may use, within a container's limit."""
    total = int(psutil.virtual_memory().total)
    return min(total, cgroup_number("memory.max") or total)


def tried_attention(
    config: TransformerConfig, *, tokens: int, text_tokens: int
) -> tuple[TransformerConfig, str]:
    """Tests the attention kernel of `config` on this device.

    Returns the config and an empty message if it works. If it cannot run here or its results are
    wrong, returns the config with XLA's attention and a message.
    """
    if config.attention == "xla":
        return config, ""
    problem = works(
        config.attention,
        heads=config.num_heads,
        head_dim=config.head_dim,
        queries=tokens,
        keys=tokens + text_tokens,
        dtype=config.dtype,
    )
    if not problem:
        return config, ""
    message = (
        f"attention: {config.attention} does not work on this device, so xla is used ({problem})"
    )
    return replace(config, attention="xla"), message
