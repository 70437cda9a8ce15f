"""The second stage of preparation: encodes a shard of images to a shard of latents.

A latent takes 4 to 8 kB where the image takes 30, and the encoder is frozen, so latents are
computed once and stored in float16. Those of a KL autoencoder are the posterior's mean, since its
spread is negligible. A deep compression autoencoder has no posterior.

Text embeddings are many times larger than latents. A small text encoder therefore runs inside the
training step, and only a large one's embeddings are worth storing. They have their own shards
beside the latents: the tokens that the mask keeps and their positions, in float16, or in bfloat16
if a value is beyond its range.

A shard holds the latents of one shape together, in the order of the images. There are several
shapes if the images were put into aspect-ratio buckets. Latents that are not finite are counted and
left out.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Float, UInt8

from pinxit.arrays import Conditioning
from pinxit.data.images.decode import decode_jpeg
from pinxit.data.prepared.manifest import Unfinished
from pinxit.data.prepared.shards import (
    DamagedShard,
    ShardInfo,
    ShardReader,
    pack,
    quarantine,
    shape_name,
    unpack,
    verify_shard,
    write_shard,
)
from pinxit.fixed_batches import batches_by_shape, padded
from pinxit.prepare.ledger import Ledger, UnitRecord
from pinxit.prepare.spool import Spool

EncodeImagesFn = Callable[[UInt8[np.ndarray, "b hi wi 3"]], Float[np.ndarray, "b h w c"]]
"""Encodes images to latents. All batches have one size. A batch's images have one
shape, which may differ between batches."""
EncodeTextFn = Callable[[Sequence[str]], Conditioning]
"""Encodes captions to tokens, mask and pooled vector, on the host."""
NOT_FINITE = "not_finite"


class EncodingStopped(Exception):
    """Raised in place of encoding a unit to its end, when the command is ending."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Encoders:
    """The encoders that the stage calls, in the process that uses them."""

    encode: EncodeImagesFn
    encode_text: EncodeTextFn | None = None


@dataclass(frozen=True)
class StoredImage:
    """One decoded image of a shard."""

    row: int
    """The image's number in the shard."""
    key: str
    caption: str
    meta: dict[str, Any]
    image: UInt8[np.ndarray, "hi wi 3"]


@dataclass
class _Measured:
    """Statistics of the latents and texts that are kept."""

    shapes: dict[str, int] = field(default_factory=dict)
    cells: int = 0
    sum: list[float] = field(default_factory=list)
    square: list[float] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    text: dict[str, Any] | None = None

    def add(self, latents: Float[np.ndarray, "h w c"]) -> None:
        """Adds one latent to the sums."""
        exact = latents.astype(np.float64).reshape(-1, latents.shape[-1])
        sums, squares = exact.sum(axis=0).tolist(), np.square(exact).sum(axis=0).tolist()
        self.sum = [a + b for a, b in zip(self.sum or [0.0] * len(sums), sums, strict=True)]
        self.square = [
            a + b for a, b in zip(self.square or [0.0] * len(sums), squares, strict=True)
        ]
        self.cells += len(exact)
        name = shape_name(latents.shape)
        self.shapes[name] = self.shapes.get(name, 0) + 1

    def plain(self) -> dict[str, Any]:
        """Returns the statistics as plain JSON values, for the unit's record."""
        return {
            "shapes": dict(sorted(self.shapes.items())),
            "cells": self.cells,
            "sum": self.sum,
            "square": self.square,
            NOT_FINITE: self.dropped[:20],
            "text": self.text,
        }


def prepare_latents(
    unit: str,
    out: Path,
    *,
    encoders: Encoders,
    batch_size: int = 64,
    is_stopped: Callable[[], bool] = _never,
) -> UnitRecord:
    """Encodes a unit, unless its latents exist and were images from the same images.

    Returns the unit's record. Raises `Unfinished` if the first stage is not done, and
    `files.DiskFull`. Raises `DamagedShard` if the images' shard is damaged, which is then
    quarantined and which the first stage makes again, and `EncodingStopped` if `is_stopped`, which
    is asked before each batch, returns True.
    """
    first, ledger = Ledger(out, "images"), Ledger(out, "latents")
    images = first.read(unit)
    if images is None:
        raise Unfinished(f"unit {unit}: its images are not prepared in {first.root}")
    info = images.files.get("images")
    source = info.sha256 if info else ""
    before = ledger.done(unit, source=source)
    if before is not None:
        return before
    started = time.monotonic()
    files: dict[str, ShardInfo] = {}
    with Spool(out / "latents") as latents, Spool(out / "latents") as texts:
        encoding = _Encoding(latents, texts)
        if info is not None:
            path = first.root / "images" / info.name
            try:
                verify_shard(path, info)
            except DamagedShard:
                quarantine(path)
                raise
            encoding.run(path, encoders, batch_size, is_stopped)
        for folder, spool in (("latents", latents), ("text", texts)):
            if len(spool):
                shard = ledger.path(folder, unit, generation=images.generation)
                files[folder] = write_shard(shard, (spool[key] for *_, key in encoding.entries))
    counts = {"ok": len(encoding.entries), NOT_FINITE: len(encoding.measured.dropped)}
    record = UnitRecord(
        unit=unit,
        files=files,
        counts={name: count for name, count in counts.items() if count},
        generation=images.generation,
        source=source,
        measured=encoding.measured.plain(),
        seconds=time.monotonic() - started,
    )
    ledger.commit(record)
    return record


@dataclass
class LatentStage:
    """`prepare_latents` as an engine calls it: each process makes the encoders once."""

    out: Path
    make: Callable[[], Encoders]
    """The function that loads the encoders; it must be picklable."""
    batch_size: int = 64
    _encoders: Encoders | None = field(default=None, init=False, repr=False)

    def __call__(self, unit: str, *, is_stopped: Callable[[], bool] = _never) -> UnitRecord:
        if self._encoders is None:
            self._encoders = self.make()
        return prepare_latents(
            unit,
            self.out,
            encoders=self._encoders,
            batch_size=self.batch_size,
            is_stopped=is_stopped,
        )


def stored_images(path: Path, *, ahead: int = 256) -> Iterator[StoredImage]:
    """Yields the images of a shard in order. Threads decode up to `ahead` images in advance."""

    def decode(row: int, record: bytes) -> StoredImage:
        arrays, meta = unpack(record)
        image = decode_jpeg(arrays["jpeg"].tobytes())
        return StoredImage(row, meta.pop("key"), meta.pop("caption"), meta, image)

    waiting: deque[Future[StoredImage]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool, ShardReader(path) as reader:
        for row, record in enumerate(reader):
            waiting.append(pool.submit(decode, row, record))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass
class _Encoding:
    """The latents and texts of one shard of images, while it is encoded."""

    latents: Spool
    texts: Spool
    measured: _Measured = field(default_factory=_Measured)
    entries: list[tuple[str, int, str]] = field(default_factory=list)
    """Shape, row and key of each kept image. Sorted, this is the order of the new shards."""

    def add(
        self, sample: StoredImage, latent: Float[np.ndarray, "h w c"], text: bytes | None
    ) -> None:
        """Adds one latent, and its text if texts are stored."""
        meta = {"key": sample.key, "caption": sample.caption, **sample.meta}
        self.latents[sample.key] = pack({"latents": latent}, meta)
        if text is not None:
            self.texts[sample.key] = text
        self.measured.add(latent)
        self.entries.append((shape_name(latent.shape), sample.row, sample.key))

    def run(
        self, path: Path, encoders: Encoders, batch_size: int, is_stopped: Callable[[], bool]
    ) -> None:
        """Encodes the shard in batches of `batch_size` images."""
        images = stored_images(path, ahead=4 * batch_size)
        for batch in batches_by_shape(images, batch_size, shape=lambda one: one.image.shape):
            if is_stopped():
                raise EncodingStopped(f"{path.name} was not encoded to its end")
            full = padded(batch, batch_size)
            raw = np.asarray(encoders.encode(np.stack([sample.image for sample in full])))
            with np.errstate(over="ignore"):
                latents = raw[: len(batch)].astype(np.float16)
            finite = [bool(np.isfinite(latent).all()) for latent in latents]
            texts: list[bytes | None] = [None] * len(batch)
            if encoders.encode_text is not None:
                encoded = encoders.encode_text([sample.caption for sample in full])
                texts = _texts(encoded, batch, self.measured)
                finite = [
                    fine and text is not None for fine, text in zip(finite, texts, strict=True)
                ]
            for sample, latent, text, is_finite in zip(batch, latents, texts, finite, strict=True):
                if is_finite:
                    self.add(sample, latent, text)
                else:
                    self.measured.dropped.append(sample.key)
        self.measured.dropped.sort()
        self.entries.sort()


def _texts(
    conditioning: Conditioning, batch: Sequence[StoredImage], measured: _Measured
) -> list[bytes | None]:
    """Returns one record for each caption, or None if a value is not finite."""
    tokens = np.asarray(conditioning.tokens)
    mask = np.asarray(conditioning.mask)
    pooled = None if conditioning.pooled is None else np.asarray(conditioning.pooled)
    text = measured.text or {
        "width": tokens.shape[-1],
        "max_tokens": tokens.shape[1],
        "pooled": None if pooled is None else pooled.shape[-1],
        "longest": 0,
        "wide": 0,
    }
    measured.text = text
    records: list[bytes | None] = []
    for number, sample in enumerate(batch):
        positions = np.flatnonzero(mask[number])
        arrays = {"tokens": _narrow(tokens[number, positions])}
        if pooled is not None:
            arrays["pooled"] = _narrow(pooled[number])
        text["wide"] += any(array.dtype != np.float16 for array in arrays.values())
        finite = all(np.isfinite(array.astype(np.float32)).all() for array in arrays.values())
        arrays["positions"] = positions.astype(np.uint16)
        records.append(pack(arrays, {"key": sample.key}) if finite else None)
        if len(positions):
            text["longest"] = max(text["longest"], int(positions[-1]) + 1)
    return records


def _narrow(array: np.ndarray) -> np.ndarray:
    """Converts an array to float16, or to bfloat16 if a value is beyond float16's range."""
    exact = array.astype(np.float32)
    with np.errstate(over="ignore"):
        half = exact.astype(np.float16)
    return half if np.isfinite(half).all() else exact.astype(ml_dtypes.bfloat16)
