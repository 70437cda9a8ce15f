"""Checkpoints as older versions stored them: all arrays in one folder, by Orbax."""

from __future__ import annotations

import json
from pathlib import Path

import orbax.checkpoint as ocp

from pinxit.checkpoint_files import MANIFEST, arrays_of_checkpoint, sha256_of
from pinxit.encoders.weights import unflatten


def to_version_1(folder: Path) -> None:
    """Rewrites a checkpoint in version 1 of the format. Its run.json stays as it is."""
    arrays = arrays_of_checkpoint(folder)
    tree = unflatten(
        {n: v for n, v in arrays.items() if not n.startswith("optimizer/")}, separator="/"
    )
    optimizer = {n.split("/", 1)[1]: v for n, v in arrays.items() if n.startswith("optimizer/")}
    tree["optimizer"] = {name.replace("/", "."): array for name, array in optimizer.items()}
    tree.setdefault("ema", {})
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    if (folder / "ema").is_dir():
        (folder / "ema").rmdir()
    with ocp.PyTreeCheckpointer() as writer:
        writer.save((folder / "state").absolute(), tree)
    (folder / MANIFEST).unlink()
    names = [path for path in folder.rglob("*") if path.is_file() and path.name != "chosen.json"]
    hashes = {str(path.relative_to(folder)): sha256_of(path) for path in names}
    (folder / MANIFEST).write_text(json.dumps({"version": 1, "sha256": hashes}))
