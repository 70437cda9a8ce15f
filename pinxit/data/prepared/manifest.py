"""Reads and writes the manifest of a prepared dataset, and defines the layout of its folder.

::

    DIR/  images.json  latents.json      the settings of each stage; other settings are refused
          units/images/log-*.jsonl       the commits of the units, a log for each process and stage:
          units/latents/log-*.jsonl      a unit's line is written last, and without it is not done
          units/list.json                the ids of all units
          units/skipped/<unit>.json      the reason why a unit was skipped (--skip_failed)
          images/<unit>.array_record     JPEG images, captions          outcomes/<unit>.parquet
          latents/<unit>.array_record    latents, captions     text/<unit>.array_record
          manifest.json                  the whole dataset, written when every unit is done

The commits, and the manifest gathered from them, are written by `pinxit.prepare.ledger`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pinxit.config import UsageError, plain
from pinxit.data.prepared.encoder_identity import without_scaling
from pinxit.data.prepared.shards import SUFFIX, ShardInfo
from pinxit.files import write_json

FORMAT = 2
"""The version of the layout of the folder and its files. Other versions are refused."""
MANIFEST = "manifest.json"
Stage = Literal["images", "latents"]
STAGES: dict[Stage, dict[str, str]] = {
    "images": {"images": SUFFIX, "outcomes": ".parquet"},
    "latents": {"latents": SUFFIX, "text": SUFFIX},
}
"""Maps each stage to the folders that it writes, with the suffix of the files in each."""


def is_prepared(path: str) -> bool:
    """Returns whether `pinxit prepare` has written this folder, or has begun to."""
    names = (MANIFEST, *(f"{stage}.json" for stage in STAGES))
    return any((Path(path).expanduser() / name).is_file() for name in names)


class Unfinished(UsageError):
    """Raised when the preparation of a dataset is not finished."""


@dataclass(frozen=True)
class Manifest:
    """The description of a whole prepared dataset."""

    identity: Mapping[str, Any]
    """The settings that determine the content: source and revision, filters, images, encoders."""
    units: tuple[str, ...]
    """The ids of the units, in the order of the source."""
    files: Mapping[str, tuple[ShardInfo | None, ...]]
    """Maps each folder to one file per unit, in the order of `units`."""
    counts: Mapping[str, int]
    """The number of rows of the source by status."""
    latents: Mapping[str, Any] | None = None
    """Statistics of the latents; None before they are made.

    ``count``, ``shapes`` (for each unit, the count by "h x w x c", in the order written), ``mean``
    and ``std`` of each channel, and ``not_finite``.
    """
    text: Mapping[str, Any] | None = None
    """Statistics of the text embeddings; None if none are stored.

    ``width``, ``max_tokens``, ``pooled`` (a width, or None), ``longest`` (in tokens), and ``wide``,
    the number of captions that needed more range than float16 has.
    """
    images: Mapping[str, Any] | None = None
    """``shapes`` as in `latents`, by "h x w x 3"; None if they were not recorded."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Maps each skipped unit of the source to the reason."""

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
        """The kinds of records that the dataset holds: its folders."""
        return tuple(self.files)

    def bytes(self, folder: str) -> int:
        """Returns the size of all files in a folder, in bytes."""
        return sum(info.bytes for info in self.files.get(folder, ()) if info)

    def fingerprint(self) -> str:
        """Returns a hash of all training data, which is equal for equal data.

        Retries and different failures on the web do not change it, because it excludes the outcomes
        (their details differ from run to run). The autoencoder's scale and shift show in the
        latents themselves, so a dataset that is prepared again keeps its hash of older versions.
        """
        content = {
            folder: [info and info.sha256 for info in infos]
            for folder, infos in self.files.items()
            if folder != "outcomes"
        }
        identity = without_scaling(plain(self.identity))
        text = json.dumps([identity, self.units, content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def summary(self) -> dict[str, Any]:
        """Returns the most important figures of the dataset."""
        return {
            "source": self.identity.get("source"),
            "units": len(self.units),
            "skipped": len(self.skipped),
            "rows": self.rows,
            "kept": self.kept,
            "kept_share": self.kept / self.rows if self.rows else 0.0,
            "counts": dict(sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))),
            "gigabytes": {name: round(self.bytes(name) / 1e9, 3) for name in self.files},
            "latents": self.latents and {k: v for k, v in self.latents.items() if k != "shapes"},
            "text": self.text,
            "fingerprint": self.fingerprint(),
        }

    def write(self, root: Path) -> None:
        """Writes ``manifest.json``."""
        write_json(root / MANIFEST, {**asdict(self), "fingerprint": self.fingerprint()})

    @classmethod
    def read(cls, root: Path) -> Manifest:
        """Reads the manifest in `root`.

        Raises `Unfinished` if there is none, and ValueError if it is not valid.
        """
        path = root / MANIFEST
        if not path.is_file():
            is_started = any((root / f"{stage}.json").is_file() for stage in STAGES)
            hint = "its preparation is not finished: run the same `prepare` command again"
            raise Unfinished(
                f"{root} has no {MANIFEST}; {hint if is_started else 'not a prepared dataset'}"
            )
        try:
            raw = json.loads(path.read_text())
            fingerprint = raw.pop("fingerprint")
            raw["units"] = tuple(raw["units"])
            raw["files"] = {
                folder: tuple(info and ShardInfo(**info) for info in infos)
                for folder, infos in raw["files"].items()
            }
            manifest = cls(**raw)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} cannot be read ({error!r})") from error
        if (version := manifest.identity.get("format")) != FORMAT:
            raise UsageError(f"{path}: format {version!r} is unknown; valid: {FORMAT}")
        if manifest.fingerprint() != fingerprint:
            raise UsageError(f"{path} is damaged: its fingerprint differs")
        return manifest
