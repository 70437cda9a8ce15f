"""The frozen encoders of `pinxit prepare`: what is seen to beforehand, and how they are run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pinxit.config import UsageError
from pinxit.data.images.aspect_ratios import Size
from pinxit.data.prepared.encoder_identity import encoder_identity, text_identity
from pinxit.prepare.engines.base import Engine
from pinxit.prepare.latents import Encoders


@dataclass(frozen=True)
class MakeEncoders:
    """The encoders of the second stage, loaded where they are used."""

    vae: str
    dtype: str
    text_encoder: str | None
    text_max_tokens: int | None
    cleaning: str

    def __call__(self) -> Encoders:
        return self.load().ready()

    def load(self) -> LoadedEncoders:
        """Reads the weights; those of the text encoder are cut over this process's devices."""
        from pinxit.encoders.autoencoder import load_autoencoder

        return LoadedEncoders(self, load_autoencoder(self.vae, dtype=self.dtype), self._text())

    def _text(self) -> tuple[int, Any] | None:
        """The text encoder whose embeddings are stored, with its place among joined ones."""
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
        place = columns.cached.index(True) if True in columns.cached else 0
        return place, columns.parts[place]


@dataclass(frozen=True)
class LoadedEncoders:
    """The encoders with their weights."""

    made_by: MakeEncoders
    autoencoder: Any
    text: tuple[int, Any] | None
    """The text encoder whose embeddings are stored, with its place among joined ones."""

    def identity(self) -> dict[str, Any]:
        """What tells these encoders from others."""
        from pinxit.encoders.fingerprint import fingerprint

        text = None
        if self.text is not None:
            place, part = self.text
            text = text_identity(
                name=self.made_by.text_encoder or "",
                fingerprint=fingerprint(part.params),
                part=place,
                max_tokens=part.max_tokens,
                cleaning=self.made_by.cleaning,
            )
        vae = fingerprint(self.autoencoder.params)
        return encoder_identity(vae=self.made_by.vae, vae_fingerprint=vae, text=text)

    def ready(self) -> Encoders:
        """The encoders as the stage calls them, on all devices of this process."""
        from pinxit.devices.transfer import image_encoder

        run = image_encoder(self.autoencoder, own_devices())

        def encode(images: np.ndarray) -> np.ndarray:
            return np.asarray(run(images), np.float32)

        return Encoders(encode, None if self.text is None else self.text[1])


def own_devices() -> Any:
    """A mesh of this process's devices: each rank encodes by itself."""
    import jax

    from pinxit.devices.mesh import make_mesh

    return make_mesh("auto", jax.local_devices())


def encodes_here(engine: Engine, workers: int) -> bool:
    """Whether this process does the encoding itself, and so loads the encoders once."""
    return engine.name == "inline" or (engine.name != "ray" and workers == 1)


def check_devices(engine: Engine, workers: int) -> None:
    """Raises where several processes would want one TPU or GPU: the first takes all of it."""
    if encodes_here(engine, workers):
        return
    import jax

    kind = jax.default_backend()
    if kind == "cpu":
        return
    if engine.name == "ray":
        valid = "--stage images on Ray; then --stage latents with engine local, or rank for several"
        raise UsageError("engine", "ray", problem=f"not for latents on a {kind}", valid=valid)
    problem = f"too many for a {kind}: one process takes all devices"
    raise UsageError("latent_workers", workers, problem=problem, valid="1, or one rank a machine")


def check_dtype(dtype: str) -> None:
    """Raises where the device that encodes has no such arithmetic."""
    if dtype == "float32":
        return
    import jax

    from pinxit.devices.hardware import hardware_of

    device = jax.local_devices()[0]
    if hardware_of(device).encoder_dtype(dtype) != dtype:
        problem = f"not for a {device.device_kind}"
        raise UsageError("encoder_dtype", dtype, problem=problem, valid="float32")


def check_text(text_encoder: str) -> None:
    """Raises where there is no such text encoder, before days of fetching."""
    from pinxit.encoders.text_encoder_catalogue import check_text_encoder

    check_text_encoder(text_encoder)


def check_divisible(vae: str, sizes: Iterable[Size], *, field: str, value: Any) -> None:
    """Raises where the autoencoder is not there or cannot take images (width, height) of a size,
    before days of fetching."""
    from pinxit.encoders.autoencoder import downsample_of
    from pinxit.encoders.token_grid import TokenGrid

    factor = downsample_of(vae)
    if wrong := TokenGrid(factor, patch=1).misfits(sizes):
        width, height = wrong[0]
        problem = f"not divisible by the autoencoder's factor ({width} x {height})"
        raise UsageError(field, value, problem=problem, valid=f"multiples of {factor}")
