"""Fetches a trained model from the Hugging Face Hub: first its settings, then its weights.

A model on the Hub is a release, or a pipeline directory of diffusers. The small JSON files show
which one it is and whether it can be used, so nothing large is fetched for one that is refused. The
encoders of a pipeline are fetched by their own loaders, from the same commit.
"""

from __future__ import annotations

import re
from pathlib import Path

from pinxit.encoders.weights import REPOSITORY, fetched, resolve

SETTINGS = (
    *("config.json", "model_index.json", "pinxit/config.json", "scheduler/scheduler_config.json"),
    *("transformer/config.json", "tokenizer/tokenizer_config.json", "vae/config.json"),
    "text_encoder/config.json",
)
"""The files that describe a model."""
WEIGHTS = (
    "model.safetensors",
    "pinxit/modulation.safetensors",
    *fetched(("diffusion_pytorch_model.safetensors",), folders=("transformer",)),
)
"""The files with its parameters, without those of its encoders."""
WITHOUT = "There is no path of that name here, which would be read instead of the Hub"
COMMIT = re.compile(r"[0-9a-f]{40}")


def repository_of(source: str) -> str | None:
    """Returns `source` if it is the id of a repository (``owner/name``, ``owner/name@revision``),
    or None if it is the path of something, or of something missing in a folder that exists."""
    if REPOSITORY.fullmatch(source) is None or Path(source).exists():
        return None
    return None if "@" not in source and Path(source).parent.is_dir() else source


def fetch_settings(repository: str) -> tuple[Path, str]:
    """Fetches the files that describe a model.

    Returns their folder, and the id of the repository at the commit that they are from. Raises
    `UsageError` if they can neither be fetched nor found in the Hub's cache.
    """
    directory = resolve(repository, allow=SETTINGS, without=WITHOUT)
    name = repository.partition("@")[0]
    commit = directory.name
    return directory, f"{name}@{commit}" if COMMIT.fullmatch(commit) else repository


def fetch_weights(repository: str) -> Path:
    """Fetches the network's parameters as well, and returns the folder."""
    return resolve(repository, allow=[*SETTINGS, *WEIGHTS], without=WITHOUT)
