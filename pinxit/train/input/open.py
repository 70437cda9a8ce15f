"""Where a run's batches come from: rows in memory, a prepared dataset, or a stream.

Three ways in, one loop. Each makes a `Feed`: the loader with the batches, what the step needs to
read them, the rows that are held out, and what a checkpoint keeps of the position in the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pinxit.arrays import Example
from pinxit.config import UsageError
from pinxit.data.row import Source
from pinxit.data.sources.columns import named_columns
from pinxit.devices.mesh import local_rows
from pinxit.devices.processes import alone, several
from pinxit.encoders.text_columns import TextColumns
from pinxit.train.build import Parts
from pinxit.train.datasets import DATASETS, PREPARED, load_examples
from pinxit.train.display import Display
from pinxit.train.loop import Batches
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import TrainConfig


def _nothing() -> None:
    """Nothing is to be done."""


def _unwatched(interrupted: Callable[[], bool]) -> None:
    """Data that are always there need not be told."""


@dataclass
class Feed:
    """A run's data."""

    loader: Batches
    text: TextColumns
    """How the batches' text columns are read."""
    columns: dict[str, Any]
    """Some rows' text columns: what tells their lengths."""
    held_out: Callable[[], Sequence[Example]]
    """Rows for the validation loss."""
    position: Callable[[int], Any] = int
    """What a checkpoint after so many steps keeps, as JSON."""
    figures: Callable[[], dict[str, float]] = dict
    """What each row of metrics tells besides."""
    results: Callable[[], dict[str, Any]] = dict
    """What the report tells of the data."""
    ended: Callable[[], str] = str
    """Why there are no more batches, if that was not planned."""
    begin: Callable[[], None] = _nothing
    """To be called once before the first batch, when the run's folder is there."""
    watch: Callable[[Callable[[], bool]], None] = _unwatched
    """Is given what tells whether the run is to stop, so that nobody waits for data then."""


def open_source_of(config: TrainConfig, *, revision: str | None = None) -> Source | None:
    """The source of a run that streams, so that wrong paths are told before anything is loaded.

    `revision` is what an earlier part of the run read; a dataset of the hub is read as it was then.
    """
    if config.dataset_name in (*DATASETS, PREPARED):
        return None
    if several():
        problem = "streamed, which is for one process"
        valid = "prepare it (pinxit prepare), then --dataset_path FOLDER"
        raise UsageError("dataset_name", config.dataset_name, problem=problem, valid=valid)
    from pinxit.data.sources.catalogue import open_source

    hub = revision is not None and not revision.startswith("files-")
    return open_source(
        config.dataset_name,
        path=config.dataset_path,
        revision=config.dataset_revision or (revision if hub else None),
        columns=named_columns(config.columns),
    )


def open_feed(
    config: TrainConfig,
    parts: Parts,
    folder: RunFolder,
    display: Display,
    *,
    source: Source | None,
    position: Any = None,
) -> Feed:
    """The data of a run; `position` is what its checkpoint kept."""
    if config.dataset_name == PREPARED:
        from pinxit.train.input.prepared import open_prepared

        return open_prepared(config, parts, display, position=position)
    if source is None:
        return _in_memory(config, parts, folder, display)
    from pinxit.train.input.streamed import open_streamed

    if isinstance(position, dict) and position.get("revision") != source.revision:
        source = open_source_of(config, revision=position.get("revision"))
        if source is None:
            raise UsageError("dataset_name", config.dataset_name)
    return open_streamed(config, parts, folder, display, source=source, position=position)


def _in_memory(config: TrainConfig, parts: Parts, folder: RunFolder, display: Display) -> Feed:
    """Rows that are drawn, encoded once, and kept in memory."""
    from pinxit.data.loader import Loader
    from pinxit.train.input.in_memory import prepare_rows

    name, size = config.dataset_name, config.image_size
    examples = load_examples(name, config.dataset_size, image_size=size, seed=config.seed)
    prepare = partial(
        prepare_rows,
        examples,
        about={"dataset": name, "image_size": size, "seed": config.seed},
        autoencoder=parts.autoencoder if config.encodes_ahead else None,
        text=parts.text,
        cache=folder.cache,
        track=display.track,
        say=display.say,
    )
    if several():
        # the others find in the cache what the first one makes, where they see the same folder
        alone(lambda: len(prepare()))
    rows = prepare()

    def held_out() -> list[Example]:
        count = config.evaluation.images
        found = load_examples(name, count, image_size=size, seed=config.seed, split="heldout")
        return [found[row] for row in range(count)]

    part = local_rows(parts.mesh, config.batch_size)
    loader = Loader(rows, batch_size=config.batch_size, seed=config.seed, part=part)
    return Feed(loader, parts.text, rows.arrays, held_out)
