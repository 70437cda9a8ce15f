"""A plan: what a run of these settings takes on a machine, from the machine's compiler."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pinxit.plan.compile_cache import Compiled, compile_step
from pinxit.plan.data_cost import DataPlan, data_plan
from pinxit.plan.memory import Largest, Memory, largest_batch, memory_of
from pinxit.plan.step_time import StepTime, step_time
from pinxit.plan.targets import GIB, HERE, Chip, Target, get_target
from pinxit.train.datasets import DATASETS, PREPARED
from pinxit.train.settings import TrainConfig

Say = Callable[[str, float], None]


@dataclass(frozen=True)
class Plan:
    """Everything `pinxit plan` says."""

    config: TrainConfig
    """Resolved."""
    recipe: str
    target: Target
    found: Compiled
    memory: Memory
    time: StepTime | None
    """None where nothing gives an estimate, or where it does not fit."""
    largest: tuple[Largest, ...]
    """For each policy that was asked for."""
    data: DataPlan
    price: float | None
    """Of one device for an hour."""

    @property
    def flops_per_image(self) -> float:
        """Of the model and the encoders in its step; what is recomputed is not counted again."""
        return self.found.result["flops"] / self.config.batch_size

    @property
    def images_per_second(self) -> float | None:
        """By the middle of the step time's range."""
        return self.config.batch_size / self.time.middle if self.time else None

    @property
    def utilisation(self) -> float | None:
        """Model FLOPs over the peak, by the middle of the step time's range."""
        if self.time is None:
            return None
        peak = self.target.peak(self.found.result["dtype"]) * self.target.devices
        return self.found.result["flops"] / self.time.middle / peak

    def hours(self, seconds: float) -> float:
        """Of all the steps, at this many seconds each."""
        return self.config.max_steps * seconds / 3600

    def cost(self, seconds: float) -> float | None:
        """Of all the steps, at this many seconds each; None without a price."""
        return (
            None if self.price is None else (self.hours(seconds) * self.price * self.target.devices)
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values; times in seconds, memory in bytes of one device."""
        time = None if self.time is None else {
            **dataclasses.asdict(self.time),
            "seconds": self.time.seconds,
            "middle": self.time.middle,
            "images_per_second": self.images_per_second,
            "utilisation": self.utilisation,
            "hours": [self.hours(s) for s in (self.time.low, self.time.middle, self.time.high)],
            "cost": [self.cost(s) for s in (self.time.low, self.time.middle, self.time.high)],
        }  # fmt: skip
        return {
            "recipe": self.recipe,
            "target": dataclasses.asdict(self.target),
            "batch_size": self.config.batch_size,
            "remat": self.config.model.remat or "none",
            "parameters": self.found.result["parameters"],
            "mesh": self.found.result["mesh"],
            "dtype": self.found.result["dtype"],
            "memory": dataclasses.asdict(self.memory) | {"free": self.memory.free},
            "program": self.found.result.get("program"),
            "compile_seconds": self.found.result["compile_seconds"],
            "flops_per_image": self.flops_per_image,
            "time": time,
            "largest_batch": {
                one.remat: {
                    "batch": one.batch,
                    "peak": one.memory.peak if one.memory else None,
                    "tried": one.tried,
                }
                for one in self.largest
            },
            "data": dataclasses.asdict(self.data) | {"epochs": self.data.epochs},
            "price": self.price,
        }


def make_plan(
    config: TrainConfig,
    target: str,
    *,
    recipe: str = "",
    policies: Sequence[str] = (),
    price: float | None = None,
    said: Say = lambda what, seconds: None,
) -> Plan:
    """Compiles what is to be known. Raises `UsageError` for what does not fit together."""
    config = planned(config.resolved())
    found = compile_step(config, target, what=_name(config), said=said)
    machine = _here(found) if target == HERE else get_target(target)
    memory = memory_of(found, machine)

    def compile_one(changed: TrainConfig) -> Compiled:
        return compile_step(changed, target, what=_name(changed), said=said)

    largest = tuple(largest_batch(config, name, machine, compile_one) for name in policies)
    latents = config.model.use_stable_vae
    return Plan(
        config=config,
        recipe=recipe,
        target=machine,
        found=found,
        memory=memory,
        time=step_time(found.result, machine) if memory.fits else None,
        largest=largest,
        data=data_plan(
            config.batch_size * config.max_steps,
            image_size=config.image_size,
            latents=latents,
            stored_width=found.result["stored_width"],
        ),
        price=price,
    )


def planned(config: TrainConfig) -> TrainConfig:
    """The settings of a run on prepared data, which is what a streamed one is planned as."""
    if config.dataset_name in (*DATASETS, PREPARED):
        return config
    return dataclasses.replace(config, dataset_name=PREPARED)


def _here(found: Compiled) -> Target:
    """The machine that we are on."""
    import psutil

    memory = found.result.get("device_memory") or psutil.virtual_memory().total
    devices = found.result["devices"]
    platform = found.result["device"].split()[0]
    chip = Chip(
        title=found.result["device"],
        platform=platform if platform in ("tpu", "cpu") else "cuda",
        memory=int(memory) if platform != "cpu" else int(memory) // devices,
        # nothing is estimated from these
        peak={"float32": 0.0},
        bandwidth=0.0,
        clock=0.0,
        link=0.0,
    )
    return Target(name=HERE, chip=chip, devices=devices, topology=HERE)


def _name(config: TrainConfig) -> str:
    """What is being compiled, for the progress line."""
    return f"batch {config.batch_size}, remat {config.model.remat or 'none'}"


def gib(size: float) -> str:
    """Bytes in words."""
    return f"{size / GIB:.2f} GiB"
