"""Captions as columns of the training data: token ids, or embeddings that are computed once.

A CLIP embedding is many times larger than a latent and cheap to compute, so for CLIP the captions
are stored as token ids and encoded inside the training step. T5 and T5Gemma are expensive, so their
embeddings are computed before training and stored as float16, cut to the length of the longest
caption. If two encoders are joined, each has its own columns, and the step joins their outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from pinxit.arrays import Conditioning, TextEncoder
from pinxit.config import UsageError
from pinxit.encoders.fingerprint import fingerprint_of_outputs
from pinxit.encoders.joint_text_encoder import join
from pinxit.files import whole_folder
from pinxit.fixed_batches import padded
from pinxit.progress import counted

CHUNK = 64
"""The number of captions that are encoded together."""
MULTIPLE = 8
"""The lengths of stored rows are rounded up to a multiple of this."""
Track = Callable[[Iterable[Any], str, int], Iterator[Any]]


class TextColumns:
    """Stores captions for one text encoder, and reads them back inside the training step."""

    def __init__(
        self, text_encoder: TextEncoder, *, cache: bool | Sequence[bool] | None = None
    ) -> None:
        """Makes the columns of one text encoder.

        `cache` decides whether embeddings are stored: True for all parts of the encoder, False for
        none, or one value per part. By default each part's `cacheable` decides.
        """
        self.text_encoder = text_encoder
        self.parts = text_encoder.parts
        if cache is None:
            cache = [part.cacheable for part in self.parts]
        self.cached = [cache] * len(self.parts) if isinstance(cache, bool) else list(cache)
        self._apply = [jax.jit(part.apply) for part in self.parts]

    @property
    def stored_width(self) -> int:
        """The summed width of the parts whose embeddings are stored; 0 if there are none."""
        pairs = zip(self.parts, self.cached, strict=True)
        return sum(part.width for part, cached in pairs if cached)

    def truncated(self, captions: Sequence[str]) -> int:
        """Returns how many captions lose their tail."""
        return int(np.sum(self.text_encoder.truncated(captions)))

    def columns(
        self, captions: Sequence[str], *, folder: Path, track: Track
    ) -> dict[str, np.ndarray]:
        """Returns columns with one row per caption.

        A part that runs in the step has the column ``token_ids``. A part whose embeddings are
        stored has ``text_tokens`` and ``text_mask``. The column names of a second part end in
        ``_1``.
        """
        arrays: dict[str, np.ndarray] = {}
        for i, (part, cached) in enumerate(zip(self.parts, self.cached, strict=True)):
            ids = part.tokenize(captions)
            masks = _masks(part, ids)
            ids = without_padding(ids, masks, longest(masks))
            if not cached:
                arrays[name_of("token_ids", i)] = ids
                continue
            tokens, mask = _stored(part, ids, folder=folder, track=track)
            arrays[name_of("text_tokens", i)] = tokens
            arrays[name_of("text_mask", i)] = mask
        return arrays

    def whole(
        self, captions: Sequence[str], *, chunk: int = CHUNK, without: Container[int] = ()
    ) -> dict[str, np.ndarray]:
        """Returns the same columns as `columns`, at full length and without a cache on disk.

        This is for captions that are not known in advance. Rows have the length that the encoders
        read, independent of the captions. `chunk` captions are encoded at a time, and the parts
        whose indices are in `without` are omitted. Embeddings beyond the range of float16 are
        clipped to it.
        """
        arrays: dict[str, np.ndarray] = {}
        for i, (part, cached) in enumerate(zip(self.parts, self.cached, strict=True)):
            if i in without:
                continue
            ids = part.tokenize(captions)
            if not cached:
                arrays[name_of("token_ids", i)] = ids
                continue
            pieces = []
            for start in range(0, len(ids), chunk):
                rows = padded(ids[start : start + chunk], chunk)
                pieces.append(self._apply[i](part.params, rows))
            limit = np.finfo(np.float16).max
            tokens = np.concatenate([np.asarray(p.tokens, np.float32) for p in pieces])[: len(ids)]
            arrays[name_of("text_tokens", i)] = tokens.clip(-limit, limit).astype(np.float16)
            mask = np.concatenate([np.asarray(piece.mask) for piece in pieces])
            arrays[name_of("text_mask", i)] = mask[: len(ids)]
        return arrays

    def frozen(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Returns the constant inputs of the step.

        They are the weights of the parts that run in the step (``text``), and the encoded empty
        prompt (``null``), as long as the rows of `arrays`.
        """
        weights, empty = {}, {}
        for i, (part, cached) in enumerate(zip(self.parts, self.cached, strict=True)):
            ids = part.tokenize([""])
            length = arrays[name_of("text_mask" if cached else "token_ids", i)].shape[1]
            if length < ids.shape[1]:
                ids = without_padding(ids, _masks(part, ids), length)
            if cached:
                encoded = self._apply[i](part.params, ids)
                empty[name_of("text_tokens", i)] = encoded.tokens
                empty[name_of("text_mask", i)] = encoded.mask
            else:
                empty[name_of("token_ids", i)] = ids
                weights[str(i)] = part.params
        null = jax.jit(self.conditioning)({"text": weights}, empty)
        return {"text": weights, "null": null}

    def conditioning(self, frozen: Any, raw: dict[str, Any]) -> Conditioning:
        """Returns the conditioning for the columns `raw` of a batch. Pure and jittable."""
        outputs = []
        for i, (part, cached) in enumerate(zip(self.parts, self.cached, strict=True)):
            if cached:
                tokens = jnp.asarray(raw[name_of("text_tokens", i)]).astype(jnp.float32)
                outputs.append(Conditioning(tokens, raw[name_of("text_mask", i)]))
            else:
                ids = raw[name_of("token_ids", i)]
                outputs.append(part.apply(frozen["text"][str(i)], ids))
        return outputs[0] if len(outputs) == 1 else join(*outputs)


def longest(masks: Bool[np.ndarray, "n l"]) -> int:
    """Returns the largest number of tokens that a row's mask keeps, rounded up to a multiple of 8.

    The result is at most the length of the rows, and at least 1, even if no row has a token.
    """
    length = max(1, int(masks.sum(axis=1).max(initial=0)))
    return min(-(-length // MULTIPLE) * MULTIPLE, masks.shape[1])


def without_padding(
    token_ids: Int[np.ndarray, "n l"], masks: Bool[np.ndarray, "n l"], length: int
) -> Int[np.ndarray, "n k"]:
    """Returns `length` columns of the rows: the first, or the last if the padding comes first.

    `length` must be at least `longest`, so that only padding is left out.
    """
    if length >= token_ids.shape[1]:
        return token_ids
    return token_ids[:, -length:] if masks[:, length:].any() else token_ids[:, :length]


def _masks(text_encoder: TextEncoder, token_ids: Int[np.ndarray, "n l"]) -> Bool[np.ndarray, "n l"]:
    """Returns the masks of the rows, which are computed 4096 at a time."""

    @jax.jit
    def mask_of(params: Any, ids: Any) -> Any:
        # Only the mask is used, so the compiler removes the network.
        return text_encoder.apply(params, ids).mask

    rows = len(token_ids)
    size = max(min(rows, 4096), 1)
    pieces = [
        np.asarray(mask_of(text_encoder.params, padded(token_ids[start : start + size], size)))
        for start in range(0, rows, size)
    ]
    return np.concatenate(pieces)[:rows] if pieces else np.zeros(token_ids.shape, bool)


def _stored(
    part: TextEncoder, token_ids: Int[np.ndarray, "n l"], *, folder: Path, track: Track
) -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings (float16, memory-mapped) and masks; encodes them if no file has them."""
    digest = hashlib.sha256(fingerprint_of_outputs(part.params).encode())
    digest.update(repr(token_ids.shape).encode() + token_ids.tobytes())
    folder = folder / f"text_{digest.hexdigest()[:24]}"
    if not folder.is_dir():
        with whole_folder(folder) as temporary:
            _encode(part, token_ids, temporary, track)
    tokens = np.load(folder / "tokens.npy", mmap_mode="r", allow_pickle=False)
    return tokens, np.load(folder / "mask.npy", allow_pickle=False)


def _encode(
    part: TextEncoder, token_ids: Int[np.ndarray, "n l"], folder: Path, track: Track
) -> None:
    rows, length = token_ids.shape
    shape = (rows, length, part.width)
    tokens = np.lib.format.open_memmap(
        folder / "tokens.npy", mode="w+", dtype=np.float16, shape=shape
    )
    mask = np.zeros((rows, length), bool)
    apply = jax.jit(part.apply)
    starts = range(0, rows, CHUNK)
    text = f"encoding {counted(rows, 'caption')} with the text encoder"
    for start in track(starts, text, len(starts)):
        ids = token_ids[start : start + CHUNK]
        output = apply(part.params, padded(ids, CHUNK))
        embeddings = np.asarray(output.tokens, np.float32)[: len(ids)]
        if (peak := np.abs(embeddings).max()) > np.finfo(np.float16).max:
            raise UsageError(
                f"cache_text: the text encoder's output reaches {peak:.3g}, beyond the range of "
                "float16; set cache_text to 0"
            )
        tokens[start : start + CHUNK] = embeddings
        mask[start : start + CHUNK] = np.asarray(output.mask)[: len(ids)]
    tokens.flush()
    np.save(folder / "mask.npy", mask)


def name_of(column: str, part: int) -> str:
    """Returns the name of a part's column: with the part's index, except for the first part."""
    return column if part == 0 else f"{column}_{part}"
