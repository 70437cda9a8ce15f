"""Small packed datasets."""

from __future__ import annotations

from pathlib import Path

from pinxit.data.packed.packed_manifest import PackedManifest
from pinxit.data.stores.byte_store import ByteStore, LocalStore
from pinxit.prepare.packing.pack_dataset import PackSettings, pack_dataset
from pinxit.prepare.packing.pack_series import PackOutput


def packed(
    root: Path,
    out: Path | ByteStore,
    *,
    pack_bytes: int = 2000,
    held_out_images: int = 8,
    scratch: Path | None = None,
    **more,
) -> PackedManifest:
    """Packs the dataset in `root`; a pack of latents has a few records."""
    store = LocalStore(out) if isinstance(out, Path) else out
    output = PackOutput(store, scratch or root.parent)
    return pack_dataset(root, output, PackSettings(pack_bytes, held_out_images), **more)


def flip(path: Path, position: int | None = None) -> None:
    """Flips a bit of a file, in its middle by default."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 4
    path.write_bytes(data)
