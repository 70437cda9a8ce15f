"""Opens the manifest of a dataset: one that `pinxit prepare` wrote, or one that is packed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pinxit.config import UsageError
from pinxit.data.packed.packed_manifest import (
    PACKED,
    PackedManifest,
    is_packed,
    is_store_url,
    read_packed,
)
from pinxit.data.prepared.manifest import Manifest, is_prepared

Root = str | Path
"""The folder of a dataset, or the URL of a packed one."""


@runtime_checkable
class DatasetManifest(Protocol):
    """The manifest of any dataset: a `Manifest` or a `PackedManifest`."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Returns the settings that determine the content."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """Returns the number of rows of the source by status."""
        ...

    @property
    def latents(self) -> Mapping[str, Any] | None:
        """Returns statistics of the latents."""
        ...

    @property
    def text(self) -> Mapping[str, Any] | None:
        """Returns statistics of the text embeddings."""
        ...

    @property
    def images(self) -> Mapping[str, Any] | None:
        """Returns the shapes of the images."""
        ...

    @property
    def contents(self) -> tuple[str, ...]:
        """Returns the kinds of records that the dataset holds: latents, text, images."""
        ...

    def fingerprint(self) -> str:
        """Returns a hash of the rows, which a run records."""
        ...


def is_dataset(path: str) -> bool:
    """Returns whether this folder or URL is a prepared dataset, packed or not."""
    return is_packed(path) or (not is_store_url(path) and is_prepared(path))


def read_manifest(root: Root) -> Manifest | PackedManifest:
    """Returns the manifest of a dataset. Raises `UsageError` if there is none."""
    if is_packed(str(root)):
        return read_packed(str(root))
    if is_store_url(str(root)):
        raise UsageError(
            f"{root} has no {PACKED}: only packed datasets are read from object stores "
            f"(`pinxit pack DIR --out {root}`)"
        )
    return Manifest.read(Path(root).expanduser())


def dataset_root(path: str) -> Root:
    """Returns a dataset's path, in which ~ is the home folder, or its URL."""
    return path if is_store_url(path) else Path(path).expanduser()
