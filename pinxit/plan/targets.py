"""Machines to plan for, by name: their compiler's target and the performance of their hardware.

=================== ===========================================================================
``tpu-v3-8``        four chips, eight cores of 16 GB; also pod slices, ``tpu-v3-32`` to ``-2048``
``tpu-v4-8``        like v3, N counts cores and a chip of two cores is one device of 32 GB
``v5e-8, v6e-8``    N counts chips, 1 to 256
``a100-40``         one card; also a100-80, v100-16, v100-32, h100, h200
``8xa100-80``       eight of them in one machine
``here``            the devices of this machine
=================== ===========================================================================

The figures are the vendors': peak FLOP/s of dense matrix products, memory and link bandwidth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from pinxit.config import UsageError

GIB = 2**30
GPU_RESERVE = GIB
"""Bytes of a GPU's memory that the step cannot use: CUDA's context, libraries and fragmentation.
An estimate, about twice the size of a context alone."""


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One device as JAX counts devices, such as a TPU v3 core or a whole GPU."""

    title: str
    platform: Literal["tpu", "cuda", "cpu"]
    memory: int
    """Bytes that a program can use. On a TPU, the compiler's own figure takes precedence."""
    peak: dict[str, float]
    """Peak FLOP/s by dtype; float32 products as JAX computes them by default."""
    bandwidth: float
    """Bytes per second between memory and cores."""
    clock: float
    """Cycles per second; 0 if unknown."""
    link: float
    """Bytes per second that a device sends over all its links within a machine or slice."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A machine to plan for."""

    name: str
    """The name that selects it, as `pinxit plan --target` takes it."""
    chip: Chip
    devices: int
    topology: str
    """The topology in the vendor's notation, such as ``v3:2x2``, or a key of `CARDS`."""

    @property
    def platform(self) -> str:
        """The platform to compile for: tpu, cuda, or here."""
        return "here" if self.name == "here" else self.chip.platform

    def peak(self, dtype: str) -> float:
        """Returns the peak FLOP/s of one device for `dtype`."""
        return self.chip.peak.get(dtype, self.chip.peak["float32"])


def _tpu(title: str, *, memory: float, tflops: float, gbps: float, ghz: float, link: float) -> Chip:
    peak = {"bfloat16": tflops * 1e12, "float16": tflops * 1e12, "float32": tflops * 1e12}
    return Chip(
        title=title,
        platform="tpu",
        memory=int(memory * GIB),
        peak=peak,
        bandwidth=gbps * 1e9,
        clock=ghz * 1e9,
        link=link * 1e9,
    )


TPUS = {
    "v3": _tpu("TPU v3 core", memory=15.48, tflops=61.6, gbps=450, ghz=0.94, link=140),
    "v4": _tpu("TPU v4 chip", memory=31.25, tflops=275, gbps=1228, ghz=1.05, link=300),
    "v5e": _tpu("TPU v5e chip", memory=15.75, tflops=197, gbps=819, ghz=1.5, link=200),
    "v6e": _tpu("TPU v6e chip", memory=31.25, tflops=918, gbps=1640, ghz=1.75, link=448),
}
"""TPU generations. They compute float32 products in bfloat16 passes, one by default."""

SLICES = {
    "v3": {8: "2x2", 32: "4x4", 64: "4x8", 128: "8x8", 256: "8x16", 512: "16x16",
           1024: "16x32", 2048: "32x32"},
    "v4": {8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4", 256: "4x4x8",
           512: "4x8x8", 1024: "8x8x8", 2048: "8x8x16"},
    "v5e": {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16",
            256: "16x16"},
    "v6e": {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16",
            256: "16x16"},
}  # fmt: skip
"""Shapes of slices in chips, by the number in their name: cores (v3, v4) or chips (v5e, v6e)."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """The description of a GPU that XLA's compiler needs."""

    title: str
    capability: tuple[int, int]
    cores: int
    """Number of streaming multiprocessors."""
    fpus: int
    """Floating-point units of one multiprocessor."""
    shared: int
    """Bytes of shared memory of one multiprocessor."""
    shared_block: int
    """Bytes of shared memory that one block may request."""
    l2: int
    ghz: float
    memory: int
    gbps: float
    half_tflops: float
    """Peak TFLOP/s of dense matrix products in its fast half precision."""
    float32_tflops: float
    """Peak TFLOP/s of float32 products as JAX computes them by default: in TF32 if available."""
    link: float
    """GB/s that the GPU sends over NVLink."""
    accelerated: bool = False
    """Whether code is generated for exactly this compute capability (sm_90a)."""

    def proto(self) -> str:
        """Returns the text form of XLA's GpuTargetConfigProto."""
        major, minor = self.capability
        feature = "ACCELERATED_FEATURES" if self.accelerated else "NONE"
        info: dict[str, Any] = {
            "threads_per_block_limit": 1024,
            "threads_per_warp": 32,
            "shared_memory_per_block": 49152,
            "shared_memory_per_core": self.shared,
            "shared_memory_per_block_optin": self.shared_block,
            "threads_per_core_limit": 2048,
            "core_count": self.cores,
            "fpus_per_core": self.fpus,
            "block_dim_limit_x": 2**31 - 1,
            "block_dim_limit_y": 65535,
            "block_dim_limit_z": 65535,
            "thread_dim_limit_x": 1024,
            "thread_dim_limit_y": 1024,
            "thread_dim_limit_z": 64,
            "memory_bandwidth": int(self.gbps * 1e9),
            "l2_cache_size": self.l2,
            "clock_rate_ghz": self.ghz,
            "device_memory_size": self.memory,
            "registers_per_core_limit": 65536,
            "registers_per_block_limit": 65536,
            "device_address_bits": 64,
        }
        lines = [f"  {name}: {value}" for name, value in info.items()]
        lines += [
            f"  cuda_compute_capability {{ major: {major} minor: {minor} "
            f"feature_extension: {feature} }}",
            '  device_vendor: "NVIDIA Corporation"',
            f'  name: "{self.title}"',
        ]
        return "\n".join(
            [
                "gpu_device_info {",
                *lines,
                "}",
                'platform_name: "CUDA"',
                "dnn_version_info { major: 9 minor: 10 patch: 0 }",
                f'device_description_str: "{self.title}"',
            ]
        )

    def chip(self) -> Chip:
        """Returns the figures that the planner computes with."""
        half = self.half_tflops * 1e12
        return Chip(
            title=self.title,
            platform="cuda",
            memory=self.memory - GPU_RESERVE,
            peak={"bfloat16": half, "float16": half, "float32": self.float32_tflops * 1e12},
            bandwidth=self.gbps * 1e9,
            clock=self.ghz * 1e9,
            link=self.link * 1e9,
        )


_V100 = Card(
    title="Tesla V100-SXM2-16GB", capability=(7, 0), cores=80, fpus=64, shared=98304,
    shared_block=98304, l2=6 * 2**20, ghz=1.53, memory=16_935_682_048, gbps=898,
    half_tflops=125, float32_tflops=15.7, link=150,
)  # fmt: skip
_A100 = Card(
    title="NVIDIA A100-SXM4-40GB", capability=(8, 0), cores=108, fpus=64, shared=167936,
    shared_block=166912, l2=40 * 2**20, ghz=1.41, memory=42_298_834_944, gbps=1555,
    half_tflops=312, float32_tflops=156, link=300,
)  # fmt: skip
_H100 = Card(
    title="NVIDIA H100 80GB HBM3", capability=(9, 0), cores=132, fpus=128, shared=233472,
    shared_block=232448, l2=50 * 2**20, ghz=1.98, memory=84_942_979_072, gbps=3352,
    half_tflops=989, float32_tflops=494, link=450, accelerated=True,
)  # fmt: skip

CARDS = {
    "v100-16": _V100,
    "v100-32": replace(_V100, title="Tesla V100-SXM2-32GB", memory=34_079_899_648),
    "a100-40": _A100,
    "a100-80": replace(_A100, title="NVIDIA A100-SXM4-80GB", memory=84_986_691_584, gbps=2039),
    "h100": _H100,
    "h200": replace(_H100, title="NVIDIA H200", memory=151_397_597_184, gbps=4800),
}
"""The GPUs that can be planned for, by name."""

HERE = "here"
EXAMPLES = ("tpu-v3-8", "tpu-v4-32", "v5e-8", "v6e-256", *CARDS, "8xa100-80", HERE)
"""Example names for error messages."""


def get_target(name: str) -> Target:
    """Returns the machine called `name`, which must not be `here`: that depends on the devices."""
    word = name.lower()
    if match := re.fullmatch(r"(?:tpu-)?(v3|v4|v5e|v5litepod|v6e)-(\d+)", word):
        kind = "v5e" if match[1] == "v5litepod" else match[1]
        return _slice(name, kind, int(match[2]))
    if match := re.fullmatch(r"(?:(\d+)x)?([a-z]\d+(?:-\d+)?)", word):
        count, card = int(match[1] or 1), match[2]
        if card in CARDS and 1 <= count <= 8:
            return Target(name=word, chip=CARDS[card].chip(), devices=count, topology=card)
        if card in CARDS:
            valid = f"1x{card} to 8x{card}"
            raise UsageError("target", name, problem="not one machine", valid=valid)
    raise UsageError("target", name, valid=EXAMPLES)


def _slice(name: str, kind: str, number: int) -> Target:
    shapes = SLICES[kind]
    if number not in shapes:
        valid = [f"tpu-{kind}-{n}" for n in shapes]
        raise UsageError("target", name, problem="not the size of a TPU slice", valid=valid)
    devices = number // 2 if kind == "v4" else number
    return Target(
        name=f"tpu-{kind}-{number}",
        chip=TPUS[kind],
        devices=devices,
        topology=f"{kind}:{shapes[number]}",
    )
