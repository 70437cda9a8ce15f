"""A minute T5 and its vocabulary, and SentencePiece's file format, for the tests here."""

from __future__ import annotations

import struct

WORDS = ["a", "small", "red", "house", "under", "the", "moon"]
LETTERS = "abcdefghijklmnopqrstuvwxyz.,!"
SIZES = {
    "vocab_size": 192,
    "d_model": 12,
    "d_kv": 4,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
}


def t5_pieces() -> list[tuple[str, float, int]]:
    """Text, score and kind of the pieces of a small vocabulary."""
    special = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2)]
    words = [(f"\u2581{word}", -2.0 - i / 4, 1) for i, word in enumerate(WORDS)]
    letters = [(letter, -9.0 - i / 4, 1) for i, letter in enumerate(["\u2581", *LETTERS])]
    return special + words + letters


def field(number: int, value: int | float | bytes) -> bytes:
    """A protocol buffer field."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def sentencepiece_model(pieces: list[tuple[str, float, int]], *, algorithm: int = 1) -> bytes:
    """The bytes of a ``spiece.model``, with fields that Pinxit does not read among the others."""
    entries = [
        field(1, field(1, text.encode()) + field(2, score) + field(3, kind))
        for text, score, kind in pieces
    ]
    trainer = field(1, b"captions.txt") + field(3, algorithm) + field(10, 0.9995)
    normaliser = field(1, b"identity") + field(2, b"")
    return b"".join(entries) + field(2, trainer) + field(3, normaliser)
