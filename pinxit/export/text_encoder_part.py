"""The text encoder of an exported folder: its class in transformers, its config and its tensors.

To export another kind of text encoder, write a function like `_clip` and add a line to
`STOCK_ENCODERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pinxit.config import UsageError
from pinxit.encoders import clip, t5, t5gemma, weights
from pinxit.encoders.clip import clip_shapes, text_tower
from pinxit.encoders.clip_tokenizer import BOS, EOS, load_clip_tokenizer
from pinxit.encoders.t5_text_encoder import T5_MAX_TOKENS
from pinxit.encoders.t5_tokenizer import load_t5_tokenizer
from pinxit.encoders.t5gemma_text_encoder import default_length
from pinxit.encoders.t5gemma_tokenizer import load_gemma_tokenizer
from pinxit.encoders.text_encoder_catalogue import MadeEncoder, text_encoder_parts
from pinxit.encoders.text_encoder_kind import StoredEncoder
from pinxit.encoders.weights import StoredTensor, Tree


@dataclass(frozen=True, kw_only=True)
class TextEncoderPart:
    """One text encoder and its tokenizer, before its weights are read."""

    class_name: str
    """The class of the encoder in transformers."""
    tokenizer_class: str
    """The class of the tokenizer in transformers."""
    file: str
    """The name of the weights' file."""
    config: dict[str, Any]
    """The contents of config.json."""
    tensors: Mapping[str, StoredTensor]
    """The tensors to write, by name."""
    shapes: Tree
    """The shapes of the parameters that the tensors hold."""
    trained: Tree
    """The unread parameters that the model was trained with. They may be more than `tensors`."""
    tokenizer: Tokenizer
    """The tokenizer, without truncation."""
    tokenizer_files: tuple[Path, ...]
    """The tokenizer's original files, which are copied beside tokenizer.json."""
    tokenizer_settings: dict[str, Any]
    """The contents of tokenizer_config.json, except the class and the length."""
    max_tokens: int
    """Length of a row of tokens."""
    width: int
    """Width of a token's features."""
    half: bool = True
    """Whether the encoder works in float16. If not, a float16 export keeps the encoder's type."""


def _clip(stored: StoredEncoder, max_tokens: int | None) -> TextEncoderPart:
    """Returns the text tower of a CLIP, without its projection, as a CLIPTextModel."""
    whole, tensors = clip.open_clip(stored.source, subfolder=stored.folder, only="text")
    config = replace(whole, projection_dim=None)
    shapes = clip_shapes(config)
    names = {weights.tensor_name(path) for path in weights.flatten(shapes)}
    tokenizer, longest = load_clip_tokenizer(stored.tokenizer)
    return TextEncoderPart(
        class_name="CLIPTextModel",
        tokenizer_class="CLIPTokenizer",
        file=clip.WEIGHTS,
        config=_with_eos(config.to_json(), tokenizer.token_to_id(EOS)),
        tensors={name: tensor for name, tensor in tensors.items() if name in names},
        shapes=shapes,
        trained=weights.unread_params(tensors, clip_shapes(whole), source=stored.source),
        tokenizer=tokenizer,
        tokenizer_files=_existing(stored.tokenizer, "vocab.json", "merges.txt"),
        tokenizer_settings={
            "bos_token": BOS,
            # transformers takes the padding token for special within a caption too, where ours may
            # be "!". Padding has no effect, so that the export can pad with the end of text.
            **dict.fromkeys(("eos_token", "unk_token", "pad_token"), EOS),
        },
        max_tokens=min(longest, text_tower(config).max_position_embeddings),
        width=text_tower(config).hidden_size,
    )


def _with_eos(config: dict[str, Any], eos: int | None) -> dict[str, Any]:
    """Returns the config with the id of the tokenizer's end-of-text token."""
    return config | {"eos_token_id": eos}


def _t5(stored: StoredEncoder, max_tokens: int | None) -> TextEncoderPart:
    """Returns the encoder of a T5 as a T5EncoderModel."""
    config, tensors = t5.open_t5(stored.source, subfolder=stored.folder)
    tokenizer = load_t5_tokenizer(stored.tokenizer)
    extra = [t for t in tokenizer.get_vocab() if t.startswith("<extra_id_")]
    return TextEncoderPart(
        class_name="T5EncoderModel",
        tokenizer_class="T5Tokenizer",
        file=t5.WEIGHTS,
        config=config.to_json(),
        tensors=tensors,
        shapes=t5.t5_shapes(config),
        trained=weights.unread_params(tensors, t5.t5_shapes(config), source=stored.source),
        tokenizer=tokenizer,
        tokenizer_files=_existing(stored.tokenizer, "spiece.model"),
        tokenizer_settings={
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "extra_ids": len(extra),
        },
        max_tokens=T5_MAX_TOKENS if max_tokens is None else max_tokens,
        width=config.d_model,
        half=False,
    )


def _t5gemma(stored: StoredEncoder, max_tokens: int | None) -> TextEncoderPart:
    """Returns the encoder of a T5Gemma as the T5GemmaEncoder that diffusers adds to transformers.

    Its tokenizer.json decides about the special tokens around a caption.
    """
    config, tensors = t5gemma.open_t5gemma(stored.source, subfolder=stored.folder)
    shapes, tokens = t5gemma.t5gemma_shapes(config), load_gemma_tokenizer(stored.tokenizer)
    return TextEncoderPart(
        class_name="T5GemmaEncoder",
        tokenizer_class="GemmaTokenizer",
        file=t5gemma.WEIGHTS,
        config=config.to_json(),
        tensors=tensors,
        shapes=shapes,
        trained=weights.unread_params(tensors, shapes, source=stored.source),
        tokenizer=tokens.tokenizer,
        tokenizer_files=(),
        tokenizer_settings={
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "unk_token": "<unk>",
            "pad_token": tokens.pad,
            "padding_side": tokens.side,
        },
        max_tokens=default_length(config) if max_tokens is None else max_tokens,
        width=config.hidden_size,
        half=False,
    )


def _existing(folder: Path, *names: str) -> tuple[Path, ...]:
    """Returns the files of these names in a folder, or nothing if one of them does not exist."""
    paths = tuple(folder / name for name in names)
    return paths if all(path.is_file() for path in paths) else ()


STOCK_ENCODERS: dict[str, Callable[[StoredEncoder, int | None], TextEncoderPart]] = {
    "clip": _clip,
    "t5": _t5,
    "t5gemma": _t5gemma,
}
"""The kinds of text encoder that can be exported. A function receives the encoder's files and the
model's `text_max_tokens`."""


def text_encoder_part(source: str, max_tokens: int | None, *, instead: str) -> TextEncoderPart:
    """Opens the text encoder of a model. Raises `UsageError` if a stock pipeline cannot have it.

    `instead` says what to do in that case.
    """
    parts = text_encoder_parts(source)
    if len(parts) != 1:
        problem = (
            "two encoders, but a stock PRX pipeline has one text encoder and would draw from the "
            f"tokens of the first alone; {instead}"
        )
        raise UsageError("text_encoder", source, problem=problem)
    (part,) = parts
    if isinstance(part, MadeEncoder):
        problem = (
            "made by code, which a stock pipeline does not have: it loads classes of transformers "
            f"from files; {instead}"
        )
        raise UsageError("text_encoder", source, problem=problem)
    if part.kind.name not in STOCK_ENCODERS:
        problem = f"of the kind {part.kind.name!r}, which export cannot write; {instead}"
        raise UsageError("text_encoder", source, problem=problem, valid=list(STOCK_ENCODERS))
    return STOCK_ENCODERS[part.kind.name](part, max_tokens)
