"""Chooses the source of a run's batches: rows in memory, a prepared dataset, or a stream."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from pinxit.config import UsageError
from pinxit.data.row import Source
from pinxit.data.sources.columns import named_columns
from pinxit.devices.processes import alone, is_first, meet, several
from pinxit.extras import check_data_extra
from pinxit.train.build import Parts
from pinxit.train.datasets import PREPARED
from pinxit.train.display import Display
from pinxit.train.input.feed import Feed
from pinxit.train.input.outage import Outage, patiently
from pinxit.train.run_folder import RunFolder, folder_of
from pinxit.train.settings import TrainConfig

_numbers = itertools.count()


def open_source_of(
    config: TrainConfig,
    *,
    revision: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Source | None:
    """Returns the source of a run that streams, or None for other runs.

    Wrong paths are refused before anything is loaded. `revision` is the one that an earlier part of
    the run has read. A dataset on the Hugging Face hub is read at that revision. If the run exists
    already and its source cannot be reached, it is waited for.
    """
    if not config.streamed:
        return None
    check_data_extra(f"training on {config.dataset_name}")
    if not several():
        return _open_source(config, revision, say)
    sources: list[Source] = []

    def open_first() -> str | None:
        sources.append(_open_source(config, revision, say))
        return sources[0].revision

    # a dataset on the hub may change between two processes' looks at it
    first = alone(open_first)
    source = sources[0] if is_first() else _open_source(config, first, say)
    if source.revision != first:
        problem = f"another version of the dataset than that of process 0, {first}"
        valid = "the same files on all processes"
        raise UsageError("dataset_path", source.revision, problem=problem, valid=valid)
    meet(f"source/{next(_numbers)}")  # some may wait long for the network
    return source


def _open_source(config: TrainConfig, revision: str | None, say: Callable[[str], None]) -> Source:
    """Opens the source on this process."""
    from pinxit.data.sources.catalogue import open_source

    hub = revision is not None and not revision.startswith("files-")

    def opened() -> Source:
        return open_source(
            config.dataset_name,
            path=config.dataset_path,
            revision=config.dataset_revision or (revision if hub else None),
            columns=named_columns(config.columns),
            text_encoding=config.text_encoding,
        )

    if not folder_of(config).config.is_file():
        return opened()
    return patiently(opened, Outage(hours=config.outage_hours, say=say), config.dataset_name)


def open_feed(
    config: TrainConfig,
    parts: Parts,
    folder: RunFolder,
    display: Display,
    *,
    source: Source | None,
    position: Any = None,
) -> Feed:
    """Opens the data of a run. `position` is the one stored in its checkpoint."""
    if config.dataset_name == PREPARED:
        from pinxit.train.input.prepared import PreparedFeed

        return PreparedFeed(config, parts, display, position=position)
    if source is None:
        from pinxit.train.input.in_memory import InMemoryFeed

        return InMemoryFeed(config, parts, folder, display)
    from pinxit.train.input.streamed import StreamedFeed

    if isinstance(position, dict) and position.get("revision") != source.revision:
        source = open_source_of(config, revision=position.get("revision"), say=display.say)
        if source is None:
            raise UsageError("dataset_name", config.dataset_name)
    return StreamedFeed(config, parts, folder, display, source=source, position=position)
