"""Training on a prepared dataset: latents, or images, from verified shards.

A prepared dataset records the encoders that made it. The run's autoencoder must be the one that
made the latents. Stored text embeddings are used if they are of the run's text encoder. Otherwise
the text encoder runs inside the step. The last rows of the dataset are held out for
the validation loss. If a dataset has several image sizes (aspect-ratio buckets), each batch has
one size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int

from pinxit.arrays import Example
from pinxit.config import UsageError
from pinxit.data.bucketed_loader import BucketedLoader
from pinxit.data.image_column import IMAGES, LATENTS, image_column, text_in
from pinxit.data.loader import Loader
from pinxit.data.packed.packed_manifest import PackedManifest
from pinxit.data.prepared.dataset import DatasetManifest, Root, dataset_root, read_manifest
from pinxit.data.prepared.encoder_identity import ENCODERS, SCALING_OF_LATENTS
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.data.prepared.shards import DamagedShard
from pinxit.devices.mesh import local_rows
from pinxit.encoders.fingerprint import SCALING
from pinxit.encoders.text_columns import TextColumns, name_of
from pinxit.train.build import Parts, check_sizes, text_columns_for
from pinxit.train.display import Display
from pinxit.train.input.feed import Feed, stop_waiting
from pinxit.train.input.outage import Ended, Outage
from pinxit.train.input.patient_store import PatientStore
from pinxit.train.input.replaced_rows import ReplacedRows
from pinxit.train.settings import TrainConfig

LEAST_HELD_OUT = 10
"""Smallest number of held-out rows for a meaningful validation loss."""


class PreparedFeed(Feed):
    """Batches of a dataset that `pinxit prepare` wrote."""

    def __init__(
        self, config: TrainConfig, parts: Parts, display: Display, *, position: Any = None
    ) -> None:
        """Opens the dataset. `position` is the one stored in a checkpoint. Raises if the dataset
        does not fit the run."""
        self.display = display
        root = dataset_root(config.dataset_path or "")
        self.manifest = manifest = read_manifest(root)
        self._fingerprint = manifest.fingerprint()  # it hashes a line for each shard
        self.text, stored = stored_text(config, parts, manifest, display)
        uses_vae = config.encodes_ahead
        (check_latents if uses_vae else check_images)(config, parts, manifest, root)
        without = () if stored is None else (stored,)
        self._closed = threading.Event()
        outage = Outage(hours=config.outage_hours, say=display.say)
        outage.stopping = self._closed.is_set
        self.rows = rows = PreparedRows(
            root,
            kind=image_column(uses_vae),
            columns=lambda captions: self.text.whole(captions, without=without),
            text=stored is not None,
            suffix=name_of("", stored or 0),
            patience=lambda store: PatientStore(store, outage),
            say=display.say,
        )
        check_position(position, manifest, root)
        # the shuffle depends on the number of training rows, so a resumed run must hold out as many
        # as before
        count = position.get("held_out") if isinstance(position, dict) else None
        if count is None:
            count = held_out_count(config.evaluation.images, len(rows))
        check_held_out("evaluation.images", count, rows)
        self.reserved = rows.hold_out(count)
        count = len(self.reserved)
        display.say(f"{root}: {len(rows) - count} rows to train on, {count} held out")
        self.loader = self._loader = make_loader(config, parts, rows, display)
        for column in ("mean", "std") if uses_vae and manifest.latents else ():
            values = ", ".join(f"{value:.3f}" for value in (manifest.latents or {})[column])
            display.say(f"latents' {column} by channel: {values}")
        self.text_columns = text_in(rows.take(np.arange(1)))
        before = position.get("rows_replaced", 0) if isinstance(position, dict) else 0
        self.replaced = ReplacedRows(before)
        self._start = rows.replaced
        self._ended = ""
        self._last: dict[int, dict[str, np.ndarray]] = {}
        """The last batch of each image size, by its number among the buckets."""
        self._loader.read = self._read

    def begin(self, step: int) -> None:
        """Makes too many damaged shards end the run with a checkpoint from now on."""
        self.rows.too_damaged = self._end

    def held_out(self) -> list[Example]:
        """Returns the held-out rows, without those in damaged shards."""
        return held_out(self.rows, self.reserved, self.display.say)

    def watch(self, interrupted: Callable[[], bool]) -> None:
        """Cancels waiting for a batch once `interrupted` returns True."""
        stop_waiting(self.loader, interrupted)

    def position(self, step: int) -> dict[str, Any]:
        """Returns the step, the dataset's fingerprint, and how many rows were held out, and
        replaced so far if there are any."""
        dataset, count = self._fingerprint, len(self.reserved)
        replaced = self.replaced.count(step)
        more = {"rows_replaced": replaced} if replaced else {}
        return {"step": step, "dataset": dataset, "held_out": count, **more}

    def figures(self) -> dict[str, float]:
        """Returns how many rows of damaged shards were replaced until this step, if any."""
        count = self.replaced.count(self._loader.served)
        return {"rows_replaced": count} if count else {}

    def results(self) -> dict[str, Any]:
        """Returns the dataset's fingerprint, its rows by status, its unusable shards, and how many
        rows were replaced."""
        return {
            "dataset": self._fingerprint,
            "rows": dict(self.manifest.counts),
            "damaged_shards": self.rows.damaged | self.replaced.shards(),
            "rows_replaced": self.replaced.count(self._loader.served),
        }

    def close(self) -> None:
        """Closes the loader, and ends the thread that hashes shards and the wait for a store."""
        self._closed.set()
        super().close()
        self.rows.end_checks()

    def ended(self) -> str:
        """Returns why the run cannot go on: too many shards are damaged, or the dataset's store
        could not be reached for too long."""
        return self._ended

    def _end(self, reason: str) -> None:
        self._ended = reason

    def _read(self, step: int) -> dict[str, np.ndarray]:
        """Reads a batch, and notes how many of its rows are replacements.

        If none can be read, returns an earlier batch of the same size: the run ends, but other
        processes have started the step that needs this part.
        """
        first = int(self._loader.row_numbers(step)[0])
        bucket = next(i for i, rows in enumerate(self.rows.buckets) if first < rows.stop)
        try:
            self._last[bucket] = self._loader.batch(step)
        except (DamagedShard, Ended) as error:
            self._end(str(error))
            if bucket not in self._last or self._closed.is_set():
                raise
        self.replaced.note(step, self.rows.replaced - self._start, self.rows.damaged)
        return self._last[bucket]


def held_out_count(images: int, rows: int) -> int:
    """Returns how many of `rows` to hold out: `images`, but at most a quarter, or 0 if that is too
    few for a validation loss."""
    count = min(images, rows // 4)
    return count if count >= LEAST_HELD_OUT else 0


def check_held_out(field: str, count: int, rows: PreparedRows) -> None:
    """Raises if a packed dataset has images, but those of fewer held-out rows than `count`."""
    manifest = rows.manifest
    if not isinstance(manifest, PackedManifest) or IMAGES not in manifest.contents:
        return
    most = manifest.held_out_images
    if most is not None and count > most:
        valid = f"0 to {most}, or pack it again with --held_out_images {count}"
        problem = f"more than the held-out rows whose images {rows.root} was packed with ({most})"
        raise UsageError(field, count, problem=problem, valid=valid)


def make_loader(config: TrainConfig, parts: Parts, rows: PreparedRows, display: Display) -> Loader:
    """Makes the loader of the rows that are not held out. Each batch has one shape."""
    factor = parts.autoencoder.stats.downsample if rows.kind == LATENTS else 1
    buckets, part = rows.buckets, local_rows(parts.mesh, config.batch_size)
    sizes = [(b.shape[1] * factor, b.shape[0] * factor) for b in buckets if b.shape is not None]
    check_sizes(sizes, parts)
    if len(buckets) == 1:
        count = len(buckets[0])
        return Loader(rows, batch_size=config.batch_size, seed=config.seed, part=part, count=count)
    counts = sorted((w, h, len(b)) for (w, h), b in zip(sizes, buckets, strict=True))
    listed = ", ".join(f"{w} x {h} ({count})" for w, h, count in counts)
    display.say(f"{len(sizes)} image sizes (the step compiles once for each): {listed}")
    return BucketedLoader(
        rows, buckets=buckets, batch_size=config.batch_size, seed=config.seed, part=part
    )


def check_position(position: Any, manifest: DatasetManifest, root: Root) -> None:
    """Raises if a run would continue with other data than it was started with."""
    before = position.get("dataset") if isinstance(position, dict) else None
    if before is not None and before != manifest.fingerprint():
        raise UsageError(
            f"resume: this run was started on dataset {before}, but {root} is now "
            f"{manifest.fingerprint()}. Restore the original dataset, or start a new run with "
            "--name"
        )


def check_latents(config: TrainConfig, parts: Parts, manifest: DatasetManifest, root: Root) -> None:
    """Raises unless the run's autoencoder made the latents, from images of the run's size."""
    if manifest.latents is None:
        raise UsageError(
            "dataset_path",
            str(root),
            problem="a dataset without latents",
            valid="a complete run of `pinxit prepare`, or pixels with --model.use_stable_vae 0",
        )
    vae = manifest.identity.get(ENCODERS, {}).get("vae", {})
    if vae.get("fingerprint") != parts.encoders["vae"]:
        raise UsageError(
            "vae",
            config.vae,
            problem=f"not the autoencoder that {root} was prepared with ({vae.get('name')})",
            valid="the same autoencoder, or prepare the latents again into another folder",
        )
    check_scaling(config, parts, vae.get(SCALING_OF_LATENTS), root)
    check_images(config, parts, manifest, root)


def check_scaling(config: TrainConfig, parts: Parts, stored: str | None, root: Root) -> None:
    """Raises if the latents in `root` have another scale or shift than the run's autoencoder.

    `stored` is None for datasets of older versions, which do not record it.
    """
    current = parts.encoders.get(SCALING)
    if None not in (stored, current) and stored != current:
        raise UsageError(
            "vae",
            config.vae,
            problem=f"an autoencoder with {current}, but the latents in {root} have {stored}",
            valid="the scaling_factor and shift_factor that the latents were made with, or "
            "prepare them again into another folder",
        )


def check_images(config: TrainConfig, parts: Parts, manifest: DatasetManifest, root: Root) -> None:
    """Raises unless the images were made for the run's size."""
    if config.images.bucketed:
        name = "buckets" if config.images.buckets else "bucket_step"
        problem = f"not applicable: {root} has the image sizes that it was prepared with"
        raise UsageError(f"images.{name}", getattr(config.images, name), problem=problem)
    check_size(config, manifest, root)


def check_size(config: TrainConfig, manifest: DatasetManifest, root: Root) -> None:
    """Raises unless the images of a dataset have the model's size."""
    size = manifest.identity.get("image", {}).get("size")
    if size != config.image_size:
        raise UsageError(
            "image_size", config.image_size, problem=f"different from that of {root}", valid=[size]
        )


def stored_text(
    config: TrainConfig, parts: Parts, manifest: DatasetManifest, display: Display
) -> tuple[TextColumns, int | None]:
    """Returns the reader of text, and the index of the text encoder whose embeddings are stored, or
    None. The other text encoders run inside the step."""
    text = text_columns_for(config, parts)
    stored_of = manifest.identity.get(ENCODERS, {}).get("text") if manifest.text else None
    stored: int | None = None
    if stored_of is not None:
        for i, part in enumerate(text.parts):
            if fingerprint_of(part) == stored_of["fingerprint"] and text.cached[i]:
                stored = i
    if stored_of is not None and stored is not None:
        settings = {
            "cleaning": config.caption_cleaning,
            "max_tokens": text.parts[stored].max_tokens,
        }
        for name, value in settings.items():
            if stored_of[name] != value:
                setting = {"cleaning": "caption_cleaning", "max_tokens": "text_max_tokens"}[name]
                problem = "different from that of the stored text"
                raise UsageError(setting, value, problem=problem, valid=[stored_of[name]])
    cached = [i == stored for i in range(len(text.parts))]
    if missing := [i for i, cache in enumerate(text.cached) if cache and not cached[i]]:
        if config.cache_text:
            raise UsageError(
                "cache_text",
                True,
                problem="not possible: the dataset has no embeddings of this text encoder",
                valid="prepare it with --store_text 1, or --cache_text 0",
            )
        names = ", ".join(text.parts[i].kind for i in missing)
        display.say(f"the dataset has no embeddings of {names}, so it runs inside each step")
    return TextColumns(text.text_encoder, cache=cached), stored


def fingerprint_of(part: Any) -> str:
    """Returns the fingerprint of a text encoder's weights."""
    from pinxit.encoders.fingerprint import fingerprint

    return fingerprint(part.params)


def held_out(
    rows: PreparedRows, numbers: Int[np.ndarray, " n"], say: Callable[[str], None]
) -> list[Example]:
    """Returns the images and captions of these rows, without those in damaged shards.

    Returns none if the dataset has no images, or if too few rows are left. Rows whose latents were
    not finite are missing among the latents, so the images are looked up by key.
    """
    if not len(numbers):
        return []
    if IMAGES not in rows.manifest.contents:
        say("warning: the dataset has no images, so there is no validation loss")
        return []
    numbers = rows.sound(numbers)
    if rows.kind == IMAGES:
        examples = _examples(rows, numbers)
    else:
        try:
            examples = _by_key(rows, numbers, say)
        except DamagedShard:  # each damaged shard has been reported
            examples = []
    if len(examples) < LEAST_HELD_OUT:
        say(f"warning: only {len(examples)} held-out rows are left, so there is no validation loss")
        return []
    return examples


def _by_key(
    rows: PreparedRows, numbers: Int[np.ndarray, " n"], say: Callable[[str], None]
) -> list[Example]:
    """Returns the images and captions of rows of latents."""
    keys = [meta["key"] for meta in rows.meta(numbers)]
    images = PreparedRows(
        rows.root, kind=IMAGES, only_held_out=True, patience=rows.patience, say=say
    )
    places = images.find(keys)
    examples = _examples(images, np.array([places[key] for key in keys if key in places], np.int64))
    images.close()
    return examples


def _examples(rows: PreparedRows, numbers: Int[np.ndarray, " n"]) -> list[Example]:
    """Returns the images and captions of rows of images."""
    images, captions = rows.images(numbers), rows.captions(numbers)
    return [Example(image, caption) for image, caption in zip(images, captions, strict=True)]
