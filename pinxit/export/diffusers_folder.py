"""Writes a model as a folder that a stock pipeline of diffusers loads.

::

    DIR/  model_index.json  README.md  sample_grid.png
          transformer/  text_encoder/  tokenizer/  vae/  scheduler/
          pinxit/config.json                the rest of what a release's config.json holds
          pinxit/modulation.safetensors     the factors of the modulation (float32 exports)

Stock loaders ignore the folder ``pinxit``. With it, Pinxit reads the same parameters back, to the
bit: the transformer of diffusers has one modulation map per block, which is the sum of the factors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from pinxit.config import UsageError
from pinxit.encoders.fingerprint import SCALING, fingerprint
from pinxit.encoders.weights import UnreadParameter, flatten, tensor_name, unflatten
from pinxit.export.model_card import model_card
from pinxit.export.model_spec import model_spec
from pinxit.export.provenance import Provenance
from pinxit.export.stock_pipeline import DIFFUSERS, StockPipeline
from pinxit.export.tensor_files import converted, size_of, write_file, write_tensors
from pinxit.export.text_encoder_part import TextEncoderPart
from pinxit.files import whole_folder
from pinxit.models.diffusers_prx import prx_config, to_prx
from pinxit.prx_directory import FACTORS, HERE, INDEX, MODULATION, OWN, OWN_FORMAT, WEIGHTS
from pinxit.stored_model import release_config

PLAIN = {"format": "pt"}
"""The metadata of the encoders' files, without which transformers does not load them."""


def check_free(out: Path) -> None:
    """Raises unless `out` is an empty folder or does not exist."""
    if out.exists() and not out.is_dir():
        raise UsageError("out", str(out), problem="a file", valid="a new or empty folder")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError("out", str(out), problem="not empty", valid="a new or empty folder")


def write_diffusers_folder(
    out: Path,
    pipeline: StockPipeline,
    provenance: Provenance,
    *,
    dtype: str = "float32",
    licence: str | None = None,
    repository: str | None = None,
    grid: Image.Image | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Path:
    """Writes the folder, whole or not at all.

    `dtype` is that of the files; with "float32", encoders keep narrower types. `licence` is the
    licence of the weights, `repository` the id on the Hub for the card, `grid` the picture of
    samples. `progress` receives the number of bytes written and their total. Raises `UsageError` if
    `out` is not empty, and `DiskFull`.
    """
    check_free(out)
    parts = _networks(pipeline, dtype, licence)
    total = sum(size_of(t) for _, _, _, tensors, _ in parts for t in tensors.values())
    written = 0

    def wrote(size: int) -> None:
        nonlocal written
        written += size
        progress(written, total)

    with whole_folder(out) as folder:
        for name, config, file, tensors, metadata in parts:
            (folder / name).mkdir()
            _write_json(folder / name / "config.json", config)
            write_tensors(folder / name, file, tensors, metadata, wrote=wrote)
        write_tokenizer(folder / "tokenizer", pipeline.text_encoder)
        (folder / "scheduler").mkdir()
        _write_json(folder / "scheduler" / "scheduler_config.json", pipeline.scheduler())
        _write_json(folder / INDEX, pipeline.model_index())
        _write_own(folder / OWN, pipeline, dtype)
        if grid is not None:
            grid.save(folder / "sample_grid.png", "PNG")
        card = model_card(
            folder, pipeline, provenance, dtype=dtype, licence=licence, repository=repository
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
    return out


Network = tuple[str, dict[str, Any], str, Mapping[str, Any], Mapping[str, str]]
"""A folder, its config.json, the weights' file, its tensors and its metadata."""


def _networks(pipeline: StockPipeline, dtype: str, licence: str | None) -> list[Network]:
    """Returns the networks to write, in the order of the folder's description above."""
    stored, config, text = pipeline.stored, pipeline.config, pipeline.text_encoder
    spec = model_spec(
        stored,
        architecture=f"prx{'-pixel' if pipeline.pixels else ''}",
        implementation="diffusers",
        licence=licence,
        prediction="sample" if pipeline.pixels else "velocity",
    )
    transformer = prx_config(config) | {"_diffusers_version": DIFFUSERS}
    tensors = converted(to_prx(stored.params, config), dtype)
    networks: list[Network] = [("transformer", transformer, WEIGHTS, tensors, spec)]
    encoder = converted(text.tensors, text_dtype(text, dtype))
    networks.append(("text_encoder", text.config, text.file, encoder, PLAIN))
    if (autoencoder := pipeline.autoencoder) is not None:
        latents = converted(autoencoder.tensors, dtype)
        networks.append(("vae", autoencoder.config, autoencoder.file, latents, PLAIN))
    return networks


def text_dtype(text: TextEncoderPart, dtype: str) -> str:
    """Returns the dtype of the text encoder's file: float16 only if the encoder works in it."""
    return dtype if text.half or dtype != "float16" else "float32"


def write_tokenizer(folder: Path, text: TextEncoderPart) -> None:
    """Writes the files of a tokenizer: ``tokenizer.json``, its settings, and the original files."""
    folder.mkdir()
    tokenizer = type(text.tokenizer).from_str(text.tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": text.tokenizer_class,
        "model_max_length": text.max_tokens,
        **text.tokenizer_settings,
    }
    _write_json(folder / "tokenizer_config.json", settings)
    for path in text.tokenizer_files:
        (folder / path.name).write_bytes(path.read_bytes())


def _write_own(folder: Path, pipeline: StockPipeline, dtype: str) -> None:
    """Writes Pinxit's config, and for float32 the factors of the modulation."""
    folder.mkdir()
    _write_json(folder / "config.json", own_config(pipeline, dtype))
    params = flatten(pipeline.stored.params)
    factors = {name: leaf for name, leaf in params.items() if name.startswith(FACTORS)}
    if dtype == "float32" and "modulation" in pipeline.stored.params:
        write_file(folder / MODULATION, factors, {"format": "np"})


def own_config(pipeline: StockPipeline, dtype: str) -> dict[str, Any]:
    """Returns the contents of ``pinxit/config.json``."""
    text, autoencoder = pipeline.text_encoder, pipeline.autoencoder
    own = {"format": OWN_FORMAT, "text_encoder": HERE, "vae": HERE if autoencoder else "none"}
    encoders = {}
    if pipeline.stored.encoders:
        encoders["text_encoder"] = _fingerprint(text.tensors, text.shapes, text_dtype(text, dtype))
        if autoencoder is not None:
            kind = "vae"
            encoders[kind] = _fingerprint(autoencoder.tensors, autoencoder.shapes, dtype)
            encoders[SCALING] = autoencoder.scaling
    return release_config(pipeline.stored) | own | {"encoders": encoders}


def _fingerprint(tensors: Mapping[str, Any], shapes: Mapping[str, Any], dtype: str) -> str:
    """Returns the fingerprint of the tensors as they are written."""
    written = converted(tensors, dtype)
    leaves = {
        path: UnreadParameter(path, written[tensor_name(path)], tuple(shape))
        for path, shape in flatten(shapes).items()
    }
    return fingerprint(unflatten(leaves))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(dict(value), indent=2) + "\n", encoding="utf-8")
