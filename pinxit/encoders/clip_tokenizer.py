"""CLIP's tokenizer: byte-pair encoding, read from a directory or trained on captions.

A caption is normalised (NFC, each run of white space becomes one space), lower-cased, and split
into words, single digits and runs of punctuation. The UTF-8 bytes of each are written as printable
characters, the last one marked ``</w>``, and merged by the rules of ``merges.txt`` in the order of
that file. The row

    BOS token ... token EOS pad ... pad

has exactly as many entries as the text tower has positions. A longer caption loses its tail, but
its row still ends in EOS. The empty prompt is BOS EOS.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

from pinxit.config import UsageError
from pinxit.encoders import weights
from pinxit.files import whole_set
from pinxit.lfs_pointer import pointer_problem

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>"
    r"|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
)
FILES = (
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    "special_tokens_map.json",
)
"""The files of a tokenizer's directory that are read here, if they exist."""


def load_clip_tokenizer(directory: Path) -> tuple[Tokenizer, int]:
    """Reads a tokenizer that adds BOS, EOS and padding; also returns the longest row it allows."""
    settings = tokenizer_settings(directory)
    for name, expected in (("bos_token", BOS), ("eos_token", EOS)):
        if settings.get(name, expected) != expected:
            raise UsageError(
                f"{directory}: {name} is {settings[name]!r}; CLIP requires {expected!r}"
            )
    if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        vocab = _read_vocabulary(directory / "vocab.json")
        tokenizer = _tokenizer(vocab, _read_merges(directory / "merges.txt", vocab))
    elif (directory / "tokenizer.json").is_file():
        tokenizer = read_tokenizer_json(directory / "tokenizer.json")
        tokenizer.no_truncation()
    else:
        raise UsageError(f"{directory} has neither vocab.json with merges.txt nor tokenizer.json")
    pad = settings.get("pad_token", EOS)
    unknown = [name for name in (BOS, EOS, pad) if tokenizer.token_to_id(name) is None]
    if unknown:
        raise UsageError(f"{directory}: the vocabulary lacks {', '.join(unknown)}")
    longest = _longest(directory, settings.get("model_max_length"))
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    return tokenizer, longest


def train_clip_tokenizer(
    captions: Iterable[str], vocab_size: int, directory: str | Path, *, max_tokens: int = 77
) -> int:
    """Learns merges from captions, writes CLIP's tokenizer files, returns the vocabulary's size.

    The vocabulary has an entry for each of the 256 bytes, another for each byte at the end of a
    word, one for each merge, BOS and EOS. It is smaller than `vocab_size` if the captions have too
    few pairs to merge.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    endings = [symbol + SUFFIX for symbol in alphabet]
    base = [*alphabet, *endings]
    if vocab_size < len(base) + 2:
        raise UsageError(f"vocab_size is {vocab_size}; it must be at least {len(base) + 2}")
    if max_tokens < 2:
        raise UsageError(f"max_tokens is {max_tokens}; it must be at least 2")
    learner = _tokenizer({BOS: 0, EOS: 1}, [])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=endings,  # in a fixed order, which breaks ties of equally frequent pairs
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


def tokenizer_settings(directory: Path) -> dict[str, Any]:
    """Reads the special tokens and other settings from the two files that may contain them."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (directory / name).is_file():
            settings |= weights.read_config(directory / name)
    for name in ("bos_token", "eos_token", "pad_token"):
        value = settings.pop(name, None)
        content = value.get("content") if isinstance(value, dict) else value
        if value is not None:  # null means that the tokenizer has no such token
            if not isinstance(content, str):
                raise UsageError(f"{directory}: {name} is {value!r}; it must be text")
            settings[name] = content
    return settings


def _longest(directory: Path, value: Any) -> int:
    """Returns the longest row that a tokenizer's ``model_max_length`` allows; by default 77."""
    length = 77 if value is None else value
    if not isinstance(length, int | float) or isinstance(length, bool) or not length >= 2:
        raise UsageError(f"{directory}: model_max_length is {value!r}; it must be 2 or more")
    return int(min(length, 2**31))


def read_tokenizer_json(path: Path) -> Tokenizer:
    """Reads a ``tokenizer.json``. Raises `UsageError` if it is not one."""
    weights.read_config(path)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain exceptions for every fault of the file
        raise UsageError(f"{path} is not a tokenizer: {error}") from error


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Reads the ids of the tokens, which must be whole numbers, each used once."""
    vocab = weights.read_config(path)
    for token, number in vocab.items():
        if type(number) is not int or number < 0:
            raise UsageError(f"{path}: the id of {token!r} is {number!r}; it must be at least 0")
    if len(set(vocab.values())) != len(vocab):
        seen: dict[int, str] = {}
        a, b = next((seen[n], t) for t, n in vocab.items() if seen.setdefault(n, t) != t)
        raise UsageError(f"{path}: {a!r} and {b!r} have the same id {vocab[b]}")
    return vocab


def _read_merges(path: Path, vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8: {error}") from error
    if problem := pointer_problem(path):
        raise UsageError(problem)
    merges = []
    for number, line in enumerate(lines, start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        a, _, b = line.partition(" ")
        if not {a, b, a + b} <= vocab.keys():
            raise UsageError(
                f"{path} line {number}: {line!r} joins tokens that are not in the vocabulary"
            )
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
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    texts = {
        name: json.dumps(value, ensure_ascii=False, indent=1) for name, value in files.items()
    } | {"merges.txt": "\n".join(lines)}
    with whole_set(directory, *texts) as temporaries:
        for temporary, text in zip(temporaries, texts.values(), strict=True):
            temporary.write_text(text + "\n", encoding="utf-8")
