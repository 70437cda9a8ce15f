"""T5's tokenizer: the likeliest cut of a caption into pieces (unigram model: Kudo 2018,
arXiv:1804.10959), read from ``tokenizer.json`` or from SentencePiece's own ``spiece.model``.

A caption is normalised by the table that the model carries (NFKC and all white space to spaces),
cut at white space, and each word is led by ``\\u2581``, the mark of a space. A word becomes the
pieces with the largest sum of scores. The row

    piece ... piece </s> <pad> ... <pad>

has exactly as many entries as asked for; a longer caption loses its tail and keeps its ``</s>``.
The empty prompt is ``</s>`` alone. After the pieces of the model come T5's hundred
``<extra_id_N>``, in falling order of N.

A ``spiece.model`` is a protocol buffer message; the few fields needed are read here, without
another library.
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

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"
SPACE = "\u2581"
EXTRA_IDS = 100
FILES = ("tokenizer.json", "spiece.model", "tokenizer_config.json")
"""What a tokenizer's directory may hold that is read here."""

UNIGRAM = 1
ALGORITHMS = {UNIGRAM: "unigram", 2: "bpe", 3: "word", 4: "char"}
"""``TrainerSpec.model_type``."""
UNKNOWN_PIECE, CONTROL_PIECE, USER_PIECE = 2, 3, 4
"""``SentencePiece.type``; 1 is an ordinary piece."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""How a protocol buffer field is stored: the low three bits of its tag."""


@dataclass(frozen=True)
class Piece:
    """An entry of a SentencePiece vocabulary; its id is its place."""

    text: str
    score: float
    """Logarithm of its probability."""
    kind: int = 1


@dataclass(frozen=True)
class SentencePieceModel:
    """What a ``spiece.model`` says."""

    pieces: list[Piece]
    algorithm: int
    charsmap: bytes
    """The compiled normalisation table; empty where nothing is normalised."""


def load_t5_tokenizer(directory: Path) -> Tokenizer:
    """A tokenizer that appends ``</s>`` and knows its padding; nothing is truncated yet."""
    if (directory / "tokenizer.json").is_file():
        tokenizer = _from_json(directory / "tokenizer.json")
    elif (directory / "spiece.model").is_file():
        settings = directory / "tokenizer_config.json"
        value = weights.read_config(settings) if settings.is_file() else {}
        extra_ids = int(value.get("extra_ids", EXTRA_IDS))
        tokenizer = _from_model(directory / "spiece.model", extra_ids=extra_ids)
    else:
        raise UsageError(f"{directory} has neither tokenizer.json nor spiece.model")
    tokenizer.no_truncation()
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD)
    return tokenizer


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """The vocabulary and the normalisation table of a ``spiece.model``."""
    pieces, algorithm, charsmap = [], UNIGRAM, b""
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                pieces.append(_piece(_nested(value)))
            elif number == 2:
                algorithm = int(dict(_fields(_nested(value))).get(3, UNIGRAM))
            elif number == 3:
                charsmap = _nested(dict(_fields(_nested(value))).get(2, b""))
    except (ValueError, TypeError, struct.error) as error:
        raise UsageError(f"{path} is not a whole SentencePiece model: {error}") from error
    if not pieces:
        raise UsageError(f"{path} is not a whole SentencePiece model: it has no pieces")
    return SentencePieceModel(pieces, algorithm, charsmap)


def _from_json(path: Path) -> Tokenizer:
    model = weights.read_config(path).get("model")
    kind = model.get("type", "Unigram") if isinstance(model, dict) else None
    if kind != "Unigram":
        raise UsageError(f"{path}: the model's type is {kind!r}; T5 has 'Unigram'")
    tokenizer = Tokenizer.from_file(str(path))
    _check_vocabulary(path, tokenizer)
    eos = tokenizer.token_to_id(EOS)
    if tokenizer.encode("").ids != [eos]:
        raise UsageError(f"{path} does not append {EOS!r} to a row")
    return tokenizer


def _from_model(path: Path, *, extra_ids: int) -> Tokenizer:
    model = read_sentencepiece(path)
    if model.algorithm != UNIGRAM:
        name = ALGORITHMS.get(model.algorithm, model.algorithm)
        raise UsageError(f"{path}: the model's algorithm is {name!r}; T5 has 'unigram'")
    extra = [f"<extra_id_{i}>" for i in reversed(range(extra_ids))]
    entries = [(piece.text, piece.score) for piece in model.pieces]
    unknown = [i for i, piece in enumerate(model.pieces) if piece.kind == UNKNOWN_PIECE]
    if len(unknown) != 1:
        raise UsageError(f"{path} has {len(unknown)} pieces for the unknown; T5 has one")
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
        raise UsageError(f"{path}: the vocabulary lacks {absent}")


def _piece(message: bytes) -> Piece:
    fields = dict(_fields(message))
    (score,) = struct.unpack("<f", _nested(fields.get(2, bytes(4))))
    return Piece(_nested(fields.get(1, b"")).decode("utf-8"), score, int(fields.get(3, 1)))


def _nested(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes belong")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: an int for a varint, otherwise the bytes as they are."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == BYTES:
            size, place = _varint(message, place)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"byte {place} starts a field of unknown kind {kind}")
        if place + size > len(message):
            raise ValueError(f"a field of {size} bytes at byte {place} is cut short")
        yield number, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """The number stored in groups of seven bits, lowest first, and the place after it."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("the end of the file cuts a number short")
        byte = message[place]
        number |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return number, place
    raise ValueError(f"the number before byte {place} is too long")
