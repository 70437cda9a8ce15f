"""The arrays of a state by part and name, and which process stores which piece of them.

An array that is sharded over devices is stored in as many pieces, and one that several processes
hold is stored by one of them. The pieces are distributed so that every process writes about the
same number of bytes. All processes compute the same distribution without communication.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pinxit.array_pieces import ArrayPiece, whole_piece
from pinxit.checkpoint_files import AVERAGE, COUNTERS, OPTIMIZER, PARAMS
from pinxit.devices.transfer import fetch
from pinxit.train.state import TrainState

NUMBERS = ("step", "skipped", "consecutive", "loss_scale", "good_steps")
"""The fields of a state that are single numbers."""
Parts = dict[str, dict[str, Any]]
"""Arrays by part and by name, for example ``params`` and ``blocks/attention/qkv/kernel``."""


def _named(tree: Any) -> dict[str, Any]:
    """Returns the leaves by their path in the tree."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def state_parts(state: TrainState) -> Parts:
    """Returns the leaves of a state by part and name."""
    averages = {f"{AVERAGE}{name}": _named(tree) for name, tree in state.ema.items()}
    numbers = {name: getattr(state, name) for name in NUMBERS}
    optimizer = _named(state.opt_state)
    return {
        COUNTERS: numbers, PARAMS: _named(state.params), **averages, OPTIMIZER: optimizer
    }  # fmt: skip


def state_from(parts: Parts, like: TrainState) -> TrainState:
    """Reverses `state_parts`, for a state with the structure of `like`."""

    def fill(part: str, tree: Any) -> Any:
        leaves = [parts[part][name] for name in _named(tree)]
        return jax.tree.unflatten(jax.tree.structure(tree), leaves)

    return TrainState(
        params=fill(PARAMS, like.params),
        ema={name: fill(f"{AVERAGE}{name}", tree) for name, tree in like.ema.items()},
        opt_state=fill(OPTIMIZER, like.opt_state),
        **{name: parts[COUNTERS][name] for name in NUMBERS},
    )


def by_full_name(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the arrays by their full name, such as ``params/blocks/…``."""
    return {f"{part}/{name}": leaf for part in parts for name, leaf in parts[part].items()}


def whole_pieces(state: TrainState) -> dict[str, list[ArrayPiece]]:
    """Returns copies of all arrays on the host, each as one piece, by part."""
    return {
        part: [whole_piece(name, np.array(leaf, copy=True)) for name, leaf in leaves.items()]
        for part, leaves in state_parts(state).items()
    }


def own_pieces(state: TrainState) -> dict[str, list[ArrayPiece]]:
    """Returns copies, on the host, of the pieces that this process stores, by part.

    The copies from all devices are started before the first one is waited for.
    """
    me, bytes_of = jax.process_index(), [0] * jax.process_count()
    chosen: list[tuple[str, str, tuple[int, ...], tuple[int, ...], jax.Array]] = []
    for part, leaves in state_parts(state).items():
        for name, leaf in leaves.items():
            mine = {shard.device: shard.data for shard in leaf.addressable_shards}
            boxes = _boxes(leaf)
            for start, devices in boxes:
                holders = {device.process_index for device in devices}
                process = min(holders, key=lambda number: (bytes_of[number], number))
                bytes_of[process] += leaf.nbytes // len(boxes)
                if process == me:
                    data = next(mine[device] for device in devices if device in mine)
                    data.copy_to_host_async()
                    chosen.append((part, name, leaf.shape, start, data))
    pieces: dict[str, list[ArrayPiece]] = {}
    for part, name, shape, start, data in chosen:
        piece = ArrayPiece(name, shape, start, np.array(data, copy=True))
        pieces.setdefault(part, []).append(piece)
    return pieces


def _boxes(leaf: jax.Array) -> list[tuple[tuple[int, ...], list[jax.Device]]]:
    """Returns the boxes into which an array is cut, by first index and in a fixed order, with the
    devices that hold each."""
    boxes: dict[tuple[int, ...], list[jax.Device]] = {}
    for device, index in leaf.sharding.devices_indices_map(leaf.shape).items():
        start = tuple(part.indices(size)[0] for part, size in zip(index, leaf.shape, strict=True))
        boxes.setdefault(start, []).append(device)
    return [
        (start, sorted(devices, key=lambda device: device.id))
        for start, devices in sorted(boxes.items(), key=lambda item: item[0])
    ]


def gathered_pieces(state: TrainState) -> dict[str, list[ArrayPiece]]:
    """Returns copies of all arrays on process 0, and nothing on the others. All must call it."""
    host = fetch(state)
    return {} if host is None else whole_pieces(host)
