"""What a prepared dataset says of itself, and the layout of its folder.

::

    DIR/  images.json  latents.json      what each stage was begun with; another setting is refused
          units/images/<unit>.json       one commit a unit and stage, written last: many workers
          units/latents/<unit>.json      never touch the same file, and no record means not done
          units/skipped/<unit>.json      why a unit was left out, where that was asked for
          images/<unit>.array_record     JPEG images, captions          outcomes/<unit>.parquet
          latents/<unit>.array_record    latents, captions     text/<unit>.array_record
          manifest.json                  all of it, written when every unit is done

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
from pinxit.data.prepared.shards import SUFFIX, ShardInfo
from pinxit.files import write_json

FORMAT = 2
"""The layout of the folder and of its files. No other is read."""
MANIFEST = "manifest.json"
Stage = Literal["images", "latents"]
STAGES: dict[Stage, dict[str, str]] = {
    "images": {"images": SUFFIX, "outcomes": ".parquet"},
    "latents": {"latents": SUFFIX, "text": SUFFIX},
}
"""Stage to the folders it writes, with how the names of the files in them end."""


def is_prepared(path: str) -> bool:
    """Whether this is a folder that `pinxit prepare` made, or has begun to make."""
    names = (MANIFEST, *(f"{stage}.json" for stage in STAGES))
    return any((Path(path).expanduser() / name).is_file() for name in names)


class Unfinished(UsageError):
    """The dataset is not prepared to the end."""


@dataclass(frozen=True)
class Manifest:
    """A prepared dataset as a whole."""

    identity: Mapping[str, Any]
    """What decided its content: source and revision, filters, image settings, encoders."""
    units: tuple[str, ...]
    """Ids in the source's order."""
    files: Mapping[str, tuple[ShardInfo | None, ...]]
    """Folder to one file a unit, in the order of `units`."""
    counts: Mapping[str, int]
    """Rows of the source by status."""
    latents: Mapping[str, Any] | None = None
    """``count``, ``shapes`` (of each unit, by "h x w x c", as written), ``mean`` and ``std`` of
    each channel, ``not_finite``; None before the latents are made."""
    text: Mapping[str, Any] | None = None
    """``width``, ``max_tokens``, ``pooled`` (a width, or none) and ``longest`` (tokens) of the text
    embeddings, where they are stored; ``wide`` captions needed more range than float16 has."""
    images: Mapping[str, Any] | None = None
    """``shapes`` of each unit, by "h x w x 3", as written; None where they were not recorded."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Units of the source that were left out, with the reason."""

    @property
    def rows(self) -> int:
        """Rows of the source."""
        return sum(self.counts.values())

    @property
    def kept(self) -> int:
        """Images."""
        return self.counts.get("ok", 0)

    def bytes(self, folder: str) -> int:
        """Size of all files in a folder."""
        return sum(info.bytes for info in self.files.get(folder, ()) if info)

    def fingerprint(self) -> str:
        """Hash of all that is trained on: equal for equal data, whoever prepared it, how often, and
        however the web failed. Outcomes are no part of it: their words differ from run to run."""
        content = {
            folder: [info and info.sha256 for info in infos]
            for folder, infos in self.files.items()
            if folder != "outcomes"
        }
        text = json.dumps([plain(self.identity), self.units, content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def summary(self) -> dict[str, Any]:
        """The figures that people ask for first."""
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
        """As `write` wrote it. `Unfinished` if it is not there, ValueError if it is not valid."""
        path = root / MANIFEST
        if not path.is_file():
            begun = any((root / f"{stage}.json").is_file() for stage in STAGES)
            said = "its preparation is not finished: run the same `prepare` command again"
            raise Unfinished(f"{root} has no {MANIFEST}; {said if begun else 'nothing is there'}")
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
        if (found := manifest.identity.get("format")) != FORMAT:
            raise UsageError(f"{path}: format {found!r} is unknown; valid: {FORMAT}")
        if manifest.fingerprint() != fingerprint:
            raise UsageError(f"{path} is damaged: its fingerprint differs")
        return manifest
