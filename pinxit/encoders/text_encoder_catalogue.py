"""Text encoders by name, made by code or read from a directory or the Hub.

To add one, write a class or function that makes it, and add one line to `TEXT_ENCODERS`. To add an
architecture that is read from Hugging Face's files, write a `TextEncoderKind` and add it to
`KINDS`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from pinxit.arrays import TextEncoder
from pinxit.config import UsageError, choice
from pinxit.encoders import weights
from pinxit.encoders.clip_text_encoder import CLIP
from pinxit.encoders.config_fields import naming
from pinxit.encoders.joint_text_encoder import JointTextEncoder
from pinxit.encoders.t5_text_encoder import T5
from pinxit.encoders.t5gemma_text_encoder import T5GEMMA
from pinxit.encoders.text_encoder_kind import StoredEncoder, TextEncoderKind
from pinxit.encoders.token_rows import Clean
from pinxit.encoders.weights import Sharding

KINDS: tuple[TextEncoderKind, ...] = (CLIP, T5, T5GEMMA)
"""The architectures that are read from files, in order of preference within one pipeline."""

TEXT_ENCODERS: dict[str, str | Path | Callable[..., TextEncoder]] = {
    "tiny": weights.ASSETS / "tiny",
    "clip": "openai/clip-vit-large-patch14",
    "t5": "city96/t5-v1_1-xxl-encoder-bf16",
    "t5gemma": "google/t5gemma-2b-2b-ul2",
    "clip+t5": "clip+t5",
}
"""The text encoders by name. A value is the directory, the repository id or the pair ``A+B`` that
the name stands for, or a class or function that makes the encoder. It is called with those keyword
arguments of `load_text_encoder` that it accepts (`max_tokens`, `dtype`, `clean`, `sharding`)."""

SUFFIXES = ("", "_2", "_3")
"""The suffixes of a pipeline's folders: ``text_encoder_2`` goes with ``tokenizer_2``."""


@dataclass(frozen=True)
class MadeEncoder:
    """An encoder that a class or function will make."""

    name: str
    make: Callable[..., TextEncoder]

    @property
    def takes_max_tokens(self) -> bool:
        """Whether the length of its rows is a setting."""
        return "max_tokens" in self._accepted(["max_tokens"])

    def load(self, **options: Any) -> TextEncoder:
        """Calls `make` with the options that it takes, and checks what it returns."""
        length = options["max_tokens"]
        if length is not None and not self.takes_max_tokens:
            problem = f"not a setting of the text encoder {self.name!r}"
            raise UsageError("max_tokens", length, problem=problem, valid="no value")
        encoder = self.make(**{name: options[name] for name in self._accepted(list(options))})
        if not isinstance(encoder, TextEncoder):
            lacking = [name for name in _members() if name not in dir(encoder)]
            problem = f"not a text encoder: {type(encoder).__name__} lacks {', '.join(lacking)}"
            raise UsageError("text_encoder", self.name, problem=problem)
        return encoder

    def abstract(self, **options: Any) -> TextEncoder:
        """Makes the encoder, and replaces its parameters by their shapes."""
        encoder = self.load(**options, clean=None, sharding=None)
        encoder.params = jax.eval_shape(lambda: encoder.params)
        return encoder

    def _accepted(self, names: Sequence[str]) -> list[str]:
        """Returns those of the keyword arguments that `make` takes."""
        parameters = inspect.signature(self.make).parameters
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            return list(names)
        return [name for name in names if name in parameters]


def _members() -> list[str]:
    """Lists the names that a text encoder must have."""
    methods = (name for name in vars(TextEncoder) if not name.startswith("_"))
    return sorted({*TextEncoder.__annotations__, *methods})


def load_text_encoder(
    source: str | Path,
    *,
    max_tokens: int | None = None,
    dtype: str = "float32",
    clean: Clean | None = None,
    sharding: Sharding | None = None,
) -> TextEncoder:
    """Loads a text encoder by name, from a directory or the Hub, or two of these (``clip+t5``).

    A directory or repository (``owner/name``, ``owner/name@revision``) contains one encoder or is a
    pipeline. Of a pipeline, the first of ``text_encoder``, ``text_encoder_2`` and
    ``text_encoder_3`` that is a CLIP is loaded, or else the first T5, or else the first T5Gemma.
    For a pair, the second encoder is of another kind than the first if the pipeline has one.
    `source` may also be one folder of a pipeline (``DIR/text_encoder_3``); its tokenizer is then in
    the folder beside it.

    `max_tokens` is the length of T5's rows (2 to 512, by default 77) and of T5Gemma's (2 to its
    number of positions, 8192; by default 256). CLIP's rows have as many tokens as CLIP has
    positions. `dtype` is the type of parameters and activations, "float32" or "bfloat16". `clean`
    is applied to every caption. `sharding` returns the sharding of each parameter
    (`weights.Sharding`). Raises `ValueError` if files are missing, damaged or unknown, or do not
    fit together.
    """
    choice("dtype", dtype, weights.PARAMETER_DTYPES)
    options = {"dtype": dtype, "clean": clean, "sharding": sharding}
    encoders = []
    for part, length in _with_lengths(_find_all(source), max_tokens):
        if isinstance(part, MadeEncoder):
            encoders.append(part.load(max_tokens=length, **options))
        else:
            encoders.append(part.kind.load(part, max_tokens=length, **options))
    return encoders[0] if len(encoders) == 1 else JointTextEncoder(*encoders)


def abstract_text_encoder(
    source: str | Path, *, max_tokens: int | None = None, dtype: str = "float32"
) -> TextEncoder:
    """Makes the encoder that `load_text_encoder` would load, with shapes of `dtype` as parameters.

    Nothing is fetched. The configs of well-known repositories are built in, and that of a directory
    is read. An encoder that is made by code is made, and its parameters are replaced by their
    shapes. `apply` can be traced, but captions cannot be tokenised.
    """
    encoders = []
    for part, length in _with_lengths(_find_all(source, fetch=False), max_tokens):
        if isinstance(part, MadeEncoder):
            encoders.append(part.abstract(max_tokens=length, dtype=dtype))
        else:
            with naming(part.source, subfolder=part.folder):
                encoders.append(part.kind.abstract(part.config, max_tokens=length, dtype=dtype))
    return encoders[0] if len(encoders) == 1 else JointTextEncoder(*encoders)


def check_text_encoder(source: str | Path) -> None:
    """Raises the errors of `load_text_encoder` if `source` is no text encoder; reads no weights."""
    _find_all(source)


def text_encoder_parts(source: str | Path) -> list[Part]:
    """Finds the one or two encoders of `source`, whose weights are not read."""
    return _find_all(source)


def described_text_encoder(source: str | Path) -> list[Any]:
    """Returns the kind and the config.json of each encoder in `source`, which fix its program.

    Nothing is fetched. An encoder that is made by code has its name only.
    """
    return [
        part.name if isinstance(part, MadeEncoder) else [part.kind.name, dict(part.config)]
        for part in _find_all(source, fetch=False)
    ]


def origins_of(source: str) -> dict[str, str | Path | None]:
    """Returns the origin of each encoder in `source`, by its name in `source`.

    An origin is a directory or a repository id, or None for an encoder that is made by code.
    """
    origins: dict[str, str | Path | None] = {}
    for name in _names(source):
        entry = TEXT_ENCODERS.get(str(name), name)
        origins[str(name)] = None if callable(entry) else entry
    return origins


def _names(source: str | Path) -> list[str | Path]:
    """Splits `source` into one or two names, directories or repository ids."""
    entry = TEXT_ENCODERS.get(source, source) if isinstance(source, str) else source
    if not isinstance(entry, str) or "+" not in entry or Path(entry).is_dir():
        return [source]
    parts = entry.split("+")
    if len(parts) != 2 or not all(parts):
        form = "A+B, each a name, a directory or a Hub repository id"
        raise UsageError("text_encoder", source, problem="not a pair of encoders", valid=form)
    return list(parts)


Part = MadeEncoder | StoredEncoder


def _find_all(source: str | Path, *, fetch: bool = True) -> list[Part]:
    """Finds the encoders in `source`; the second is of another kind than the first if possible.

    Loading and planning both use this function, so they agree. Without `fetch`, it needs no network
    and refuses repositories that are not well known.
    """
    parts: list[Part] = []
    for name in _names(source):
        entry = TEXT_ENCODERS.get(name, name) if isinstance(name, str) else name
        if callable(entry):
            parts.append(MadeEncoder(str(name), entry))
            continue
        avoid = parts[0].kind.name if parts and isinstance(parts[0], StoredEncoder) else None
        parts.append(_find(entry, avoid) if fetch else _find_described(entry, avoid))
    return parts


def _with_lengths(parts: Sequence[Part], max_tokens: int | None) -> list[tuple[Part, int | None]]:
    """Returns each part with its own `max_tokens`.

    Only parts whose length is a setting get the value. If there is no such part, all get it, so
    that each can check the value or refuse it.
    """
    adjustable = [
        part.takes_max_tokens if isinstance(part, MadeEncoder) else part.kind.takes_max_tokens
        for part in parts
    ]
    lengths = [max_tokens if takes or not any(adjustable) else None for takes in adjustable]
    return list(zip(parts, lengths, strict=True))


def _find(source: str | Path, avoid: str | None) -> StoredEncoder:
    """Finds the encoder in `source`, of a kind other than `avoid` if there is a choice."""
    folders = ["", *(f"tokenizer{suffix}/" for suffix in SUFFIXES)]
    files = sorted({name for kind in KINDS for name in kind.tokenizer_files})
    allow = ["config.json", *(f"text_encoder{suffix}/config.json" for suffix in SUFFIXES)]
    allow += [folder + name for folder in folders for name in files]
    root = weights.resolve(source, allow=allow, names=TEXT_ENCODERS)
    return _in_directory(root, source, avoid)


def _find_described(source: str | Path, avoid: str | None) -> StoredEncoder:
    """Finds the same encoder as `_find`, without a network connection."""
    if Path(source).is_dir():
        return _find(source, avoid)
    repository = str(source).partition("@")[0]
    for kind in KINDS:
        if (config := kind.published.get(repository)) is not None:
            no_files = Path()
            return StoredEncoder(
                source=source, folder="", tokenizer=no_files, config=config, kind=kind
            )
    valid = f"{', '.join(TEXT_ENCODERS)}, or a directory with a config.json"
    problem = "neither a known name nor a directory (nothing is fetched here)"
    raise UsageError("text_encoder", source, problem=problem, valid=valid)


def _in_directory(root: Path, source: str | Path, avoid: str | None) -> StoredEncoder:
    """Finds the encoder in the directory of one, or the preferred one of a pipeline."""
    folders = [f"text_encoder{suffix}" for suffix in SUFFIXES]
    folders = [folder for folder in folders if (root / folder).is_dir()] or [""]
    configs = {folder: weights.read_config(root / folder / "config.json") for folder in folders}
    fitting = [
        (kind.name == avoid, order, folder, kind)
        for order, kind in enumerate(KINDS)
        for folder in folders
        if configs[folder].get("model_type") in kind.model_types
    ]
    if not fitting:
        types = ", ".join(repr(config.get("model_type")) for config in configs.values())
        problem = f"of an unknown architecture (model_type is {types})"
        valid = [name for kind in KINDS for name in kind.model_types]
        raise UsageError("text_encoder", str(source), problem=problem, valid=valid)
    *_, folder, kind = min(fitting, key=lambda match: match[:2])
    return StoredEncoder(
        source=source,
        folder=folder,
        tokenizer=_tokenizer_directory(root, folder),
        config=configs[folder],
        kind=kind,
    )


def _tokenizer_directory(root: Path, folder: str) -> Path:
    """Returns the tokenizer's folder, which may be below or beside the weights or the same one."""
    if folder:
        below = root / folder.replace("text_encoder", "tokenizer")
        return below if below.is_dir() else root
    named = re.fullmatch(r"text_encoder(_\d)?", root.name)
    beside = root.parent / f"tokenizer{named[1] or ''}" if named else root / "tokenizer"
    return beside if beside.is_dir() else root
