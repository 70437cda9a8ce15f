"""Rows to measure a trained model on: those that its run held out, or rows of another dataset.

A run holds out rows in one of three ways, as its feed does: generated datasets have a held-out
split, a prepared dataset's last rows are reserved, and a stream's first rows are stored with the
run. Rows of a dataset that the run did not read are the ones that a new run would hold out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pinxit.arrays import Example
from pinxit.checkpoint_files import RUN, checkpoints_in
from pinxit.config import UsageError, read_json
from pinxit.data.image_column import IMAGES, image_column
from pinxit.data.prepared.dataset import Root, dataset_root, read_manifest
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.train.datasets import DATASETS, PREPARED, held_out_examples
from pinxit.train.input.held_out_rows import HeldOut
from pinxit.train.input.image_stream import Stream
from pinxit.train.input.open import open_source_of
from pinxit.train.input.prepared import check_held_out, check_size, held_out, held_out_count
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import TrainConfig

Say = Callable[[str], None]


@dataclass(frozen=True)
class EvaluationRows:
    """Rows to measure a model on, and where they are from."""

    examples: Sequence[Example]
    """The images and captions of the rows."""
    dataset: str
    """The name of the dataset."""
    path: str | None
    """The path of the dataset, or None for its usual one."""
    origin: str
    """The kind of rows in words, such as "held out by the run runs/scenes"."""

    def __str__(self) -> str:
        where = f"{self.dataset} ({self.path})" if self.path else self.dataset
        return f"{len(self.examples)} rows of {where}, {self.origin}"


def rows_of_run(config: TrainConfig, folder: RunFolder, count: int, say: Say) -> EvaluationRows:
    """Returns the first `count` rows that a run holds out. Raises if it holds out fewer."""
    if config.dataset_name in DATASETS:
        examples = _generated(config, count)
    elif config.dataset_name == PREPARED:
        examples = _reserved(config, folder, say)
    else:
        examples = HeldOut(folder.held_out).examples(max(count, config.evaluation.images))
    if count > len(examples):
        problem = f"more than the {len(examples)} rows that {folder.root} has held out"
        valid = f"0 to {len(examples)}, or another dataset with --dataset_path or --dataset_name"
        raise UsageError("images", count, problem=problem, valid=valid)
    origin = f"held out by the run {folder.root}"
    return EvaluationRows(examples[:count], config.dataset_name, config.dataset_path, origin)


def rows_of_dataset(config: TrainConfig, count: int, say: Say) -> EvaluationRows:
    """Returns up to `count` rows of a dataset, for a model that may not have been trained on it.

    `config` names the dataset and has the model's image size.
    """
    name = config.dataset_name
    if name in DATASETS:
        examples, origin = _generated(config, count), "of its held-out split"
    elif name == PREPARED:
        examples, origin = _last_prepared(config, count, say), "the last ones"
    else:
        examples, origin = _first_streamed(config, count, say), "the first usable ones"
    return EvaluationRows(examples, name, config.dataset_path, origin)


def _generated(config: TrainConfig, count: int) -> list[Example]:
    """Returns rows of the held-out split of a generated dataset."""
    if not count:
        return []
    return held_out_examples(
        config.dataset_name, count, image_size=config.image_size, seed=config.seed
    )


def _reserved(config: TrainConfig, folder: RunFolder, say: Say) -> list[Example]:
    """Returns the rows of a prepared dataset that a run reserved, whose number its checkpoint has.

    Raises if the dataset is another one than the run was trained on.
    """
    root, position = _prepared_folder(config), _position(folder)
    before, now = position.get("dataset"), read_manifest(root).fingerprint()
    if before not in (None, now):
        problem = f"another dataset ({now}) than the run was trained on ({before})"
        valid = f"the original dataset, or --dataset_path {root} to measure on the last rows of it"
        raise UsageError("dataset_path", str(root), problem=problem, valid=valid)
    rows = PreparedRows(root, kind=image_column(config.encodes_ahead), say=say)
    count = position.get("held_out")
    if count is None:
        count = held_out_count(config.evaluation.images, len(rows))
    return held_out(rows, rows.hold_out(count), say)


def _prepared_folder(config: TrainConfig) -> Root:
    return dataset_root(config.dataset_path or "")


def _position(folder: RunFolder) -> dict[str, Any]:
    """Returns the position in the data of a run's newest readable checkpoint, or nothing."""
    for checkpoint in checkpoints_in(folder.checkpoints):
        if (checkpoint / RUN).is_file():
            position = read_json(checkpoint / RUN).get("loader_position")
            return position if isinstance(position, dict) else {}
    return {}


def _last_prepared(config: TrainConfig, count: int, say: Say) -> list[Example]:
    """Returns the rows that a new run would reserve."""
    root = _prepared_folder(config)
    check_size(config, read_manifest(root), root)
    rows = PreparedRows(root, kind=IMAGES, only_held_out=True, say=say)
    count = held_out_count(count, len(rows))
    check_held_out("images", count, rows)
    return held_out(rows, rows.hold_out(count), say)


def _first_streamed(config: TrainConfig, count: int, say: Say) -> list[Example]:
    """Returns the first usable rows of a stream, each once."""
    source = open_source_of(config)
    assert source is not None
    stream = Stream(
        source,
        filters=config.filters,
        fetch=config.fetch,
        images=config.images,
        seed=config.seed,
        say=say,
    )
    rows: dict[str, Example] = {}
    with closing(stream.row_images()) as images:
        for row in islice(images, count):
            key = row.attempt.row.key
            if key in rows:  # the next epoch has begun
                break
            rows[key] = Example(row.image, row.caption)
    return list(rows.values())
