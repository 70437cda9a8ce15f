"""Training on what `pinxit prepare` made: latents, or images, from verified shards.

A prepared dataset says what it was made with. The run's autoencoder must be the one that made the
latents, and stored text embeddings are used where the run's text encoder is the one they are of; a
text encoder that is not stored runs inside the step. The last rows of the dataset are held out for
the validation loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from pinxit.arrays import Example
from pinxit.config import UsageError
from pinxit.data.loader import Loader, Rows
from pinxit.data.manifest import Manifest
from pinxit.data.prepare_latents import parse_shape
from pinxit.data.reading import PreparedRows
from pinxit.train.build import Parts
from pinxit.train.display import Display
from pinxit.train.feed import Feed
from pinxit.train.settings import TrainConfig
from pinxit.train.text import TextColumns, name_of

ENCODERS = "encoders"
"""Where the manifest's identity keeps what `encoder_identity` says."""


def encoder_identity(
    *, vae: str, vae_fingerprint: str, text: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What a manifest says of the encoders; `text` is what `text_identity` gives."""
    return {"vae": {"name": vae, "fingerprint": vae_fingerprint}, "text": text}


def text_identity(
    *, name: str, fingerprint: str, part: int, max_tokens: int, cleaning: str
) -> dict[str, Any]:
    """What a manifest says of stored text embeddings: of which part of which encoder they are."""
    return {
        "name": name,
        "fingerprint": fingerprint,
        "part": part,
        "max_tokens": max_tokens,
        "cleaning": cleaning,
    }


LEAST_HELD_OUT = 10
"""Fewer rows tell nothing of the loss."""


class Leading:
    """The first rows of others."""

    def __init__(self, rows: Rows, count: int) -> None:
        self.rows = rows
        self.count = count

    def __len__(self) -> int:
        return self.count

    def take(self, rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """The arrays of these rows."""
        return self.rows.take(rows)


def open_prepared(
    config: TrainConfig, parts: Parts, display: Display, *, position: Any = None
) -> Feed:
    """The feed of a run on a prepared dataset. Raises for one that does not fit the run."""
    root = Path(config.dataset_path or "").expanduser()
    manifest = Manifest.read(root)
    text, stored = stored_text(config, parts, manifest, display)
    uses_vae = config.encodes_ahead
    shape = check_latents(config, parts, manifest, root) if uses_vae else None
    if not uses_vae:
        check_images(config, manifest, root)
    without = () if stored is None else (stored,)
    rows = PreparedRows(
        root,
        kind="latents" if uses_vae else "images",
        shape=shape,
        columns=lambda captions: text.whole(captions, without=without),
        text=stored is not None,
        suffix=name_of("", stored or 0),
        say=display.say,
    )
    check_position(position, manifest, root)
    count, held = len(rows), min(config.evaluation.images, len(rows) // 4)
    if held < LEAST_HELD_OUT:
        held = 0
    display.say(f"{root}: {count - held} rows to train on, {held} held out")
    for column in ("mean", "std") if uses_vae and manifest.latents else ():
        values = ", ".join(f"{value:.3f}" for value in (manifest.latents or {})[column])
        display.say(f"latents' {column} by channel: {values}")
    return Feed(
        Loader(Leading(rows, count - held), batch_size=config.batch_size, seed=config.seed),
        text,
        {name: array for name, array in rows.take(np.arange(1)).items() if name != "latents"},
        lambda: held_out(rows, held, display),
        position=lambda step: {"step": step, "dataset": manifest.fingerprint()},
        figures=lambda: {"rows_replaced": rows.replaced} if rows.replaced else {},
        results=lambda: {
            "dataset": manifest.fingerprint(),
            "rows": dict(manifest.counts),
            "quarantined": dict(rows.quarantined),
        },
    )


def check_position(position: Any, manifest: Manifest, root: Path) -> None:
    """Raises where a run would go on with other data than it was begun with."""
    before = position.get("dataset") if isinstance(position, dict) else None
    if before is not None and before != manifest.fingerprint():
        raise ValueError(
            f"resume: the run was begun with the dataset {before} and {root} is "
            f"{manifest.fingerprint()} (prepared again, or another one); give back the former, or "
            "another --name"
        )


def check_latents(
    config: TrainConfig, parts: Parts, manifest: Manifest, root: Path
) -> tuple[int, ...]:
    """The shape of the latents to train on. Raises unless the run's autoencoder made them."""
    if manifest.latents is None:
        raise UsageError(
            "dataset_path",
            str(root),
            problem="without latents",
            valid="run `pinxit prepare` to its end, or train on pixels: --model.use_stable_vae 0",
        )
    made = manifest.identity.get(ENCODERS, {}).get("vae", {})
    if made.get("fingerprint") != parts.encoders["vae"]:
        raise UsageError(
            "vae",
            config.vae,
            problem=f"not what {root} was prepared with ({made.get('name')})",
            valid="the same autoencoder, or prepare the latents again into another folder",
        )
    stats = parts.autoencoder.stats
    side = config.image_size // stats.downsample
    names = sorted({name for shapes in manifest.latents["shapes"] for name in shapes})
    known = [parse_shape(name) for name in names]
    if (side, side, stats.channels) not in known:
        sizes = [" x ".join(str(n * stats.downsample) for n in shape[:2]) for shape in known]
        raise UsageError(
            "image_size", config.image_size, problem=f"not in {root}", valid=", ".join(sizes)
        )
    return side, side, stats.channels


def check_images(config: TrainConfig, manifest: Manifest, root: Path) -> None:
    """Raises unless the images have the run's size."""
    image = manifest.identity.get("image", {})
    if image.get("size") != config.image_size or image.get("buckets"):
        raise UsageError(
            "image_size", config.image_size, problem=f"not that of {root}", valid=[image["size"]]
        )


def stored_text(
    config: TrainConfig, parts: Parts, manifest: Manifest, display: Display
) -> tuple[TextColumns, int | None]:
    """How text is read: which part's embeddings are stored; the others run inside the step."""
    text = parts.text
    made = manifest.identity.get(ENCODERS, {}).get("text") if manifest.text else None
    stored: int | None = None
    if made is not None:
        for i, part in enumerate(text.parts):
            if fingerprint_of(part) == made["fingerprint"] and text.cached[i]:
                stored = i
    if made is not None and stored is not None:
        asked = {"cleaning": config.caption_cleaning, "max_tokens": text.parts[stored].max_tokens}
        for name, value in asked.items():
            if made[name] != value:
                setting = {"cleaning": "caption_cleaning", "max_tokens": "text_max_tokens"}[name]
                problem = "not what the stored text was prepared with"
                raise UsageError(setting, value, problem=problem, valid=[made[name]])
    cached = [i == stored for i in range(len(text.parts))]
    if left := [i for i, wanted in enumerate(text.cached) if wanted and not cached[i]]:
        if config.cache_text:
            raise UsageError(
                "cache_text",
                True,
                problem="not possible: the dataset holds no embeddings of this text encoder",
                valid="prepare it with --store_text 1, or --cache_text 0",
            )
        names = ", ".join(getattr(text.parts[i], "kind", "text encoder") for i in left)
        display.say(f"the dataset holds no embeddings of {names}: it runs inside each step")
    return TextColumns(text.text_encoder, cache=cached), stored


def fingerprint_of(part: Any) -> str:
    """Of a text encoder's weights."""
    from pinxit.encoders.fingerprint import fingerprint

    return fingerprint(part.params)


def held_out(rows: PreparedRows, count: int, display: Display) -> list[Example]:
    """The images and captions of the last `count` rows; none where the images are elsewhere.

    Latents lie in the order of the images, without those that were not finite, so the images of the
    last rows are found by key from the end.
    """
    if not count:
        return []
    numbers = np.arange(len(rows) - count, len(rows))
    if "images" not in rows.manifest.files:
        display.say("warning: the dataset has no images, so there is no validation loss")
        return []
    if rows.kind == "images":
        return _examples(rows, numbers)
    wanted = [meta["key"] for meta in rows.meta(numbers)]
    images = PreparedRows(rows.root, kind="images", say=display.say)
    found: dict[str, Example] = {}
    for stop in range(len(images), 0, -count):
        some = np.arange(max(0, stop - count), stop)
        keys = [meta["key"] for meta in images.meta(some)]
        found |= dict(zip(keys, _examples(images, some), strict=True))
        if all(key in found for key in wanted):
            break
        found = {key: found[key] for key in wanted if key in found}
    images.close()
    return [found[key] for key in wanted if key in found]


def _examples(rows: PreparedRows, numbers: Int[np.ndarray, " b"]) -> list[Example]:
    images = rows.take(numbers)["images"]
    captions = rows.captions(numbers)
    return [Example(image, caption) for image, caption in zip(images, captions, strict=True)]
