"""Settings that make a training step use less memory, those that cost the least speed first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

import jax

from pinxit import config as configuration
from pinxit.train.resume_policy import options_of
from pinxit.train.settings import AUTO, ModelConfig, TrainConfig


@dataclass(frozen=True)
class Change:
    """Settings to try, and their cost."""

    settings: dict[str, Any]
    cost: str
    same_run: bool = True
    """Whether the same run can resume with these settings. Otherwise it needs a new name."""

    @property
    def flags(self) -> str:
        """The settings as command-line options."""
        return options_of(self.settings)


def ladder(
    config: TrainConfig, *, devices: int, remat: str = "none", unrolled: bool = False
) -> Iterator[Change]:
    """Yields changes to try, those that cost the least speed first.

    `remat` is the network's current policy, and `unrolled` whether its blocks are unrolled. Blocks
    that recompute run in a loop, which compiles in a fraction of the time; where blocks are
    unrolled, the first change is therefore a loop that recomputes everything. Gradient accumulation
    adds no arithmetic, rematerialisation does. A smaller batch changes the training and needs a new
    run.
    """
    known = [name for name in _remats() if name != "offload"]
    policies = known[known.index(remat) :] if remat in known else [remat]
    pieces = _pieces(config, devices)
    few = [n for n in pieces if n <= 4 * config.pieces]
    loop: dict[str, Any] = {"model.scan_blocks": True} if unrolled else {}
    if unrolled:
        settings = {"model.remat": policies[-1]} if policies[-1] != remat else {}
        yield Change({**settings, **loop}, _costs({"model.remat": policies[-1]}))
    order = sorted(product(policies, few or pieces[:1]), key=lambda pair: _cost(pair, policies))
    order += [(policies[-1], n) for n in pieces if n not in few]
    if "offload" in _remats() and remat != "offload" and jax.default_backend() != "cpu":
        order.append(("offload", pieces[-1]))
    for chunk in _chunks(config, devices):
        yield Change({"encoder_chunk": chunk}, f"the encoders process {chunk} rows at once")
    for policy, count in order:
        settings: dict[str, Any] = {}
        if policy != remat:
            settings |= {"model.remat": policy, **loop}
        if count != config.pieces:
            settings["gradient_accumulation_steps"] = count
        if settings and (count != config.pieces or not unrolled or policy != policies[-1]):
            yield Change(_divided(config, settings), _costs(settings))
    yield from _other(config, devices, {"model.remat": policies[-1], **loop}, pieces[-1])


def _other(
    config: TrainConfig, devices: int, policy: dict[str, Any], count: int
) -> Iterator[Change]:
    """Yields the changes to try when recomputing and accumulating are not enough."""
    least = policy if count == 1 else {**policy, "gradient_accumulation_steps": count}
    mesh = f"fsdp={devices}"
    if devices > 1 and config.mesh in ("auto", f"data={devices}"):
        yield Change(
            {"mesh": mesh}, "the state is sharded over the devices and gathered when needed"
        )
        both = _divided(config, {**least, "mesh": mesh})
        yield Change(both, "also recomputes everything and splits the batch")
    if not config.use_amp and config.model.dtype is None:
        yield Change(
            {"use_amp": True}, "halves the memory of activations and is faster", same_run=False
        )
        both = _divided(config, {**least, "use_amp": True})
        yield Change(both, "also recomputes everything", same_run=False)
    if len(config.ema.lengths) > 1:
        middle = sorted(config.ema.lengths)[len(config.ema.lengths) // 2]
        fewer = _divided(config, {**least, "ema.lengths": (middle,)})
        yield Change(
            fewer, "keeps one average of the parameters instead of several", same_run=False
        )
    batch = config.batch_size
    while batch % (2 * devices) == 0:
        batch //= 2
        changes = {**policy, "batch_size": batch, "gradient_accumulation_steps": 1}
        changes = _divided(config, changes)
        yield Change(changes, f"a batch of {batch} instead of {config.batch_size}", same_run=False)


def _pieces(config: TrainConfig, devices: int) -> list[int]:
    """Returns possible values of gradient_accumulation_steps: the current one, twice that, ..."""
    counts = [config.pieces]
    while config.batch_size % (2 * counts[-1] * devices) == 0:
        counts.append(2 * counts[-1])
    return counts


def _chunks(config: TrainConfig, devices: int) -> list[int]:
    """Returns smaller values of encoder_chunk, for encoders that run inside the step: a quarter of
    the current one, and one row per device."""
    if not config.encode_in_step:
        return []
    piece = config.encoder_chunk or config.batch_size // config.pieces
    sizes = {piece // 4, devices} if piece % (4 * devices) == 0 else {devices}
    return [size for size in sorted(sizes, reverse=True) if size < piece and piece % size == 0]


def _divided(config: TrainConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns `settings`, with an encoder_chunk that divides the accumulated piece of the batch."""
    batch = settings.get("batch_size", config.batch_size)
    count = settings.get("gradient_accumulation_steps", config.pieces)
    fits = not config.encoder_chunk or batch // count % config.encoder_chunk == 0
    return settings if fits else {**settings, "encoder_chunk": batch // count}


def _cost(pair: tuple[str, int], policies: Sequence[str]) -> tuple[int, int]:
    return policies.index(pair[0]), pair[1]


def _costs(settings: dict[str, Any]) -> str:
    costs = {
        "dots": "recomputes everything between matrix products",
        "full": "recomputes each block",
        "offload": "stores matrix products in the host's memory",
    }
    parts = []
    if "model.remat" in settings:
        parts.append(costs.get(settings["model.remat"], settings["model.remat"]))
    if "gradient_accumulation_steps" in settings:
        parts.append(f"splits the batch into {settings['gradient_accumulation_steps']} pieces")
    return ", ".join(parts)


def _remats() -> tuple[str, ...]:
    """Returns the names of all rematerialisation policies."""
    literal = configuration.options(configuration.hints(ModelConfig)["remat"])[0]
    return tuple(name for name in get_args(literal) if name != AUTO)
