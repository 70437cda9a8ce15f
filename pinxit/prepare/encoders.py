"""The frozen encoders of `pinxit prepare`: checks of their settings, loading, and running them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pinxit.compiled_programs import write_whole_entries
from pinxit.config import UsageError
from pinxit.data.images.aspect_ratios import Size
from pinxit.data.prepared.encoder_identity import encoder_identity, text_identity
from pinxit.free_memory import return_after_compiling
from pinxit.prepare.engines.base import Engine
from pinxit.prepare.latents import Encoders


@dataclass(frozen=True)
class MakeEncoders:
    """The settings of the second stage's encoders; calling it loads the encoders."""

    vae: str
    dtype: str
    text_encoder: str | None
    text_max_tokens: int | None
    cleaning: str

    def __call__(self) -> Encoders:
        return self.load().ready()

    def load(self) -> LoadedEncoders:
        """Loads the weights. Those of the text encoder are sharded over this process's devices."""
        from pinxit.encoders.autoencoder import load_autoencoder

        write_whole_entries()
        return_after_compiling()
        return LoadedEncoders(self, load_autoencoder(self.vae, dtype=self.dtype), self._text())

    def _text(self) -> tuple[int, Any] | None:
        """Loads the text encoder whose embeddings are stored.

        Returns it with its index among the joined text encoders, or None if no text is stored.
        """
        if self.text_encoder is None:
            return None
        from pinxit.devices.mesh import weight_sharding
        from pinxit.encoders.caption_cleaning import get_cleaner
        from pinxit.encoders.text_columns import TextColumns
        from pinxit.encoders.text_encoder_catalogue import load_text_encoder

        encoder = load_text_encoder(
            self.text_encoder,
            max_tokens=self.text_max_tokens,
            dtype=self.dtype,
            clean=get_cleaner(self.cleaning),
            sharding=weight_sharding(own_devices()),
        )
        columns = TextColumns(encoder)
        index = columns.cached.index(True) if True in columns.cached else 0
        return index, columns.parts[index]


@dataclass(frozen=True)
class LoadedEncoders:
    """The encoders with their weights."""

    settings: MakeEncoders
    autoencoder: Any
    text: tuple[int, Any] | None
    """The text encoder whose embeddings are stored, after its index among the joined encoders."""

    def identity(self) -> dict[str, Any]:
        """Returns the names, fingerprints and text settings that identify these encoders."""
        from pinxit.encoders.fingerprint import fingerprint, scaling_of

        text = None
        if self.text is not None:
            index, part = self.text
            text = text_identity(
                name=self.settings.text_encoder or "",
                fingerprint=fingerprint(part.params),
                part=index,
                max_tokens=part.max_tokens,
                cleaning=self.settings.cleaning,
            )
        return encoder_identity(
            vae=self.settings.vae,
            vae_fingerprint=fingerprint(self.autoencoder.params),
            scaling=scaling_of(self.autoencoder),
            text=text,
        )

    def ready(self) -> Encoders:
        """Returns the functions that the stage calls, which use all devices of this process."""
        from pinxit.devices.transfer import image_encoder

        run = image_encoder(self.autoencoder, own_devices())

        def encode(images: np.ndarray) -> np.ndarray:
            return np.asarray(run(images), np.float32)

        return Encoders(encode, None if self.text is None else self.text[1])


def own_devices() -> Any:
    """Makes a mesh of this process's devices, since each rank encodes independently."""
    import jax

    from pinxit.devices.mesh import make_mesh

    return make_mesh("auto", jax.local_devices())


def encodes_here(engine: Engine, workers: int) -> bool:
    """Returns whether this process encodes, instead of worker processes."""
    return engine.name == "inline" or (engine.name != "ray" and workers == 1)


def check_devices(engine: Engine, workers: int) -> None:
    """Raises if several processes would share one TPU or GPU, since one process takes all of it."""
    if encodes_here(engine, workers):
        return
    import jax

    kind = jax.default_backend()
    if kind == "cpu":
        return
    if engine.name == "ray":
        valid = (
            "--stage images on Ray, then --stage latents with engine local, "
            "or with engine rank for several machines"
        )
        problem = f"not supported for latents on a {kind}"
        raise UsageError("engine", "ray", problem=problem, valid=valid)
    problem = f"too many for a {kind}, because one process takes all devices"
    valid = "1, or one rank for each machine"
    raise UsageError("latent_workers", workers, problem=problem, valid=valid)


def check_text(text_encoder: str) -> None:
    """Raises if the text encoder does not exist, before days are spent on fetching."""
    from pinxit.encoders.text_encoder_catalogue import check_text_encoder

    check_text_encoder(text_encoder)


def check_divisible(vae: str, sizes: Iterable[Size], *, field: str, value: Any) -> None:
    """Raises if the autoencoder does not exist or cannot encode images of one of these sizes.

    A size is (width, height) in pixels. This is checked before days are spent on fetching.
    """
    from pinxit.encoders.autoencoder import downsample_of
    from pinxit.encoders.token_grid import TokenGrid

    factor = downsample_of(vae)
    if wrong := TokenGrid(factor, patch=1).misfits(sizes):
        width, height = wrong[0]
        problem = f"not divisible by the autoencoder's factor ({width} x {height})"
        raise UsageError(field, value, problem=problem, valid=f"multiples of {factor}")
