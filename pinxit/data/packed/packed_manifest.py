"""The manifest of a packed dataset, and the layout of its folder.

::

    DIR/  packing.json                       the settings of `pinxit pack`, written first
          packs/<kind>-<shape>-00000.pack    records of one kind and shape, in the order of the rows
          packs/<kind>-<shape>-00000.index   see `pack_index`; written after its pack
          packed.json                        the whole dataset, written when every pack is done

A kind is one of "latents", "text" and "images". Rows have the numbers that they have in the dataset
that was packed. The images of a dataset with latents serve only the validation loss, so that a pack
may hold just those of the last rows of each shape.

The files are read through a `ByteStore`: DIR is a folder, or the URL of an object store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pinxit.config import UsageError
from pinxit.data.stores.byte_store import ByteStore, open_store
from pinxit.plain_json import plain_values

PACKED = "packed.json"
PACKS = "packs"
FORMAT = 1
"""The version of this format. Other versions are refused."""
FILES = (".parquet", ".csv", ".tsv", ".jsonl", ".json", ".txt", ".tar", ".gz", ".zip", ".zst")
"""Suffixes of URLs that name a file, not the root of a dataset."""
NO_STORES = ("http", "https", "ftp", "hf", "file")
"""Schemes of URLs that never name a packed dataset."""


@dataclass(frozen=True)
class PackInfo:
    """The expected properties of a pack."""

    name: str
    """The name of the file, below the root."""
    rows: int
    """The number of records."""
    bytes: int
    """The size of the pack."""
    sha256: str
    """The SHA-256 of the pack, in hex digits."""
    index_sha256: str
    """The SHA-256 of its index, in hex digits."""


@dataclass(frozen=True)
class PackedShape:
    """The records of one kind and shape: consecutive rows of the dataset."""

    shape: str
    """The shape of the latents or images, such as "32x32x4"; "" if it was not recorded."""
    rows: int
    """The number of rows of this shape in the dataset."""
    first: int
    """The first of these rows that is stored. All later ones are stored, too."""
    packs: tuple[PackInfo, ...]
    """The packs, in the order of the rows."""


@dataclass(frozen=True)
class PackedManifest:
    """The description of a whole packed dataset.

    The statistics are those of the `Manifest` that was packed, but ``shapes`` has one entry for
    the whole dataset.
    """

    dataset: str
    """The fingerprint of the dataset that was packed."""
    identity: Mapping[str, Any]
    """The settings that determine the content, as in `Manifest`."""
    counts: Mapping[str, int]
    """The number of rows of the source by status."""
    kinds: Mapping[str, tuple[PackedShape, ...]]
    """The shapes of each kind, in the order of the rows."""
    latents: Mapping[str, Any] | None = None
    text: Mapping[str, Any] | None = None
    images: Mapping[str, Any] | None = None
    units: int = 0
    """The number of units of the source."""
    skipped: int = 0
    """The number of units that were left out of the dataset."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings of `pinxit pack`."""

    @property
    def rows(self) -> int:
        """The number of rows of the source."""
        return sum(self.counts.values())

    @property
    def kept(self) -> int:
        """The number of images."""
        return self.counts.get("ok", 0)

    @property
    def contents(self) -> tuple[str, ...]:
        """The kinds of records that the dataset holds."""
        return tuple(kind for kind, shapes in self.kinds.items() if any(s.packs for s in shapes))

    @property
    def held_out_images(self) -> int | None:
        """The number of held-out rows whose images are stored; None if all images are."""
        if all(shape.first == 0 for shape in self.kinds.get("images", ())):
            return None
        return int(self.settings["held_out_images"])

    def packs(self, kind: str) -> list[PackInfo]:
        """Returns the packs of a kind, in the order of the rows."""
        return [pack for shape in self.kinds.get(kind, ()) for pack in shape.packs]

    def fingerprint(self) -> str:
        """Returns the fingerprint of the dataset that was packed.

        Both have the same rows under the same numbers, so that a run may change from one to the
        other.
        """
        return self.dataset

    def to_bytes(self) -> bytes:
        """Returns the content of ``packed.json``. Equal datasets give equal bytes."""
        content = {"format": FORMAT, **asdict(self)}
        return manifest_text({**content, "hash": _hash(content)}).encode()

    @classmethod
    def read(cls, store: ByteStore) -> PackedManifest:
        """Reads the manifest in a store. Raises `UsageError` if it is not valid, and OSError if it
        cannot be read."""
        path = f"{store.root.rstrip('/')}/{PACKED}"
        try:
            raw = json.loads(store.read(PACKED))
            expected, version = raw.pop("hash"), raw["format"]
            if version != FORMAT:
                raise UsageError(f"{path}: format {version!r} is unknown; valid: {FORMAT}")
            if _hash(raw) != expected:
                raise UsageError(f"{path} is damaged: its hash differs")
            del raw["format"]
            raw["kinds"] = {
                kind: tuple(_shape_from(shape) for shape in shapes)
                for kind, shapes in raw["kinds"].items()
            }
            return cls(**raw)
        except UsageError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} cannot be read ({error!r})") from error


def _shape_from(raw: Mapping[str, Any]) -> PackedShape:
    packs = tuple(PackInfo(**pack) for pack in raw["packs"])
    return PackedShape(raw["shape"], raw["rows"], raw["first"], packs)


def manifest_text(content: Mapping[str, Any]) -> str:
    """Returns a JSON text. Equal content gives equal text."""
    text = json.dumps(
        plain_values(content), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    return text + "\n"


def _hash(content: Mapping[str, Any]) -> str:
    """Returns a hash of the manifest's own content."""
    return hashlib.sha256(manifest_text(content).encode()).hexdigest()


def pack_name(kind: str, shape: str, number: int) -> str:
    """Returns the name of a pack, below the root."""
    return f"{PACKS}/{kind}-{shape or 'any'}-{number:05d}.pack"


def is_store_url(path: str) -> bool:
    """Returns whether a path is the URL of an object store."""
    scheme = urlsplit(path).scheme if "://" in path else ""
    return bool(scheme) and scheme.lower() not in NO_STORES


def is_packed(path: str) -> bool:
    """Returns whether `pinxit pack` has written this folder or URL, and has finished it."""
    if not is_store_url(path):
        return (Path(path).expanduser() / PACKED).is_file()
    names_files = path.lower().endswith(FILES) or any(sign in path for sign in "*?[")
    return not names_files and _remote(path) is not None


def read_packed(path: str) -> PackedManifest:
    """Returns the manifest of a packed dataset. Raises FileNotFoundError if there is none."""
    if not is_store_url(path):
        return PackedManifest.read(open_store(str(Path(path).expanduser())))
    if (manifest := _remote(path)) is None:
        raise FileNotFoundError(f"{path} has no {PACKED}")
    return manifest


_MANIFESTS: dict[str, PackedManifest] = {}


def _remote(url: str) -> PackedManifest | None:
    """Returns the manifest at a URL, or None if there is none. One that was read is kept, because
    many settings depend on it."""
    if url not in _MANIFESTS:
        store = open_store(url)
        try:
            if not store.exists(PACKED):
                return None
            _MANIFESTS[url] = PackedManifest.read(store)
        finally:
            store.close()
    return _MANIFESTS[url]
