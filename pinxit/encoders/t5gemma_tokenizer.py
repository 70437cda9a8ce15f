"""T5Gemma's tokenizer, which is Gemma's: byte-pair encoding, read from ``tokenizer.json``.

Each space of a caption becomes ``\\u2581``, and the characters are merged by the rules of the file.
A character that is not in the vocabulary becomes the tokens of its UTF-8 bytes (``<0xE2>``). The
caption is not split into words first, and no space is put in front of it. The row is one of

    <pad> ... <pad> <bos> token ... token
    <bos> token ... token <pad> ... <pad>

and has exactly the requested length; a longer caption loses its tail. The files decide about the
rest, as they do in transformers 5:

- ``padding_side`` of ``tokenizer_config.json`` is the side of the padding. Without it, the side is
  that of the padding in ``tokenizer.json``, or else the default of the tokenizer's class: "left"
  for a GemmaTokenizer.
- The post-processor of ``tokenizer.json`` decides whether ``<bos>`` and ``<eos>`` are added.
  ``add_bos_token`` and ``add_eos_token`` of ``tokenizer_config.json`` have no effect.

Without ``<bos>`` and ``<eos>``, the empty prompt has no token at all, and its row is padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pinxit.config import UsageError
from pinxit.encoders import weights
from pinxit.encoders.clip_tokenizer import read_tokenizer_json, tokenizer_settings

PAD = "<pad>"
"""The padding token, unless ``tokenizer_config.json`` names another."""
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""The files of a tokenizer's directory that are read here, if they exist."""

SIDES = ("left", "right")
CLASSES = {
    "GemmaTokenizer": "left",
    "GemmaTokenizerFast": "left",
    "PreTrainedTokenizerFast": "right",
    "TokenizersBackend": "right",
}
"""The tokenizer classes of transformers, with the side on which they pad by default."""
NORMALIZER = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
MODEL = {"byte_fallback": True, "dropout": None}
"""Settings that the model in a ``tokenizer.json`` must have."""


@dataclass(frozen=True, kw_only=True)
class GemmaTokens:
    """A tokenizer that adds its special tokens, but neither pads nor truncates yet."""

    tokenizer: Tokenizer
    pad: str
    """The padding token."""
    pad_id: int
    """The id of the padding token."""
    side: str
    """The side on which rows are padded, "left" or "right"."""

    def padding(self) -> dict[str, Any]:
        """Returns the arguments of `Tokenizer.enable_padding`."""
        return {"pad_id": self.pad_id, "pad_token": self.pad, "direction": self.side}


def load_gemma_tokenizer(directory: Path) -> GemmaTokens:
    """Reads the tokenizer of a T5Gemma from its directory."""
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise UsageError(
            f"{directory} has no tokenizer.json (tokenizer.model is not read here). transformers "
            "writes one: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )
    settings = tokenizer_settings(directory)
    value = weights.read_config(path)
    _check_form(path, value)
    side = _side(directory, settings, value.get("padding"))
    tokenizer = read_tokenizer_json(path)
    pad = settings.get("pad_token", PAD)
    if (pad_id := tokenizer.token_to_id(pad)) is None:
        raise UsageError(f"{path}: the vocabulary lacks {pad!r}, the padding token")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return GemmaTokens(tokenizer=tokenizer, pad=pad, pad_id=pad_id, side=side)


def _side(directory: Path, settings: Mapping[str, Any], padding: Any) -> str:
    """Returns the side on which rows are padded; `padding` is that of ``tokenizer.json``.

    Raises `UsageError` for an unknown class of tokenizer, and for truncation on the left.
    """
    name = settings.get("tokenizer_class") or "GemmaTokenizer"
    if name not in CLASSES:
        known = ", ".join(CLASSES)
        raise UsageError(f"{directory}: tokenizer_class is {name!r}; T5Gemma has one of {known}")
    if (truncated := settings.get("truncation_side", "right")) != "right":
        raise UsageError(f"{directory}: truncation_side is {truncated!r}; known: right")
    stored = padding.get("direction") if isinstance(padding, dict) else None
    default = str(stored).lower() if stored else CLASSES[name]
    side = settings.get("padding_side", default)
    if side not in SIDES:
        raise UsageError(f"{directory}: padding_side is {side!r}; known: {', '.join(SIDES)}")
    return side


def _check_form(path: Path, value: Mapping[str, Any]) -> None:
    """Raises `UsageError` unless a ``tokenizer.json`` has the form of Gemma's."""
    model = value.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "BPE":
        raise UsageError(f"{path}: the model's type is {kind!r}; T5Gemma requires 'BPE'")
    for name, expected in MODEL.items():
        if (actual := model.get(name)) != expected:
            raise UsageError(
                f"{path}: the model's {name} is {actual!r}; T5Gemma requires {expected}"
            )
    if (normalizer := value.get("normalizer")) != NORMALIZER:
        kind = normalizer.get("type") if isinstance(normalizer, dict) else normalizer
        raise UsageError(
            f"{path}: the normalizer ({kind!r}) is not the one that T5Gemma requires, which "
            "replaces each space by '\u2581'"
        )
    split = value.get("pre_tokenizer")
    pattern = split.get("pattern") if isinstance(split, dict) else None
    if split is not None and pattern != {"String": " "}:  # no spaces are left to split at
        kind = split.get("type") if isinstance(split, dict) else split
        raise UsageError(f"{path}: the pre_tokenizer is {kind!r}; T5Gemma splits at spaces only")
