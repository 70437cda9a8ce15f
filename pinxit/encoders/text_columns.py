"""Captions as columns of the training data: token ids, or embeddings encoded once.

A CLIP embedding is many times larger than a latent and cheap to compute, so captions are kept as
token ids and encoded inside the step. T5 is what is worth keeping: its embeddings are computed
before training, cut to the longest caption's real tokens, as float16. Of two encoders joined, each
has its own columns, and the step joins their outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from pinxit.arrays import Conditioning, TextEncoder
from pinxit.config import UsageError
from pinxit.encoders.fingerprint import fingerprint_of_outputs
from pinxit.encoders.joint_text_encoder import join
from pinxit.files import whole_folder
from pinxit.fixed_batches import padded
from pinxit.progress import counted

CHUNK = 64
"""Captions encoded together."""
MULTIPLE = 8
"""Rows of tokens are cut to a multiple of this."""
Track = Callable[[Iterable[Any], str, int], Iterator[Any]]


class TextColumns:
    """How one text encoder's captions are stored, and read back inside the step."""

    def __init__(
        self, text_encoder: TextEncoder, *, cache: bool | Sequence[bool] | None = None
    ) -> None:
        """`cache` says which parts' embeddings are columns: all, none, or one by one."""
        self.text_encoder = text_encoder
        self.parts = text_encoder.parts
        if cache is None:
            cache = [part.cacheable for part in self.parts]
        self.cached = [cache] * len(self.parts) if isinstance(cache, bool) else list(cache)
        self._apply = [jax.jit(part.apply) for part in self.parts]

    @property
    def stored_width(self) -> int:
        """The width of the embeddings that are stored, of all parts together; 0 where none are."""
        pairs = zip(self.parts, self.cached, strict=True)
        return sum(part.width for part, cached in pairs if cached)

    def truncated(self, captions: Sequence[str]) -> int:
        """How many captions lose their end."""
        return int(np.sum(self.text_encoder.truncated(captions)))

    def columns(
        self, captions: Sequence[str], *, folder: Path, track: Track
    ) -> dict[str, np.ndarray]:
        """One row per caption: ``token_ids`` of the parts that run in the step, ``text_tokens``
        and ``text_mask`` of those that are kept; the names of a second part end in ``_1``."""
        arrays: dict[str, np.ndarray] = {}
        for i, (part, cached) in enumerate(zip(self.parts, self.cached, strict=True)):
            ids = part.tokenize(captions)
            ids = ids[:, : longest(part, ids)]
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
        """As `columns`, but as long as the encoders read, whatever the captions, and computed now,
        `chunk` at a time: for rows that nobody knows beforehand. Not the parts `without`.

        Embeddings beyond the range of float16 are cut to it.
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
                some = padded(ids[start : start + chunk], chunk)
                pieces.append(self._apply[i](part.params, some))
            limit = np.finfo(np.float16).max
            tokens = np.concatenate([np.asarray(p.tokens, np.float32) for p in pieces])[: len(ids)]
            arrays[name_of("text_tokens", i)] = tokens.clip(-limit, limit).astype(np.float16)
            mask = np.concatenate([np.asarray(piece.mask) for piece in pieces])
            arrays[name_of("text_mask", i)] = mask[: len(ids)]
        return arrays

    def frozen(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """What the step needs besides its rows: weights of the parts that run in it, and the
        encoded empty prompt, as long as the rows of `arrays`."""
        weights, empty = {}, {}
        for i, (part, cached) in enumerate(zip(self.parts, self.cached, strict=True)):
            ids = part.tokenize([""])
            length = arrays[name_of("text_mask" if cached else "token_ids", i)].shape[1]
            if cached:
                encoded = self._apply[i](part.params, ids[:, :length])
                empty[name_of("text_tokens", i)] = encoded.tokens
                empty[name_of("text_mask", i)] = encoded.mask
            else:
                empty[name_of("token_ids", i)] = ids[:, :length]
                weights[str(i)] = part.params
        null = jax.jit(self.conditioning)({"text": weights}, empty)
        return {"text": weights, "null": null}

    def conditioning(self, frozen: Any, raw: dict[str, Any]) -> Conditioning:
        """From a batch's columns. Pure and jittable."""
        outputs = []
        for i, (part, cached) in enumerate(zip(self.parts, self.cached, strict=True)):
            if cached:
                tokens = jnp.asarray(raw[name_of("text_tokens", i)]).astype(jnp.float32)
                outputs.append(Conditioning(tokens, raw[name_of("text_mask", i)]))
            else:
                ids = raw[name_of("token_ids", i)]
                outputs.append(part.apply(frozen["text"][str(i)], ids))
        return outputs[0] if len(outputs) == 1 else join(*outputs)


def longest(text_encoder: TextEncoder, token_ids: Int[np.ndarray, "n l"]) -> int:
    """How many leading columns hold everything that some row's mask keeps (a multiple of 8)."""

    @jax.jit
    def most(params: Any, ids: Any) -> Any:
        # only the mask is asked for, so the compiler leaves the network out
        return text_encoder.apply(params, ids).mask.sum(axis=1).max()

    chunks = (token_ids[i : i + 4096] for i in range(0, len(token_ids), 4096))
    length = max(int(most(text_encoder.params, chunk)) for chunk in chunks)
    return min(-(-length // MULTIPLE) * MULTIPLE, token_ids.shape[1])


def _stored(
    part: TextEncoder, token_ids: Int[np.ndarray, "n l"], *, folder: Path, track: Track
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (float16, mapped from the disk) and masks, encoded unless they are there."""
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
        some = np.asarray(output.tokens, np.float32)[: len(ids)]
        if (peak := np.abs(some).max()) > np.finfo(np.float16).max:
            raise UsageError(
                f"cache_text: the text encoder's output reaches {peak:.3g}, beyond float16; "
                "set cache_text to 0"
            )
        tokens[start : start + CHUNK] = some
        mask[start : start + CHUNK] = np.asarray(output.mask)[: len(ids)]
    tokens.flush()
    np.save(folder / "mask.npy", mask)


def name_of(column: str, part: int) -> str:
    """A column's name, for the first part and the others."""
    return column if part == 0 else f"{column}_{part}"
