"""The models of the server: which there are, and which of them are in memory."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinxit.checkpoint_files import checkpoints_in
from pinxit.config import UsageError, from_json, to_json
from pinxit.encoders.token_grid import TokenGrid
from pinxit.flow.solvers import SOLVERS
from pinxit.hub_model import repository_of
from pinxit.model_loading import load_checkpoint
from pinxit.pipeline import TextToImage
from pinxit.sampling import Sampling
from pinxit.stored_model import SHIPPED, read_model

SHIPPED_ID = "pinxit-scenes"
"""The id of the model that ships with the package."""


@dataclass(frozen=True)
class ModelSource:
    """A model that can be loaded."""

    id: str
    """The name by which requests choose it."""
    path: str | None
    """The path or the Hub's id that `load_checkpoint` takes; None for the shipped model."""
    stamp: tuple[Any, ...] = ()
    """It changes when a run has a newer checkpoint."""
    created: float = 0.0
    """The time at which the model's files were written, or 0 if it is not known."""


@dataclass(frozen=True)
class ModelEntry:
    """A model as a list shows it."""

    id: str
    """The name by which requests choose it."""
    name: str
    """The model's own name once it is loaded, otherwise its id."""
    loaded: bool
    """Whether it is in memory."""
    created: float
    """The time at which its files were written, or 0 if it is not known."""
    path: str | None = None
    """The path or the Hub's id that `load_checkpoint` takes; None for the shipped model."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Facts about a model that was loaded: sampling, image_size, unit, solvers, average, step,
    max_tokens and model_hash."""
    problem: str = ""
    """The reason why it could not be loaded last time."""

    @property
    def sampling(self) -> Sampling | None:
        """The default sampling settings, or None before the model was loaded."""
        stored = self.defaults.get("sampling")
        return None if stored is None else from_json(Sampling, stored)

    @property
    def image_size(self) -> int | None:
        """The side of the pictures that it was trained on, or None before it was loaded."""
        return self.defaults.get("image_size")

    @property
    def unit(self) -> int | None:
        """The number that divides the sides of its pictures, or None before it was loaded."""
        return self.defaults.get("unit")


@dataclass(eq=False)
class LoadedModel:
    """A model in memory."""

    source: ModelSource
    """The source that it was loaded from."""
    model: TextToImage
    """The pipeline that draws with it."""
    users: int = 0
    """The number of jobs that need it."""
    used: float = 0.0
    """The time of its last use."""


class ModelStore:
    """Loads models when they are needed, and drops those that were not used for longest."""

    def __init__(
        self, checkpoints: tuple[str, ...], runs: Path, *, most: int, encoder_dtype: str
    ) -> None:
        self._runs = runs
        self._most = most
        self._dtype = encoder_dtype
        self._given = _given(checkpoints)
        self._loaded: dict[str, LoadedModel] = {}
        self._problems: dict[str, str] = {}
        self._facts: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self._changed = threading.Condition()
        self._one_load = threading.Lock()
        self._closed = False
        self.waits_for_room = False
        """Whether a model waits until the jobs of another one have ended."""

    @property
    def default(self) -> str:
        """The id of the model of requests that name none."""
        return next(iter(self._given))

    def sources(self) -> dict[str, ModelSource]:
        """Returns the models by id: those given, then the shipped one, then the runs."""
        sources = {name: _with_stamp(source) for name, source in self._given.items()}
        known = {_resolved(source.path) for source in sources.values()}
        for source in _runs_in(self._runs):
            if _resolved(source.path) not in known:
                name = _unused(source.id, sources)
                sources[name] = ModelSource(name, source.path, source.stamp, source.created)
        return sources

    def find(self, id: str | None) -> ModelSource:
        """Returns the model of an id, by default the first. Raises `UsageError` for others."""
        sources = self.sources()
        source = sources.get(self.default if id is None else id)
        if source is None:
            raise UsageError("model", id, problem="unknown", valid=list(sources))
        return source

    def entries(self) -> list[ModelEntry]:
        """Returns all models, with facts about those that were loaded."""
        return [self.entry(source) for source in self.sources().values()]

    def entry(self, source: ModelSource) -> ModelEntry:
        """Returns a model of `sources` with what is known about it."""
        with self._changed:
            loaded = self._loaded.get(source.id)
            stamp, facts = self._facts.get(source.id, ((), {}))
            problem = self._problems.get(source.id, "")
        known = facts if stamp == source.stamp else {}
        return ModelEntry(
            id=source.id,
            name=known.get("name", source.id),
            loaded=loaded is not None,
            created=source.created,
            path=source.path,
            defaults=known,
            problem=problem,
        )

    def acquire(self, source: ModelSource) -> LoadedModel | None:
        """Returns a model that is in memory for a job, which must `release` it; None if it is not
        there, or there is a newer checkpoint."""
        with self._changed:
            loaded = self._loaded.get(source.id)
            if loaded is None or loaded.source.stamp != source.stamp:
                return None
            loaded.users += 1
            return loaded

    def release(self, loaded: LoadedModel) -> None:
        """Ends a job's use of a model."""
        with self._changed:
            loaded.users -= 1
            loaded.used = time.monotonic()
            self._drop(self._most)
            self._changed.notify_all()

    def load(self, source: ModelSource) -> LoadedModel:
        """Returns a model for a job as `acquire` does, and loads it first if necessary.

        Waits while as many models as allowed are in use. Raises whatever loading raises.
        """
        if (loaded := self.acquire(source)) is not None:
            return loaded
        with self._one_load:
            return self.acquire(source) or self._load(source)

    def _load(self, source: ModelSource) -> LoadedModel:
        """Loads a model as soon as there is room for it."""
        with self._changed:
            self.waits_for_room = not self._has_room(source)
            self._changed.wait_for(lambda: self._closed or self._has_room(source))
            self.waits_for_room = False
            self._drop(self._most - 1, instead=source)
        gc.collect()
        try:
            model = load_checkpoint(source.path, encoder_dtype=self._dtype)
            facts = facts_about(model)
        except Exception as error:
            with self._changed:
                self._problems[source.id] = str(error)
            raise
        with self._changed:
            self._problems.pop(source.id, None)
            loaded = LoadedModel(source, model, users=1)
            self._loaded[source.id] = loaded
            self._facts[source.id] = source.stamp, facts
        return loaded

    def close(self) -> None:
        """Ends the wait for room."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self, source: ModelSource) -> bool:
        others = [each for name, each in self._loaded.items() if name != source.id]
        return len(others) < self._most or any(not each.users for each in others)

    def _drop(self, most: int, instead: ModelSource | None = None) -> None:
        """Drops models that are not in use until there are at most `most`, and an older checkpoint
        of the model that is loaded instead."""
        if instead is not None:
            self._loaded.pop(instead.id, None)
        idle = sorted(
            (each for each in self._loaded.values() if not each.users), key=lambda each: each.used
        )
        for each in idle[: max(0, len(self._loaded) - most)]:
            del self._loaded[each.source.id]


def facts_about(model: TextToImage) -> dict[str, Any]:
    """Returns the defaults and the limits of a model, as plain JSON values."""
    details = model.stored.details if model.stored else {}
    grid = TokenGrid(model.autoencoder.stats.downsample, model.config.patch_size)
    return {
        "name": model.name,
        "sampling": to_json(model.sampling),
        "image_size": model.image_size,
        "unit": grid.unit,
        "solvers": list(SOLVERS),
        "average": details.get("ema"),
        "step": details.get("step"),
        "max_tokens": model.text_encoder.max_tokens,
        "model_hash": model.model_hash,
    }


def _given(checkpoints: tuple[str, ...]) -> dict[str, ModelSource]:
    """Returns the models that the server was started with by id, the shipped one last."""
    sources: dict[str, ModelSource] = {}
    for path in checkpoints:
        check_checkpoint(path)
        name = _unused(_id_of(path), sources)
        sources[name] = ModelSource(name, path)
    name = _unused(SHIPPED_ID, sources)
    sources[name] = ModelSource(name, None)
    return sources


def check_checkpoint(path: str) -> None:
    """Raises `UsageError` unless a model can be read from here. Models of the Hub are not looked
    for before they are needed."""
    if Path(path).exists() or repository_of(path) is None:
        read_model(path, weights=False)


def _id_of(path: str) -> str:
    """Returns the id of a path: the names of a run and its checkpoint, or the id on the Hub."""
    folder = Path(path)
    if not folder.exists():
        return path
    parts = folder.resolve().parts
    if len(parts) > 2 and parts[-2] == "checkpoints":
        return f"{parts[-3]}-{parts[-1]}"
    if len(parts) > 1 and parts[-1] == "model":
        return parts[-2]
    return parts[-1].removesuffix(".safetensors")


def _unused(name: str, names: Mapping[str, Any]) -> str:
    """Returns a name, with a number behind it if it is used."""
    count, unused = 1, name
    while unused in names:
        count += 1
        unused = f"{name}-{count}"
    return unused


def _resolved(path: str | None) -> Path:
    return SHIPPED if path is None else Path(path).resolve()


def _with_stamp(source: ModelSource) -> ModelSource:
    stamp, created = _stamp(_resolved(source.path))
    return ModelSource(source.id, source.path, stamp, created)


def _stamp(folder: Path) -> tuple[tuple[Any, ...], float]:
    """Returns what changes with a model's files, and the time at which they were written."""
    newest = next(iter(checkpoints_in(folder / "checkpoints")), None)
    for path in (newest, folder / "model.safetensors", folder):
        if path is None:
            continue
        try:
            changed = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
        return (path.name, changed), changed / 1e9
    return (), 0.0


def _runs_in(runs: Path) -> list[ModelSource]:
    """Returns the runs in a folder that have a checkpoint or a release."""
    if not runs.is_dir():
        return []
    sources, root = [], runs.resolve()
    for folder in sorted(runs.iterdir()):
        if not folder.is_dir() or not folder.resolve().is_relative_to(root):
            continue
        path = next((each for each in (folder, folder / "model") if _has_model(each)), None)
        if path is not None:
            stamp, created = _stamp(path)
            sources.append(ModelSource(folder.name, str(path), stamp, created))
    return sources


def _has_model(folder: Path) -> bool:
    return bool(checkpoints_in(folder / "checkpoints")) or (folder / "model.safetensors").is_file()
