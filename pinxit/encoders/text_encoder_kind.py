"""Describes each kind of text encoder that is read from Hugging Face's files in one record.

To add a kind, write a file like `t5_text_encoder.py` that defines a `TextEncoderKind`, and add that
record to `text_encoder_catalogue.KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.arrays import TextEncoder


@dataclass(frozen=True, kw_only=True)
class TextEncoderKind:
    """An architecture: its files, and the functions that make an encoder from them."""

    name: str
    """The value of `kind` in its encoders."""
    model_types: tuple[str, ...]
    """The values of ``model_type`` in the config.json files of this kind."""
    tokenizer_files: tuple[str, ...]
    """The files that its tokenizer may be read from."""
    takes_max_tokens: bool
    """Whether the length of its rows is a setting. If one of two joined encoders has this setting
    and the other does not, only the first of these gets `max_tokens`."""
    load: Callable[..., TextEncoder]
    """``load(stored, *, max_tokens, dtype, clean, sharding)`` reads a `StoredEncoder`'s files."""
    abstract: Callable[..., TextEncoder]
    """``abstract(config, *, max_tokens, dtype)`` makes an encoder from the contents of config.json
    alone. Its parameters are shapes: `apply` can be traced, but captions cannot be tokenised."""
    published: Mapping[str, Mapping[str, Any]]
    """The config.json of well-known repositories, so that `abstract` needs no network for them."""


@dataclass(frozen=True, kw_only=True)
class StoredEncoder:
    """The files of one encoder, before its weights are read."""

    source: str | Path
    """A directory or a repository id."""
    folder: str
    """The folder of the config and the weights, relative to `source`; "" for `source` itself."""
    tokenizer: Path
    """The tokenizer's directory."""
    config: Mapping[str, Any]
    """The contents of config.json."""
    kind: TextEncoderKind
