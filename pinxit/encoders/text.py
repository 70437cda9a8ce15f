"""Captions to `Conditioning` with CLIP: byte-pair encoding on the host, the text tower in JAX.

A caption is lower-cased, normalised (NFC, runs of white space to one space) and cut into words,
single digits and runs of punctuation. Each becomes UTF-8 bytes written as printable characters,
the last one marked ``</w>``; the merges of ``merges.txt`` join them in the file's order. The row

    BOS token ... token EOS pad ... pad

has exactly `max_tokens` entries; a longer caption loses its tail and keeps its EOS. The mask is
true from BOS to the first EOS. The empty prompt is BOS EOS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

from pinxit.arrays import ArrayLike, Conditioning, TextEncoder
from pinxit.encoders import clip, weights
from pinxit.encoders.clip import ClipConfig, text_tower
from pinxit.encoders.weights import Tree

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>"
    r"|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
)
FILES = (
    *("config.json", "model.safetensors", "model.safetensors.index.json", "model-*.safetensors"),
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    "special_tokens_map.json",
)
"""What is fetched of a Hub repository, at its root and in ``text_encoder/`` and ``tokenizer/``."""


class ClipTextEncoder:
    """A CLIP text tower and its tokenizer, as `arrays.TextEncoder`."""

    def __init__(
        self, tokenizer: Tokenizer, config: ClipConfig, *, params: Tree, max_tokens: int
    ) -> None:
        tower, longest = text_tower(config), text_tower(config).max_position_embeddings
        if not 2 <= max_tokens <= longest:
            raise ValueError(f"max_tokens is {max_tokens}; this text tower reads 2 to {longest}")
        size = tokenizer.get_vocab_size()
        if size > tower.vocab_size:
            raise ValueError(
                f"the tokenizer has {size} tokens, the text tower knows {tower.vocab_size}"
            )
        eos = tokenizer.token_to_id(EOS)
        if eos is None:
            raise ValueError(f"the tokenizer lacks {EOS!r}")
        self.config = replace(config, text=replace(tower, eos_token_id=eos))
        self.params = params
        self.max_tokens = max_tokens
        self.width = tower.hidden_size
        self._tokenizer = tokenizer
        tokenizer.enable_truncation(max_tokens)
        padding = tokenizer.padding or {"pad_id": eos, "pad_token": EOS}
        tokenizer.enable_padding(**padding | {"length": max_tokens})
        self._jitted = jax.jit(self.apply)

    def tokenize(self, captions: Sequence[str]) -> Int[np.ndarray, "b l"]:
        """Token ids, padded or truncated to exactly `max_tokens`."""
        if isinstance(captions, str):
            raise ValueError(f"captions is the string {captions!r}; pass a list of strings")
        encodings = self._tokenizer.encode_batch(list(captions))
        ids = np.array([encoding.ids for encoding in encodings], np.int32)
        return ids.reshape(len(captions), self.max_tokens)

    def apply(self, params: Any, token_ids: Int[ArrayLike, "b l"]) -> Conditioning:
        """Last hidden states, the mask from BOS to EOS, and the state at EOS. Pure and jittable."""
        output = clip.text_forward(params, self.config, token_ids)
        last = clip.end_of_text(text_tower(self.config), token_ids)
        mask = jnp.arange(token_ids.shape[1])[None] <= last[:, None]
        return Conditioning(tokens=output.hidden, mask=mask, pooled=output.pooled)

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        return self._jitted(self.params, self.tokenize(captions))


def load_text_encoder(source: str | Path) -> TextEncoder:
    """A text encoder by name, from a directory, or from a Hub repository (``owner/name``)."""
    if isinstance(source, str) and source in TEXT_ENCODERS:
        return TEXT_ENCODERS[source]()
    return load_clip_text_encoder(source)


def load_clip_text_encoder(source: str | Path) -> ClipTextEncoder:
    """CLIP from a diffusers directory (``text_encoder/``, ``tokenizer/``) or from a flat one."""
    folders = ("", "text_encoder/", "tokenizer/")
    root = weights.resolve(
        source,
        allow=[folder + name for folder in folders for name in FILES],
        names=TEXT_ENCODERS,
    )
    subfolder = "text_encoder" if (root / "text_encoder").is_dir() else ""
    params, config = clip.load_clip(root, subfolder=subfolder, only="text")
    directory = root / "tokenizer" if (root / "tokenizer").is_dir() else root
    tokenizer, longest = load_clip_tokenizer(directory)
    max_tokens = min(longest, text_tower(config).max_position_embeddings)
    return ClipTextEncoder(tokenizer, config, params=params, max_tokens=max_tokens)


def load_clip_tokenizer(directory: Path) -> tuple[Tokenizer, int]:
    """A tokenizer that adds BOS and EOS and knows its padding, and the longest row it allows."""
    settings = _settings(directory)
    for name, expected in (("bos_token", BOS), ("eos_token", EOS)):
        if settings.get(name, expected) != expected:
            raise ValueError(f"{directory}: {name} is {settings[name]!r}; CLIP has {expected!r}")
    if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        vocab = weights.read_json(directory / "vocab.json")
        tokenizer = _tokenizer(vocab, _read_merges(directory / "merges.txt", vocab))
    elif (directory / "tokenizer.json").is_file():
        weights.read_json(directory / "tokenizer.json")
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        tokenizer.no_truncation()
    else:
        raise ValueError(f"{directory} has neither vocab.json with merges.txt nor tokenizer.json")
    pad = settings.get("pad_token", EOS)
    unknown = [name for name in (BOS, EOS, pad) if tokenizer.token_to_id(name) is None]
    if unknown:
        raise ValueError(f"{directory}: the vocabulary lacks {unknown}")
    longest = int(min(settings.get("model_max_length", 77), 2**31))
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    return tokenizer, longest


def train_clip_tokenizer(
    captions: Iterable[str], vocab_size: int, directory: str | Path, *, max_tokens: int = 77
) -> int:
    """Learns merges from captions, writes CLIP's tokenizer files, returns the vocabulary's size.

    The vocabulary is the 256 bytes, the 256 bytes that end a word, one entry per merge, BOS and
    EOS; it is smaller than `vocab_size` when the captions have no more pairs to merge.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    endings = [symbol + SUFFIX for symbol in alphabet]
    base = [*alphabet, *endings]
    if vocab_size < len(base) + 2:
        raise ValueError(f"vocab_size is {vocab_size}; it must be at least {len(base) + 2}")
    if max_tokens < 2:
        raise ValueError(f"max_tokens is {max_tokens}; it must be at least 2")
    learner = _tokenizer({BOS: 0, EOS: 1}, [])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=endings,  # in a fixed order, which decides between equally frequent pairs
        initial_alphabet=alphabet,
        end_of_word_suffix=SUFFIX,
    )
    learner.train_from_iterator(captions, trainer)
    entries, merges = dict.fromkeys(base), []
    for a, b in json.loads(learner.to_str())["model"]["merges"]:
        if len(entries) + 2 >= vocab_size:
            break
        merges.append((a, b))
        entries[a + b] = None
    vocabulary = [*entries, BOS, EOS]
    _write_tokenizer(Path(directory), vocabulary, merges=merges, max_tokens=max_tokens)
    return len(vocabulary)


def _tokenizer(vocab: Mapping[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    model = BPE(
        vocab=dict(vocab),
        merges=merges,
        continuing_subword_prefix="",
        end_of_word_suffix=SUFFIX,
        unk_token=EOS,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([BOS, EOS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (BOS, EOS)],
    )
    return tokenizer


def _settings(directory: Path) -> dict[str, Any]:
    """Special tokens and the longest row, from the two files that may state them."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (directory / name).is_file():
            settings |= weights.read_json(directory / name)
    tokens = {name: value for name, value in settings.items() if name.endswith("_token")}
    contents = {n: v["content"] if isinstance(v, dict) else v for n, v in tokens.items()}
    return settings | contents


def _read_merges(path: Path, vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    merges = []
    for number, line in enumerate(lines, start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        a, _, b = line.partition(" ")
        if not {a, b, a + b} <= vocab.keys():
            raise ValueError(f"{path} line {number}: {line!r} joins what the vocabulary lacks")
        merges.append((a, b))
    return merges


def _write_tokenizer(
    directory: Path, entries: list[str], *, merges: list[tuple[str, str]], max_tokens: int
) -> None:
    tokens = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": max_tokens,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
    }
    files = {
        "vocab.json": {token: i for i, token in enumerate(entries)},
        "tokenizer_config.json": settings | tokens,
        "special_tokens_map.json": tokens,
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
        (directory / name).write_text(text, encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


TEXT_ENCODERS: dict[str, Callable[[], TextEncoder]] = {
    "tiny": lambda: load_clip_text_encoder(weights.bundled("tiny")),
    "clip": partial(load_clip_text_encoder, "openai/clip-vit-large-patch14"),
}
"""Text encoders by name; a directory or a repository id needs no entry."""
