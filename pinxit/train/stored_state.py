"""Reads the state of a run from the files of a verified checkpoint, onto any mesh.

Each process reads the slices of the arrays that its devices hold. If only process 0 sees the files,
it reads them all and distributes the arrays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from pinxit.checkpoint_files import COUNTERS, CheckpointManifest, DamagedCheckpoint
from pinxit.devices.processes import is_first
from pinxit.devices.transfer import spread
from pinxit.stored_model import mismatches
from pinxit.train.checkpoint_writing import is_shared
from pinxit.train.state import TrainState
from pinxit.train.state_arrays import by_full_name, state_from, state_parts


class CheckpointError(DamagedCheckpoint):
    """The reason why a checkpoint cannot be used."""


class StoredState:
    """The arrays of a verified checkpoint, for a state with the shapes and dtypes of `like`."""

    def __init__(self, folder: Path, like: TrainState) -> None:
        """Raises `CheckpointError` if the arrays differ from `like` in names or shapes."""
        self.like = like
        self._expected = by_full_name(state_parts(like))
        manifest = CheckpointManifest(folder)
        parts = {part: manifest.stored(part) for part in manifest.parts()}
        entries = {
            f"{part}/{n}": (arrays, n) for part, arrays in parts.items() for n in arrays.shapes
        }
        self._entries = _as_today(entries, self._expected)
        stored = {
            name: jax.ShapeDtypeStruct(arrays.shapes[own], arrays.dtypes[own])
            for name, (arrays, own) in self._entries.items()
        }
        if problems := mismatches(stored, self._expected):
            raise CheckpointError(
                "the checkpoint's state does not match these settings in this version: " + problems
            )

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Reads an array, or a slice of it, in the dtype of the state."""
        arrays, own = self._entries[name]
        return np.asarray(arrays.read(own, index), self._expected[name].dtype)

    def numbers(self) -> dict[str, Any]:
        """Reads the fields of the state that are single numbers."""
        return {name: self.read(f"{COUNTERS}/{name}") for name in state_parts(self.like)[COUNTERS]}

    def on_host(self) -> TrainState:
        """Reads the whole state into the host's memory."""
        parts = state_parts(self.like)
        read = {part: {n: self.read(f"{part}/{n}") for n in parts[part]} for part in parts}
        return state_from(read, self.like)

    def on_devices(self, shardings: Any) -> TrainState:
        """Reads the slices that the devices of this process hold."""
        parts, targets = state_parts(self.like), state_parts(shardings)
        placed = {
            part: {name: self._placed(f"{part}/{name}", to[name]) for name in parts[part]}
            for part, to in targets.items()
        }
        return state_from(placed, self.like)

    def _placed(self, name: str, sharding: Any) -> jax.Array:
        slices: dict[str, np.ndarray] = {}

        def read(index: tuple[slice, ...] | None) -> np.ndarray:
            if repr(index) not in slices:
                slices[repr(index)] = self.read(name, index)
            return slices[repr(index)]

        return jax.make_array_from_callback(self._expected[name].shape, sharding, read)


def _as_today(stored: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Returns the entries of an older version's state under their names of today.

    Version 1 joined the names inside the optimiser's state by dots. Before clipping could be
    changed during a run, an optimiser without it was not the second of a chain.
    """
    today = {name.replace("/", "."): name for name in expected}
    dotted = {name.replace("/", "."): entry for name, entry in stored.items()}
    own = "optimizer."
    for prefix in (own, f"{own}1."):
        named = {
            name.replace(own, prefix, 1) if name.startswith(own) else name: entry
            for name, entry in dotted.items()
        }
        if named.keys() == today.keys():
            return {today[name]: entry for name, entry in named.items()}
    return stored


def load_state(folder: Path, like: TrainState, shardings: Any) -> TrainState:
    """Returns the state of a verified checkpoint on the devices. All processes must call it."""
    if is_shared(folder.parent):
        return StoredState(folder, like).on_devices(shardings)
    return spread(StoredState(folder, like).on_host() if is_first() else None, like, shardings)
