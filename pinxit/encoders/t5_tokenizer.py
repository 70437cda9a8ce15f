"""T5's tokenizer: it splits a caption into its most probable pieces (unigram model: Kudo 2018,
arXiv:1804.10959). It is read from ``tokenizer.json`` or from SentencePiece's ``spiece.model``.

A caption is normalised with the table in the model (NFKC, and every white space becomes a space)
and split at white space. Each word is prefixed with ``\\u2581``, which stands for a space, and
split into the pieces with the largest sum of scores. The row

    piece ... piece </s> <pad> ... <pad>

has exactly the requested length. A longer caption loses its tail, but its row still ends in
``</s>``. The empty prompt is ``</s>`` alone. In the vocabulary, the pieces of the model are
followed by T5's hundred ``<extra_id_N>``, in descending order of N.

A ``spiece.model`` is a protocol buffer message. Only a few fields are needed, so they are parsed
here without another library.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from pinxit.config import UsageError
from pinxit.encoders import weights
from pinxit.encoders.clip_tokenizer import read_tokenizer_json
from pinxit.lfs_pointer import pointer_problem

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"
SPACE = "\u2581"
EXTRA_IDS = 100
FILES = ("tokenizer.json", "spiece.model", "tokenizer_config.json")
"""The files of a tokenizer's directory that are read here, if they exist."""

UNIGRAM = 1
ALGORITHMS = {UNIGRAM: "unigram", 2: "bpe", 3: "word", 4: "char"}
"""The values of ``TrainerSpec.model_type``."""
UNKNOWN_PIECE, CONTROL_PIECE, USER_PIECE = 2, 3, 4
"""The values of ``SentencePiece.type``, except 1 for an ordinary piece."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""The wire types of protocol buffer fields, which are the low three bits of a field's tag."""


@dataclass(frozen=True)
class Piece:
    """An entry of a SentencePiece vocabulary; its id is its index."""

    text: str
    score: float
    """The logarithm of the piece's probability."""
    kind: int = 1


@dataclass(frozen=True)
class SentencePieceModel:
    """The contents of a ``spiece.model`` that are needed here."""

    pieces: list[Piece]
    algorithm: int
    charsmap: bytes
    """The compiled normalisation table, or empty if the model does not normalise."""


def load_t5_tokenizer(directory: Path) -> Tokenizer:
    """Reads a tokenizer that appends ``</s>`` and pads, but does not truncate yet."""
    if (directory / "tokenizer.json").is_file():
        tokenizer = _from_json(directory / "tokenizer.json")
    elif (directory / "spiece.model").is_file():
        settings = directory / "tokenizer_config.json"
        value = weights.read_config(settings) if settings.is_file() else {}
        extra_ids = value.get("extra_ids", EXTRA_IDS)
        if type(extra_ids) is not int or extra_ids < 0:
            raise UsageError(f"{settings}: extra_ids is {extra_ids!r}; it must be at least 0")
        tokenizer = _from_model(directory / "spiece.model", extra_ids=extra_ids)
    else:
        raise UsageError(f"{directory} has neither tokenizer.json nor spiece.model")
    tokenizer.no_truncation()
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD)
    return tokenizer


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Reads the vocabulary and the normalisation table of a ``spiece.model``."""
    pieces, algorithm, charsmap = [], UNIGRAM, b""
    if problem := pointer_problem(path):
        raise UsageError(problem)
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                pieces.append(_piece(_nested(value)))
            elif number == 2:
                algorithm = int(dict(_fields(_nested(value))).get(3, UNIGRAM))
            elif number == 3:
                charsmap = _nested(dict(_fields(_nested(value))).get(2, b""))
    except (ValueError, TypeError, struct.error) as error:
        raise UsageError(f"{path} is not a complete SentencePiece model: {error}") from error
    if not pieces:
        raise UsageError(f"{path} is not a complete SentencePiece model: it has no pieces")
    return SentencePieceModel(pieces, algorithm, charsmap)


def _from_json(path: Path) -> Tokenizer:
    model = weights.read_config(path).get("model")
    kind = model.get("type", "Unigram") if isinstance(model, dict) else None
    if kind != "Unigram":
        raise UsageError(f"{path}: the model's type is {kind!r}; T5 requires 'Unigram'")
    tokenizer = read_tokenizer_json(path)
    _check_vocabulary(path, tokenizer)
    eos = tokenizer.token_to_id(EOS)
    if tokenizer.encode("").ids != [eos]:
        raise UsageError(f"{path} does not append {EOS!r} to a caption's tokens")
    return tokenizer


def _from_model(path: Path, *, extra_ids: int) -> Tokenizer:
    model = read_sentencepiece(path)
    if model.algorithm != UNIGRAM:
        name = ALGORITHMS.get(model.algorithm, model.algorithm)
        raise UsageError(f"{path}: the model's algorithm is {name!r}; T5 requires 'unigram'")
    extra = [f"<extra_id_{i}>" for i in reversed(range(extra_ids))]
    entries = [(piece.text, piece.score) for piece in model.pieces]
    unknown = [i for i, piece in enumerate(model.pieces) if piece.kind == UNKNOWN_PIECE]
    if len(unknown) != 1:
        raise UsageError(f"{path} has {len(unknown)} unknown-token pieces; T5 requires one")
    vocabulary = [*entries, *((name, 0.0) for name in extra)]
    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=unknown[0], byte_fallback=False))
    _check_vocabulary(path, tokenizer)
    if model.charsmap:
        tokenizer.normalizer = normalizers.Precompiled(model.charsmap)
    mark = {"replacement": SPACE, "prepend_scheme": "always"}
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**mark)]
    )
    tokenizer.decoder = decoders.Metaspace(**mark)
    control = [piece.text for piece in model.pieces if piece.kind == CONTROL_PIECE]
    special = [*control, PAD, EOS, UNKNOWN, *extra]
    user = [piece.text for piece in model.pieces if piece.kind == USER_PIECE]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in user])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return tokenizer


def _check_vocabulary(path: Path, tokenizer: Tokenizer) -> None:
    absent = [name for name in (PAD, EOS, UNKNOWN) if tokenizer.token_to_id(name) is None]
    if absent:
        raise UsageError(f"{path}: the vocabulary lacks {', '.join(absent)}")


def _piece(message: bytes) -> Piece:
    fields = dict(_fields(message))
    (score,) = struct.unpack("<f", _nested(fields.get(2, bytes(4))))
    return Piece(_nested(fields.get(1, b"")).decode("utf-8"), score, int(fields.get(3, 1)))


def _nested(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a field that must be bytes is a number")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields the number and value of each field: an int for a varint, otherwise the raw bytes."""
    offset = 0
    while offset < len(message):
        tag, offset = _varint(message, offset)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, offset = _varint(message, offset)
            yield number, value
            continue
        if kind == BYTES:
            size, offset = _varint(message, offset)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"the field before byte {offset} is of unknown kind {kind}")
        if offset + size > len(message):
            raise ValueError(f"a field of {size} bytes at byte {offset} is cut short")
        yield number, message[offset : offset + size]
        offset += size


def _varint(message: bytes, offset: int) -> tuple[int, int]:
    """Reads a number in groups of seven bits, lowest first; also returns the offset after it."""
    number = 0
    for shift in range(0, 70, 7):
        if offset >= len(message):
            raise ValueError("the file ends in the middle of a number")
        byte = message[offset]
        number |= (byte & 0x7F) << shift
        offset += 1
        if byte < 0x80:
            return number, offset
    raise ValueError(f"the number before byte {offset} is too long")
