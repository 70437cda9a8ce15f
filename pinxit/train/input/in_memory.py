"""The dataset, encoded once and kept in memory: latents (or pixels) and text columns.

What the frozen autoencoder makes of an image never changes, so it is computed once and stored under
a name that is the hash of everything it depends on: the dataset, its size and seed, the code that
draws it, the image size, and the autoencoder's weights and arithmetic. Text is tokenised here and
encoded inside the training step (an embedding is many times larger than a latent, and cheap to
compute).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL

from pinxit.arrays import Autoencoder, Example, to_pixels
from pinxit.data.image_column import image_column
from pinxit.data.loader import ArrayRows, Loader
from pinxit.devices.mesh import local_rows
from pinxit.devices.processes import alone, several
from pinxit.encoders.fingerprint import fingerprint_of_outputs
from pinxit.encoders.text_columns import TextColumns, Track
from pinxit.files import whole_folder
from pinxit.fixed_batches import padded
from pinxit.progress import counted
from pinxit.train.build import Parts, text_columns_for
from pinxit.train.datasets import Dataset, Split, dataset_fingerprint, load_examples
from pinxit.train.display import Display
from pinxit.train.input.encode_chunk import chunk_size
from pinxit.train.input.feed import Feed
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import TrainConfig


class InMemoryFeed(Feed):
    """Rows that are drawn by code, encoded once, and kept in memory."""

    def __init__(
        self, config: TrainConfig, parts: Parts, folder: RunFolder, display: Display
    ) -> None:
        """Draws and encodes the rows, or reads them from the cache in `folder`."""
        self.config = config
        self.text = text_columns_for(config, parts)
        examples = self._examples(config.dataset_size, "train")
        prepare = partial(
            prepare_rows,
            examples,
            about={
                "dataset": config.dataset_name,
                "code": dataset_fingerprint(config.dataset_name, examples),
                "image_size": config.image_size,
                "seed": config.seed,
            },
            autoencoder=parts.autoencoder if config.encodes_ahead else None,
            text=self.text,
            cache=folder.cache,
            track=display.track,
            say=display.say,
        )
        if several():
            # the others find in the cache what the first one makes, where they see the same folder
            alone(lambda: len(prepare()))
        rows = prepare()
        self.text_columns = rows.arrays
        part = local_rows(parts.mesh, config.batch_size)
        self.loader = Loader(rows, batch_size=config.batch_size, seed=config.seed, part=part)

    def _examples(self, count: int, split: Split) -> Dataset:
        """Returns the first `count` rows of a split."""
        config = self.config
        return load_examples(
            config.dataset_name,
            count,
            image_size=config.image_size,
            seed=config.seed,
            split=split,
        )

    def held_out(self) -> list[Example]:
        """Returns the first rows of the held-out split, as many as the settings ask for."""
        count = self.config.evaluation.images
        examples = self._examples(count, "heldout")
        return [examples[row] for row in range(count)]

    def position(self, step: int) -> int:
        """Returns the step: batches follow from it."""
        return step


def cache_name(about: dict[str, Any], autoencoder: Autoencoder | None) -> str:
    """Returns the hash that names a set of encoded rows."""
    digest = hashlib.sha256(json.dumps(about | {"pillow": PIL.__version__}).encode())
    if autoencoder is not None:
        digest.update(repr(autoencoder.stats).encode())
        digest.update(fingerprint_of_outputs(autoencoder.params).encode())
    return digest.hexdigest()[:24]


def _chunks(examples: Dataset, size: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yields images and captions, `size` rows at a time, drawn by threads one chunk ahead."""
    starts = range(0, len(examples), size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def submit(start: int) -> list[Any]:
            rows = range(start, min(start + size, len(examples)))
            return [pool.submit(examples.__getitem__, row) for row in rows]

        waiting = submit(0)
        for start in starts:
            following = submit(start + size)
            drawn = [future.result() for future in waiting]
            yield np.stack([row.image for row in drawn]), [row.caption for row in drawn]
            waiting = following


def _encode(
    examples: Dataset, autoencoder: Autoencoder | None, track: Track
) -> tuple[np.ndarray, list[str]]:
    """Returns latents (float32), or images (uint8) without an autoencoder, and captions."""
    arrays: list[np.ndarray] = []
    captions: list[str] = []
    encode = jax.jit(autoencoder.encode) if autoencoder is not None else None
    params = autoencoder.params if autoencoder is not None else None
    size = chunk_size(examples[0].image.shape[0])
    job = "encoding {} with the VAE" if encode is not None else "reading {}"
    text = job.format(counted(len(examples), "image"))
    for images, texts in track(_chunks(examples, size), text, -(-len(examples) // size)):
        captions += texts
        if encode is not None:
            latents = encode(params, to_pixels(padded(images, size)))
            images = np.asarray(latents)[: len(images)]
        arrays.append(images)
    return np.concatenate(arrays), captions


def _load(folder: Path, rows: int) -> tuple[np.ndarray, list[str]] | None:
    """Reads what `_store` wrote, or returns None."""
    try:
        array = np.load(folder / "array.npy", allow_pickle=False)
        captions = json.loads((folder / "captions.json").read_text())
    except (OSError, ValueError):
        return None
    return (array, captions) if len(array) == len(captions) == rows else None


def _store(folder: Path, array: np.ndarray, captions: list[str]) -> None:
    """Writes the folder, whole or not at all."""
    with whole_folder(folder) as temporary:
        np.save(temporary / "array.npy", array)
        (temporary / "captions.json").write_text(json.dumps(captions))


def prepare_rows(
    examples: Dataset,
    *,
    about: dict[str, Any],
    autoencoder: Autoencoder | None,
    text: TextColumns,
    cache: Path,
    track: Track,
    say: Callable[[str], None] = lambda line: None,
) -> ArrayRows:
    """Returns the rows a run trains on: latents or images, and the columns of `text`."""
    folder = cache / cache_name(about | {"rows": len(examples)}, autoencoder)
    encoded = _load(folder, len(examples))
    if encoded is None:
        encoded = _encode(examples, autoencoder, track)
        _store(folder, *encoded)
    array, captions = encoded
    if cut := text.truncated(captions):
        say(
            f"warning: {cut} of {len(captions)} captions are longer than the "
            f"{text.text_encoder.max_tokens} tokens that the text encoder reads; the rest is lost"
        )
    columns = text.columns(captions, folder=cache, track=track)
    return ArrayRows({image_column(autoencoder is not None): array, **columns})
