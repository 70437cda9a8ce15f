"""Checks the packs of a packed dataset: their sizes, or every record."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pinxit.data.packed.pack_index import index_name
from pinxit.data.packed.pack_reader import verify_pack
from pinxit.data.packed.packed_manifest import PackedManifest, PackInfo
from pinxit.data.stores.byte_store import ByteStore, open_store
from pinxit.doctor.report_line import Line, ok, problem, size

AT_ONCE = 4
"""The number of packs that are read at the same time."""


def check_packs(
    root: str | Path, manifest: PackedManifest, kinds: Sequence[str], *, full: bool
) -> Line:
    """Checks the packs that a run reads, and those of the held-out images.

    With `full`, the CRC-32 of every record and the SHA-256 of every pack are compared. Otherwise
    the packs must be there and have the right sizes.
    """
    if absent := [kind for kind in kinds if kind not in manifest.contents]:
        message = f"{root} holds no {absent[0]}, which this run reads"
        return problem("dataset", message, "pack the dataset again, or correct --dataset_path")
    names = dict.fromkeys([*kinds, *(kind for kind in manifest.contents if kind == "images")])
    packs = [pack for kind in names for pack in manifest.packs(kind)]
    store = open_store(str(root))
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            check = verify_pack if full else _sized
            wrong = [text for text in pool.map(lambda pack: check(store, pack), packs) if text]
    finally:
        store.close()
    if wrong:
        message = f"{len(wrong)} of {len(packs)} packs: {'; '.join(wrong[:3])}"
        command = shlex.join(["pinxit", "pack", "DIR", "--out", str(root)])
        advice = f"delete these packs with their indexes, and run the same `{command}` again"
        return problem("dataset", message, advice)
    total = size(sum(pack.bytes for pack in packs))
    how = "the right checksums" if full else "the right size (--full compares their checksums)"
    return ok("dataset", f"{root}: {len(packs)} packs, {total}, all present with {how}")


def _sized(store: ByteStore, pack: PackInfo) -> str:
    """Returns what is wrong with the presence and size of a pack and its index, or ""."""
    try:
        if not store.exists(index_name(pack.name)):
            return f"{index_name(pack.name)} is missing"
        actual = store.size(pack.name)
    except FileNotFoundError:
        return f"{pack.name} is missing"
    except OSError as error:
        return f"{pack.name} is unreadable ({error.strerror or error})"
    return "" if actual == pack.bytes else f"{pack.name} has {actual} bytes instead of {pack.bytes}"
