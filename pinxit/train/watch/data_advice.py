"""What to do about data: faster ones, and captions that say nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from pinxit.data.sources.catalogue import SOURCES
from pinxit.guidance_warnings import out_of_range
from pinxit.train.datasets import DATASETS, PREPARED
from pinxit.train.settings import TrainConfig

LOOKED_AT = 64
"""Samples whose captions are looked at before anything is said of them."""


def faster_data(config: TrainConfig, row: Mapping[str, Any]) -> str:
    """What to try where the step waits, by the kind of data; `row` is the last row of metrics."""
    name = config.dataset_name
    if name == PREPARED:
        return (
            f"its storage is too slow: copy {config.dataset_path} to a local disk, prepare larger "
            "units (fewer files), or look for other work on this host; the first epoch also reads "
            "each shard once to verify it"
        )
    if name in DATASETS:
        return (
            "rows are in memory, so it is this host's processors: look for other work on them, or "
            "make the batch larger"
        )
    advice = []
    alive = row.get("alive_share")
    if alive is not None and alive < 0.9:
        advice.append(f"{alive:.0%} of the rows tried give an image")
    more = f"--fetch.concurrency {2 * config.fetch.concurrency}"
    if config.images.workers is not None:
        more += f" --images.workers {2 * config.images.workers}"
    advice.append(f"more at once ({more}; the same command with them goes on from here)")
    path = f" --dataset_path {config.dataset_path}" if config.dataset_path else ""
    named = name if name in SOURCES else "SOURCE"
    advice.append(
        "or, for more than a try, fetch and encode once: "
        f"pinxit prepare {named}{path} --out DIR, then --dataset_path DIR"
    )
    return ", ".join(advice)


def before_training(config: TrainConfig) -> list[str]:
    """What can be said of the settings alone."""
    said = []
    dropout = getattr(config.objective, "caption_dropout", 0.1)
    scale = config.sampling.guidance_scale
    if unusual := out_of_range(scale):
        said.append(f"sampling.{unusual}")
    if dropout >= 1:
        said.append(
            "objective.caption_dropout is 1: every caption is replaced by the empty one, and the "
            "model will not know text; 0.1 is usual"
        )
    elif dropout == 0 and scale not in (0, 1):
        said.append(
            "objective.caption_dropout is 0: the model never sees the empty caption, which "
            f"guidance (sampling.guidance_scale {scale:g}) steers away from; 0.1 is usual, or draw "
            "with --sampling.guidance_scale 1"
        )
    return said


class CaptionCheck:
    """Looks at the text of the first samples: whether there is any, and whether it differs."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.count = 0
        self.masked = True
        self.done = False

    def look(self, columns: Mapping[str, Any]) -> str | None:
        """What there is to say once enough samples were seen, and nothing afterwards.

        `columns` are a batch's ``token_ids``, or ``text_tokens`` and ``text_mask``, on the host.
        """
        if self.done:
            return None
        names = sorted(n for n in columns if n.startswith(("token_ids", "text_tokens")))
        if not names:
            self.done = True
            return None
        arrays = [np.asarray(columns[name]) for name in names]
        masks = [np.asarray(columns[n]) for n in sorted(columns) if n.startswith("text_mask")]
        self.masked &= bool(masks) and not any(mask.any() for mask in masks)
        for rows in zip(*arrays, strict=True):
            digest = hashlib.blake2b(digest_size=16)
            for row in rows:
                digest.update(np.ascontiguousarray(row).tobytes())
            self.seen.add(digest.digest())
            self.count += 1
        self.done = self.count >= LOOKED_AT or (len(self.seen) > 1 and not self.masked)
        return self._said() if self.done else None

    def _said(self) -> str | None:
        what = None
        if self.masked:
            what = "the text's mask is false everywhere, so the model sees no token of any caption"
        elif len(self.seen) == 1:
            what = f"the first {self.count} captions are all the same to the text encoder"
        if what is None:
            return None
        return (
            f"{what}: nothing can be learned from text; look at the column that captions are read "
            "from (--columns caption=NAME) and at --caption_cleaning"
        )
