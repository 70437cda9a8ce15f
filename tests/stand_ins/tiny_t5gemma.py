"""A minute T5Gemma and a ``tokenizer.json`` in the form of Gemma's, for the tests here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax

from pinxit.encoders import t5gemma
from pinxit.encoders.t5gemma import T5GemmaConfig

SPACE = "\u2581"
WORDS = ["a", "small", "red", "house", "under", "the", "moon", "photo", "of", "cat"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDE0123456789.,!?'-\u00e9\u00fc"
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
ADDED = ["<start_of_turn>", "<end_of_turn>", "\n\n", "\t", SPACE * 2, "<table>"]
SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "query_pre_attn_scalar": 5,
    "sliding_window": 7,
    "attn_logit_softcapping": 2.0,
    "max_position_embeddings": 64,
}
"""A head's width is not the hidden size over the heads, the window is shorter than a row, and the
soft cap is reached."""
GEMMA_SETTINGS: dict[str, Any] = {
    "add_bos_token": False,
    "add_eos_token": False,
    "bos_token": "<bos>",
    "eos_token": {"__type": "AddedToken", "content": "<eos>", "lstrip": False},
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "model_max_length": 256,
    "padding_side": "right",
    "tokenizer_class": "GemmaTokenizer",
}
"""A ``tokenizer_config.json`` like that of the PRX models."""


def gemma_merges() -> list[list[str]]:
    """The merges that build each word with its space, from left to right."""
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        whole = SPACE + word
        for end in range(1, len(whole)):
            merges[whole[:end], whole[end]] = None
    return [list(pair) for pair in merges]


def gemma_tokenizer() -> dict[str, Any]:
    """The contents of a ``tokenizer.json``: byte fallback, spaces replaced, and a template."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    merges = gemma_merges()
    pieces = [*SPECIAL, *ADDED, *bytes_, SPACE, *LETTERS, *(a + b for a, b in merges)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    special = {*SPECIAL, "<start_of_turn>", "<end_of_turn>"}
    added = [
        {"id": vocab[token], "content": token, **flags, "special": token in special}
        for token in [*SPECIAL, *ADDED]
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": template("<bos>", "$A"),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def template(*tokens: str) -> dict[str, Any]:
    """A post-processor that puts these tokens around the caption, which is ``$A``."""
    ids = {name: SPECIAL.index(name) for name in tokens if name != "$A"}
    parts: list[dict[str, Any]] = [
        {"Sequence": {"id": "A", "type_id": 0}}
        if name == "$A"
        else {"SpecialToken": {"id": name, "type_id": 0}}
        for name in tokens
    ]
    return {
        "type": "TemplateProcessing",
        "single": parts,
        "pair": [*parts, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ids.items()
        },
    }


def write_tokenizer(
    directory: Path, settings: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """Writes ``tokenizer.json``, with `changes`, and ``tokenizer_config.json``."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(gemma_tokenizer() | changes, ensure_ascii=False)
    (directory / "tokenizer.json").write_text(text, encoding="utf-8")
    about = GEMMA_SETTINGS if settings is None else settings
    (directory / "tokenizer_config.json").write_text(json.dumps(about))
    return directory


def write_t5gemma(directory: Path, settings: dict[str, Any] | None = None, **sizes: Any) -> Path:
    """Writes a flat directory: config, weights with scales that matter, and the tokenizer."""
    config = T5GemmaConfig(**SIZES | sizes)
    params = t5gemma.init_t5gemma(config, jax.random.key(3))
    keys = iter(jax.random.split(jax.random.key(4), 200))
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), params)
    t5gemma.save_t5gemma(directory, params, config)
    return write_tokenizer(directory, settings)
