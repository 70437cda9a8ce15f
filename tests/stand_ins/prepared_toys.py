"""Small prepared datasets, and encoders that need no weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pinxit.arrays import Conditioning
from pinxit.data.images.decode import encode_image
from pinxit.data.prepared.shards import ShardReader, pack, unpack, write_shard
from pinxit.files import write_json
from pinxit.prepare.both_stages import run_latents
from pinxit.prepare.commit_log import CommitLog
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.gather import gather
from pinxit.prepare.latents import Encoders, LatentStage
from pinxit.prepare.ledger import Ledger, UnitRecord

SIZE = 16


def image(number: int, *, wide: bool = False) -> np.ndarray:
    """A flat picture whose colour is its number."""
    colour = [number % 256, number // 256, 128]
    return np.full((SIZE, 2 * SIZE if wide else SIZE, 3), colour, np.uint8)


def add_images(root: Path, unit: str, numbers: Sequence[int], *, wide: Sequence[int] = ()) -> None:
    """One unit of the first stage, done, with these pictures."""
    ledger = Ledger(root, "images")
    ledger.begin({"source": {"name": "toys"}, "image": {"size": SIZE}, "filters": {}})
    records = []
    for row, number in enumerate(numbers):
        jpeg = np.frombuffer(encode_image(image(number, wide=number in wide)), np.uint8)
        about = {"caption": f"toy {number}", "original": [20, 10], "crop": [5, 0, 15, 10]}
        records.append(pack({"jpeg": jpeg}, {"key": f"{unit}/{row:08d}", **about}))
    files = {}
    if records:
        files["images"] = write_shard(ledger.path("images", unit), records)
    ledger.commit(UnitRecord(unit, files, {"ok": len(records)} if records else {"timeout": 1}))


def image_dataset(
    root: Path, sizes: Sequence[int] = (7, 5, 8), *, wide: Sequence[int] = ()
) -> Path:
    """Units of these sizes; the pictures are numbered through."""
    units, start = [], 0
    for number, size in enumerate(sizes):
        units.append(f"{number:05d}-000")
        add_images(root, units[-1], range(start, start + size), wide=wide)
        start += size
    gather(root, units, "images").write(root)
    return root


def encode(images: np.ndarray) -> np.ndarray:
    """Means over 8 x 8 pixels, in [-1, 1]: ``b h/8 w/8 3``."""
    b, h, w, _ = images.shape
    means = images.reshape(b, h // 8, 8, w // 8, 8, 3).mean(axis=(2, 4))
    return (means / 127.5 - 1).astype(np.float16)


def encode_text(captions: Sequence[str]) -> Conditioning:
    """One token per letter, 4 wide, of at most 12; the first entry of each is its code."""
    tokens = np.zeros((len(captions), 12, 4), np.float32)
    mask = np.zeros((len(captions), 12), bool)
    for row, caption in enumerate(captions):
        for place, letter in enumerate(caption[:12]):
            tokens[row, place] = [ord(letter), place, 0.5, -1]
            mask[row, place] = True
    return Conditioning(tokens, mask, tokens.sum(axis=1)[:, :2])


def toy_encoders() -> Encoders:
    return Encoders(encode)


def toy_encoders_with_text() -> Encoders:
    return Encoders(encode, encode_text)


def latent_dataset(root: Path, sizes: Sequence[int] = (7, 5, 8), *, text: bool = False, wide=()):
    """Images and latents."""
    image_dataset(root, sizes, wide=wide)
    make = toy_encoders_with_text if text else toy_encoders
    ended = run_latents(
        LatentStage(root, make, batch_size=4), InlineEngine(), identity={"autoencoder": "means"}
    )
    assert ended.exit_code == 0 and ended.manifest is not None
    return root


def numbers(captions: Sequence[str]) -> dict[str, np.ndarray]:
    """The pictures' numbers, from their captions."""
    return {"number": np.array([int(caption.split()[1]) for caption in captions])}


def content(root: Path) -> dict[str, bytes]:
    """Everything that must be equal: all files but the records (seconds) and the previews."""
    files = [path for path in root.rglob("*") if path.is_file()]
    names = {str(path.relative_to(root)): path for path in files}
    aside = ("units/", "previews/", ".lock")
    return {n: p.read_bytes() for n, p in sorted(names.items()) if not n.startswith(aside)}


def records(path: Path) -> list[tuple[dict, dict]]:
    with ShardReader(path) as reader:
        return [unpack(record) for record in reader]


def record_of(ledger: Ledger, unit: str, *, generation: int = 0, text: str = "") -> UnitRecord:
    """A shard of one record in the ledger's folder, and the record of its unit."""
    path = ledger.path("images", unit, generation=generation)
    info = write_shard(path, [pack({}, {"key": unit, "text": text})])
    return UnitRecord(unit, {"images": info}, {"ok": 1, "timeout": 2}, generation, seconds=0.5)


def rewrite_records(
    root: Path, change: Callable[[dict[str, Any]], str], *, stage: str = "images"
) -> None:
    """Replaces each line of the stage's logs by the text that `change` makes of its record."""
    for path in (root / "units" / stage).glob("log-*.jsonl"):
        lines = [change(json.loads(line)) for line in path.read_text().splitlines()]
        path.write_text("".join(f"{line}\n" for line in lines))


def as_older_version(root: Path) -> None:
    """Turns the logs of commits into a file for each unit, as older versions wrote them."""
    for folder in (root / "units").glob("*"):
        for path in folder.glob("log-*.jsonl"):
            for line in path.read_text().splitlines():
                record = json.loads(line)
                del record["version"]
                write_json(folder / f"{record['unit']}.json", record)
            path.unlink()


def committed(root: Path, stage: str = "images") -> set[str]:
    """The units whose commit is in a log, as another process sees it."""
    log = CommitLog(root / "units" / stage)
    log.refresh()
    return set(log.units())
