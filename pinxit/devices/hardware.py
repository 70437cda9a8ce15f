"""What a device computes well: the half precision of `use_amp`, and the program for attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pinxit.models.attention_kernels import fastest, works
from pinxit.models.transformer import TransformerConfig


@dataclass(frozen=True)
class Hardware:
    """One kind of device, here or elsewhere."""

    platform: str
    """cpu, gpu or tpu."""
    kind: str = ""
    """JAX's name of it, such as "TPU v3"."""
    capability: float = 0.0
    """Compute capability of a GPU, such as 8.0."""

    @property
    def amp_dtype(self) -> str:
        """bfloat16, or float16 (with loss scaling) on GPUs older than the A100."""
        old = self.platform == "gpu" and self.capability < 8.0
        return "float16" if old else "bfloat16"

    def encoder_dtype(self, wanted: str) -> str:
        """The arithmetic of the encoders: float32 where bfloat16 is asked for and not there."""
        return wanted if wanted in ("float32", self.amp_dtype) else "float32"

    def attention(self, dtype: str) -> str:
        """The program for attention that is made for it."""
        return fastest(self.platform, self.kind, dtype, capability=self.capability)


def hardware_of(device: Any) -> Hardware:
    """Of a JAX device; a GPU that does not say its compute capability counts as a new one."""
    capability = getattr(device, "compute_capability", None) or 9.0
    gpu = device.platform in ("gpu", "cuda")
    return Hardware(
        platform="gpu" if gpu else device.platform,
        kind=device.device_kind,
        capability=float(capability) if gpu else 0.0,
    )


def tried_attention(
    config: TransformerConfig, *, tokens: int, text_tokens: int
) -> tuple[TransformerConfig, str]:
    """`config` with attention that works on the device in front of us, and what there is to say.

    A program that cannot run here, or whose numbers are off, gives way to XLA's.
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
    said = f"attention: {config.attention} does not work here, so xla computes it ({problem})"
    return replace(config, attention="xla"), said
