"""A kind of text encoder that is read from Hugging Face's files: one record holds all about it.

To add a kind: a file like `t5_text_encoder.py` that ends in a `TextEncoderKind`, and that record's
name in `text_encoder_catalogue.KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.arrays import TextEncoder


@dataclass(frozen=True, kw_only=True)
class TextEncoderKind:
    """An architecture: which files are of it, and what makes an encoder from them."""

    name: str
    """The `kind` of its encoders."""
    model_types: tuple[str, ...]
    """The values of ``model_type`` in the config.json files of this kind."""
    tokenizer_files: tuple[str, ...]
    """The files that its tokenizer may be read from."""
    takes_max_tokens: bool
    """Whether the length of its rows is a setting. Of two joined encoders only such a one gets
    `max_tokens`, if there is one."""
    load: Callable[..., TextEncoder]
    """``load(stored, *, max_tokens, dtype, clean, sharding)`` reads a `StoredEncoder`'s files."""
    abstract: Callable[..., TextEncoder]
    """``abstract(config, *, max_tokens, dtype)`` makes an encoder from the contents of config.json
    alone: its parameters are shapes, so `apply` can be traced, and captions cannot be tokenised."""
    published: Mapping[str, Mapping[str, Any]]
    """The config.json of well-known repositories, so that `abstract` needs no network for them."""


@dataclass(frozen=True, kw_only=True)
class StoredEncoder:
    """The files of one encoder, before its weights are read."""

    source: str | Path
    """A directory or a repository id."""
    folder: str
    """The folder of the config and the weights below `source`; empty where they lie in it."""
    tokenizer: Path
    """The tokenizer's directory."""
    config: Mapping[str, Any]
    """The contents of config.json."""
    kind: TextEncoderKind
