"""A plan: the memory, time, data and money of a run, estimated with the machine's own compiler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pinxit import config as settings
from pinxit.devices.hardware import host_memory
from pinxit.plan.compile_cache import Compiled, OnProgress, compile_step
from pinxit.plan.data_cost import DataPlan, data_plan
from pinxit.plan.memory import Largest, Memory, largest_batch, memory_of
from pinxit.plan.step_time import StepTime, prepared_step_time, step_time
from pinxit.plan.targets import GIB, HERE, Chip, Target, get_target
from pinxit.train.datasets import PREPARED
from pinxit.train.settings import TrainConfig


@dataclass(frozen=True)
class Plan:
    """Everything that `pinxit plan` reports."""

    config: TrainConfig
    """The settings, resolved."""
    recipe: str
    target: Target
    compiled: Compiled
    memory: Memory
    time: StepTime | None
    """The step time, or None if there is no estimate or the step does not fit."""
    prepared_time: StepTime | None
    """The step time with prepared data if this plan is for a stream, else None."""
    largest: tuple[Largest, ...]
    """The largest batch of each requested rematerialisation policy."""
    data: DataPlan
    price: float | None
    """The price of one device for an hour."""

    @property
    def flops_per_image(self) -> float:
        """The FLOPs of the model and of all encoders that run while it trains; recomputation is not
        counted."""
        stream = self.compiled.result.get("stream")
        step = self.compiled.result["flops"] / self.config.batch_size
        return step + stream["flops"] / stream["images"] if stream else step

    @property
    def images_per_second(self) -> float | None:
        """The throughput at the middle of the step time's range."""
        return self.config.batch_size / self.time.middle if self.time else None

    @property
    def utilisation(self) -> float | None:
        """The model FLOPs over the peak, at the middle of the step time's range."""
        if self.time is None:
            return None
        peak = self.target.peak(self.compiled.result["dtype"]) * self.target.devices
        return self.flops_per_image * self.config.batch_size / self.time.middle / peak

    def rate(self, one: Largest) -> float | None:
        """Returns the images per second with a policy's largest batch, or None if unknown."""
        time = step_time(one.compiled.result, self.target) if one.compiled else None
        return one.batch / time.middle if time else None

    def verdict(self) -> str:
        """Says in one or two sentences whether the step fits, and what would if it does not."""
        free, limit = self.memory.free, gib(self.memory.limit)
        if self.memory.fits:
            return f"It fits, and leaves {gib(free)} of {limit} free on each device."
        advice = ""
        if fitting := [one for one in self.largest if one.batch]:
            best = max(fitting, key=lambda one: one.batch)
            advice = f" The largest batch that fits is {best.batch}, with remat {best.remat}."
        return (
            f"It does not fit: it needs {gib(-free)} more than the {limit} of each device.{advice}"
        )

    def hours(self, seconds: float) -> float:
        """Returns the hours of the whole run at `seconds` for each step."""
        return self.config.max_steps * seconds / 3600

    def cost(self, seconds: float) -> float | None:
        """Returns the cost of the whole run at `seconds` for each step, or None without a price."""
        return (
            None if self.price is None else (self.hours(seconds) * self.price * self.target.devices)
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as plain values: times in seconds, memory in bytes of one device."""
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
            "remat": self.config.model.remat,
            "scan_blocks": self.config.model.scan_blocks,
            "gradient_accumulation_steps": self.config.gradient_accumulation_steps,
            "chosen": sorted(self.compiled.result.get("chosen", {}).get("settings", {})),
            "parameters": self.compiled.result["parameters"],
            "mesh": self.compiled.result["mesh"],
            "dtype": self.compiled.result["dtype"],
            "memory": dataclasses.asdict(self.memory) | {"free": self.memory.free},
            "program": self.compiled.result.get("program"),
            "compile_seconds": self.compiled.result["compile_seconds"],
            "flops_per_image": self.flops_per_image,
            "streamed": self.config.streamed,
            "images_per_second_prepared": self.config.batch_size / self.prepared_time.middle
            if self.prepared_time
            else self.images_per_second,
            "time": time,
            "largest_batch": {
                one.remat: {
                    "batch": one.batch,
                    "peak": one.memory.peak if one.memory else None,
                    "tried": one.tried,
                }
                for one in self.largest
            },
            "data": self.data.to_json(),
            "price": self.price,
        }


def make_plan(
    config: TrainConfig,
    target: str,
    *,
    recipe: str = "",
    policies: Sequence[str] = (),
    price: float | None = None,
    on_progress: OnProgress = lambda what, seconds: None,
    only_cached: bool = False,
) -> Plan:
    """Compiles the step and returns the plan.

    `policies` are the rematerialisation policies whose largest batch is searched. Raises
    `UsageError` if the settings do not fit together, and with `only_cached`, `NotCached` if
    anything would have to be compiled.
    """
    config = config.resolved()

    def compile_one(changed: TrainConfig) -> Compiled:
        name = _name(changed)
        return compile_step(
            changed, target, what=name, on_progress=on_progress, only_cached=only_cached
        )

    compiled = compile_one(config)
    machine = _here(compiled) if target == HERE else get_target(target)
    memory = memory_of(compiled, machine)

    chosen = compiled.result.get("chosen", {}).get("settings", {})
    pieces = {k: v for k, v in chosen.items() if k == "gradient_accumulation_steps"}
    searched = settings.replace(config, pieces)  # each policy chooses how its blocks are compiled
    config = settings.replace(config, chosen)

    largest = tuple(largest_batch(searched, name, machine, compile_one) for name in policies)
    return Plan(
        config=config,
        recipe=recipe,
        target=machine,
        compiled=compiled,
        memory=memory,
        time=step_time(compiled.result, machine) if memory.fits else None,
        prepared_time=prepared_step_time(compiled.result, machine)
        if memory.fits and compiled.result.get("stream")
        else None,
        largest=largest,
        data=data_plan(
            config.batch_size * config.max_steps,
            image_size=config.image_size,
            latent=compiled.result["latent"],
            streamed=config.streamed,
            transferred=compiled.result.get("stream", {}).get("transferred", 0),
            stored_width=compiled.result["stored_width"],
        ),
        price=price,
    )


def planned(config: TrainConfig) -> TrainConfig:
    """Returns the settings of the same run on prepared data."""
    if not config.streamed:
        return config
    return dataclasses.replace(config, dataset_name=PREPARED)


def _here(compiled: Compiled) -> Target:
    """Returns this machine as a target."""
    memory = compiled.result.get("device_memory") or host_memory()
    devices = compiled.result["devices"]
    platform = compiled.result["device"].split()[0]
    chip = Chip(
        title=" ".join(dict.fromkeys(compiled.result["device"].split())),
        platform=platform if platform in ("tpu", "cpu") else "cuda",
        memory=int(memory) if platform != "cpu" else int(memory) // devices,
        # no step time is estimated here, so these are not used
        peak={"float32": 0.0},
        bandwidth=0.0,
        clock=0.0,
        link=0.0,
    )
    return Target(name=HERE, chip=chip, devices=devices, topology=HERE)


def _name(config: TrainConfig) -> str:
    """Describes the compilation for the progress line."""
    return f"batch {config.batch_size}, remat {config.model.remat}"


def gib(size: float) -> str:
    """Formats bytes as GiB."""
    return f"{size / GIB:.2f} GiB"
