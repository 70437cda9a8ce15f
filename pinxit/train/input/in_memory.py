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
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL

import pinxit.data
from pinxit.arrays import Autoencoder, Batch, Conditioning, to_pixels
from pinxit.data.loader import ArrayRows
from pinxit.encoders.fingerprint import fingerprint_of_outputs
from pinxit.encoders.text_columns import TextColumns
from pinxit.train.datasets import Examples
from pinxit.train.step import EncodeFn, cut, uncut

CHUNK = 64
"""Most images encoded together."""
CHUNK_PIXELS = CHUNK * 64 * 64
"""Most pixels encoded together: an autoencoder's memory goes with them."""
Track = Callable[[Iterable[Any], str, int], Iterator[Any]]


def fingerprint(about: dict[str, Any], autoencoder: Autoencoder | None) -> str:
    """The hash that names a set of encoded rows."""
    digest = hashlib.sha256(json.dumps(about | {"pillow": PIL.__version__}).encode())
    for path in sorted(Path(pinxit.data.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    if autoencoder is not None:
        digest.update(repr(autoencoder.stats).encode())
        digest.update(fingerprint_of_outputs(autoencoder.params).encode())
    return digest.hexdigest()[:24]


def chunk_size(image_size: int) -> int:
    """How many images of this side are encoded together."""
    return max(1, min(CHUNK, CHUNK_PIXELS // image_size**2))


def _chunks(examples: Examples, size: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Images and captions, `size` rows at a time, drawn by threads one chunk ahead."""
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
    examples: Examples, autoencoder: Autoencoder | None, track: Track
) -> tuple[np.ndarray, list[str]]:
    """Latents (float32), or images (uint8) without an autoencoder, and captions."""
    arrays: list[np.ndarray] = []
    captions: list[str] = []
    encode = jax.jit(autoencoder.encode) if autoencoder is not None else None
    params = autoencoder.params if autoencoder is not None else None
    size = chunk_size(examples[0].image.shape[0])
    for images, texts in track(_chunks(examples, size), "encoding", -(-len(examples) // size)):
        captions += texts
        if encode is not None:
            padding = size - len(images)
            padded = np.concatenate([images, np.repeat(images[-1:], padding, axis=0)])
            images = np.asarray(encode(params, to_pixels(padded)))[: len(images)]
        arrays.append(images)
    return np.concatenate(arrays), captions


def _load(folder: Path, rows: int) -> tuple[np.ndarray, list[str]] | None:
    """What `_store` wrote, or None."""
    try:
        array = np.load(folder / "array.npy", allow_pickle=False)
        captions = json.loads((folder / "captions.json").read_text())
    except (OSError, ValueError):
        return None
    return (array, captions) if len(array) == len(captions) == rows else None


def _store(folder: Path, array: np.ndarray, captions: list[str]) -> None:
    """Writes the folder, whole or not at all."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True, exist_ok=True)
    np.save(temporary / "array.npy", array)
    (temporary / "captions.json").write_text(json.dumps(captions))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def prepare_rows(
    examples: Examples,
    *,
    about: dict[str, Any],
    autoencoder: Autoencoder | None,
    text: TextColumns,
    cache: Path,
    track: Track,
    say: Callable[[str], None] = lambda line: None,
) -> ArrayRows:
    """The rows a run trains on: ``latents`` or ``images``, and the columns of `text`."""
    folder = cache / fingerprint(about | {"rows": len(examples)}, autoencoder)
    found = _load(folder, len(examples))
    if found is None:
        found = _encode(examples, autoencoder, track)
        _store(folder, *found)
    array, captions = found
    if cut := text.truncated(captions):
        say(
            f"warning: {cut} of {len(captions)} captions are longer than the "
            f"{text.text_encoder.max_tokens} tokens that the text encoder reads; the rest is lost"
        )
    columns = text.columns(captions, folder=cache, track=track)
    return ArrayRows({"latents" if autoencoder else "images": array, **columns})


def frozen_arrays(
    text: TextColumns, columns: dict[str, Any], autoencoder: Autoencoder | None
) -> dict[str, Any]:
    """What the step needs besides its rows: the weights of the encoders that run in it, and the
    encoded empty prompt; `autoencoder` is None where it does not run in it."""
    frozen = text.frozen(columns)
    return frozen if autoencoder is None else {**frozen, "vae": autoencoder.params}


def make_encode(
    text: TextColumns, autoencoder: Autoencoder | None = None, *, chunk: int = 0
) -> EncodeFn:
    """The part of the step before the objective: images to latents, captions to conditioning.

    Images become pixels in [-1, 1], which are the latents of a pixel model, or go through
    `autoencoder`. `chunk` rows are encoded at once (0: all): the memory is theirs.
    """

    def rows(frozen: Any, raw: dict[str, Any]) -> tuple[Any, ...]:
        """Latents and the fields of the conditioning."""
        found = text.conditioning(frozen, raw)
        fields = (found.tokens, found.mask, found.pooled)
        if "latents" in raw:
            return raw["latents"], *fields
        pixels = to_pixels(raw["images"])
        if autoencoder is None:
            return pixels, *fields
        return autoencoder.encode(frozen["vae"], pixels), *fields

    def encode(frozen: Any, raw: dict[str, Any]) -> Batch:
        size = len(raw["index"])
        if not chunk or chunk >= size:
            latents, *fields = rows(frozen, raw)
        else:
            pieces = jax.lax.map(lambda piece: rows(frozen, piece), cut(raw, size // chunk))
            latents, *fields = uncut(pieces)
        return Batch(latents, Conditioning(*fields), raw["index"], frozen["null"])

    return encode
