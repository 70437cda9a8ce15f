"""Chooses the settings that trade speed for memory, where they are ``auto``, for a run's devices.

They are ``model.remat``, ``model.scan_blocks`` and ``gradient_accumulation_steps`` (0). None of
them changes what is learned, so a resumed run may choose again, on other devices. The choice is the
fastest candidate whose estimated memory (`pinxit.train.step_memory`) fits. A batch in pieces costs
almost nothing as long as a piece keeps a device busy, so more pieces come before recomputation.
CPUs, whose memory is the host's, and the small presets keep the preset's values, except that a CPU
unrolls blocks too (`unrolled_on_cpu`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pinxit import config as configuration
from pinxit.devices.mesh import batch_parts, device_memory
from pinxit.encoders.abstract_autoencoder import abstract_autoencoder
from pinxit.encoders.text_encoder_catalogue import abstract_text_encoder
from pinxit.models.transformer import preset
from pinxit.train.build import Parts, assemble, build_mesh, encoder_dtype
from pinxit.train.model_settings import POLICIES, SMALL_PRESETS, unrolled_on_cpu
from pinxit.train.settings import AUTO, TrainConfig
from pinxit.train.step_memory import MARGIN, StepEstimate, step_estimate

BUSY = 4096
"""Number of tokens in a piece of a batch that keeps a device busy."""
GIB = 2**30


@dataclass(frozen=True)
class Choice:
    """The settings that were chosen for a run, and why."""

    settings: dict[str, Any]
    """The chosen settings by dotted name; empty if the run leaves nothing to choose."""
    needs: int | None = None
    """The estimated memory of the step on each device, in bytes, or None if it was not needed."""
    limit: int | None = None
    """The memory of each device, in bytes."""
    fits: bool = True
    """Whether the estimate fits."""
    line: str = ""
    """The choice in words, for the log; empty if the run keeps the preset's values."""

    def to_json(self) -> dict[str, Any]:
        """Returns what a run records of its choice."""
        return {"settings": self.settings, "needs_bytes": self.needs, "limit_bytes": self.limit}


def open_settings(config: TrainConfig) -> tuple[str, ...]:
    """Returns the names of the settings that are to be chosen."""
    values = {
        "model.remat": config.model.remat == AUTO,
        "model.scan_blocks": config.model.scan_blocks == AUTO,
        "gradient_accumulation_steps": config.gradient_accumulation_steps == 0,
    }
    return tuple(name for name, is_open in values.items() if is_open)


def choose_settings(config: TrainConfig, parts: Parts, *, memory: int | None) -> Choice:
    """Returns the choice for resolved settings on devices that have `memory` bytes each.

    `memory` is None if it is unknown, as on CPUs; the preset's values are chosen then. If no
    candidate fits by the estimate, the one that needs the least is chosen.
    """
    names = open_settings(config)
    if not names:
        return Choice({})
    if memory is None or config.model.preset in SMALL_PRESETS:
        own = preset(config.model.preset)
        values: dict[str, Any] = {
            "model.remat": own.remat,
            "model.scan_blocks": own.scan_blocks and not _unrolled_here(config, parts),
            "gradient_accumulation_steps": 1,
        }
        return Choice({name: values[name] for name in names})
    memory = memory // GIB * GIB if memory >= GIB else memory  # as `device_memory` rounds it
    estimate = step_estimate(config, parts)
    tried: list[tuple[int, dict[str, Any]]] = []
    for settings in setting_candidates(config, parts):
        needs = needs_with(settings, config, estimate)
        tried.append((needs, settings))
        if needs <= (1 - MARGIN) * memory:
            return _explained(settings, needs, memory, parts, tried[0])
    needs, settings = min(tried, key=lambda one: one[0])
    return _explained(settings, needs, memory, parts, tried[0], fits=False)


def _unrolled_here(config: TrainConfig, parts: Parts) -> bool:
    """Returns whether the run is on CPUs, and its blocks are unrolled there."""
    on_cpu = parts.mesh.devices.flat[0].platform == "cpu"
    preset, remat = config.model.preset, config.model.remat
    tokens = parts.grid.tokens(config.image_size)
    return on_cpu and unrolled_on_cpu(preset, parts.model.dtype, remat, tokens)


def setting_candidates(config: TrainConfig, parts: Parts) -> Iterator[dict[str, Any]]:
    """Yields the values of the open settings, the fastest first.

    Blocks are unrolled where nothing is recomputed or everything but matrix products, and looped
    otherwise: a loop compiles in a fraction of the time, and stacks activations.
    """
    names, counts = open_settings(config), _piece_counts(config, parts)
    policies = POLICIES if "model.remat" in names else (config.model.remat,)
    unrolls = not preset(config.model.preset).scan_blocks
    order = [
        (policy, count) for policy in policies for count in counts if _busy(config, parts, count)
    ]
    order += [(policies[-1], count) for count in counts if not _busy(config, parts, count)]
    for policy, count in order:
        values = {
            "model.remat": policy,
            "model.scan_blocks": not unrolls and policy not in ("none", "dots"),
            "gradient_accumulation_steps": count,
        }
        yield {name: values[name] for name in names}


def _piece_counts(config: TrainConfig, parts: Parts) -> list[int]:
    """Returns the numbers of pieces to try: powers of two that divide the batch on the devices."""
    if config.gradient_accumulation_steps:
        return [config.gradient_accumulation_steps]
    counts = [1]
    while config.batch_size % (2 * counts[-1] * batch_parts(parts.mesh)) == 0:
        counts.append(2 * counts[-1])
    chunk = config.encoder_chunk
    return [n for n in counts if not chunk or config.batch_size // n % chunk == 0] or counts[:1]


def _busy(config: TrainConfig, parts: Parts, count: int) -> bool:
    """Returns whether each piece of a batch in `count` pieces keeps a device busy."""
    rows = config.batch_size // (count * batch_parts(parts.mesh))
    return count == 1 or rows * parts.grid.tokens(config.image_size) >= BUSY


def needs_with(settings: dict[str, Any], config: TrainConfig, estimate: StepEstimate) -> int:
    """Returns the estimated bytes of the step on each device with some settings changed."""
    changed = configuration.replace(config, settings)
    return estimate.total(changed, with_model_of(changed, estimate.parts).model)


def with_model_of(config: TrainConfig, parts: Parts) -> Parts:
    """Returns the parts with the settings' remat and scan_blocks, if these are chosen."""
    model = config.model
    changes: dict[str, Any] = {"remat": model.remat, "scan_blocks": model.scan_blocks}
    changes = {name: value for name, value in changes.items() if value != AUTO}
    return dataclasses.replace(parts, model=dataclasses.replace(parts.model, **changes))


def settled(
    config: TrainConfig,
    parts: Parts,
    *,
    memory: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[TrainConfig, Parts, Choice]:
    """Returns the settings and parts with the open settings chosen, and says the choice.

    All processes choose alike, because the choice depends only on the settings, the mesh, and the
    memory in whole GiB.
    """
    memory = memory or device_memory(list(parts.mesh.devices.flat))
    choice = choose_settings(config, parts, memory=memory)
    if choice.line:
        say(choice.line)
    chosen = configuration.replace(config, choice.settings) if choice.settings else config
    return chosen, with_model_of(chosen, parts), choice


def abstract_parts(
    config: TrainConfig, devices: Any = None, *, memory_bytes: int | None = None
) -> Parts:
    """Returns the parts of a run with shapes for the encoders' parameters. Nothing is loaded."""
    mesh = build_mesh(config, devices, memory_bytes=memory_bytes)
    dtype = encoder_dtype(config, mesh)
    return assemble(
        config,
        abstract_autoencoder(config.autoencoder, dtype=dtype),
        abstract_text_encoder(config.text_encoder, max_tokens=config.text_max_tokens, dtype=dtype),
        mesh,
    )


def _explained(
    settings: dict[str, Any],
    needs: int,
    memory: int,
    parts: Parts,
    first: tuple[int, dict[str, Any]],
    *,
    fits: bool = True,
) -> Choice:
    """Returns the choice with its line for the log."""
    words = _in_words(settings)
    device = str(parts.mesh.devices.flat[0].device_kind)
    line = f"{words}: needs about {needs / GIB:.1f} of {memory / GIB:.1f} GiB on each {device}"
    if not fits:
        line = f"warning: {words}: {line.rpartition(': ')[2]}, and nothing that needs less is known"
    elif first[1] != settings:
        other = _in_words({n: v for n, v in first[1].items() if v != settings[n]})
        line += f"; {other} would need {first[0] / GIB:.1f}"
    return Choice(settings, needs, memory, fits, line)


def _in_words(settings: dict[str, Any]) -> str:
    """Returns settings without their groups, for the log: "remat dots, scan_blocks 0"."""
    values = ((name.rpartition(".")[2], value) for name, value in settings.items())
    return ", ".join(f"{name} {configuration.written(value)}" for name, value in values)
