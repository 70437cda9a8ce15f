"""Loads a stored model with its encoders, ready to draw, and writes one as a release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from pinxit import extensions
from pinxit import stored_model as release
from pinxit.compiled_programs import write_whole_entries
from pinxit.config import UsageError, from_json, to_json
from pinxit.devices.hardware import check_encoder_dtype
from pinxit.free_memory import return_after_compiling
from pinxit.models.transformer import TransformerConfig, abstract, from_stored
from pinxit.pipeline import TextToImage
from pinxit.sampling import Sampling
from pinxit.stored_model import Stored


def load_checkpoint(
    path: str | Path | None = None, *, ema: str | None = None, encoder_dtype: str = "float32"
) -> TextToImage:
    """Loads a trained model; by default the shipped one.

    `path` is a run, a checkpoint, a release, a PRX pipeline directory of diffusers, a file of
    ``pinxit export --format safetensors``, or the id of a release or a PRX pipeline on the Hugging
    Face Hub (``owner/name``, ``owner/name@revision``). Something that exists here is never looked
    for on the Hub.

    `ema` selects one of a run's averages, or "raw" for the parameters themselves; only these are
    read. `encoder_dtype` "bfloat16" halves the encoders' memory and changes pictures slightly.
    """
    check_encoder_dtype(encoder_dtype)
    stored = release.read_model(path, ema=ema)
    return load_stored(stored, where=str(path or stored.name), encoder_dtype=encoder_dtype)


def load_stored(stored: Stored, *, where: str, encoder_dtype: str = "float32") -> TextToImage:
    """Loads the encoders of a model whose parameters were read, as `load_checkpoint` does.

    `where` names the model in messages.
    """
    from pinxit.encoders.autoencoder import load_autoencoder
    from pinxit.encoders.caption_cleaning import get_cleaner
    from pinxit.encoders.fingerprint import encoder_fingerprints
    from pinxit.encoders.text_encoder_catalogue import load_text_encoder

    write_whole_entries()
    return_after_compiling()
    autoencoder = load_autoencoder(stored.vae, dtype=encoder_dtype)
    text_encoder = load_text_encoder(
        stored.text_encoder,
        max_tokens=stored.text_max_tokens,
        clean=get_cleaner(stored.caption_cleaning),
        dtype=encoder_dtype,
    )
    fingerprints = encoder_fingerprints(text_encoder, autoencoder)
    release.check_encoders(stored.encoders, fingerprints, where=where)
    model = TextToImage(
        jax.device_put(stored.params),
        network_config(
            stored,
            channels=autoencoder.stats.channels,
            width=text_encoder.width,
            where=where,
        ),
        text_encoder=text_encoder,
        autoencoder=autoencoder,
        image_size=stored.image_size,
        sampling=from_json(Sampling, stored.sampling),
        name=stored.name,
    )
    model.stored = stored
    model.devices = jax.local_devices()
    return model


def network_config(stored: Stored, *, channels: int, width: int, where: str) -> TransformerConfig:
    """Returns the network's config for latents and text of these widths.

    Raises `UsageError` if the stored parameters do not fit it; `where` names the model.
    """
    config = from_stored(stored.model, in_channels=channels, context_dim=width)
    if problems := release.mismatches(stored.params, abstract(config)[1]):
        problem = f"inconsistent: its parameters do not fit its config ({problems})"
        raise UsageError("checkpoint", where, problem=problem)
    return config


def save_release(
    directory: str | Path,
    model: TextToImage,
    *,
    text_encoder: str,
    vae: str,
    dtype: str = "float32",
    caption_cleaning: str = "none",
    text_max_tokens: int | None = None,
    objective: dict[str, Any] | None = None,
    details: dict[str, Any] | None = None,
) -> Path:
    """Writes the model as a release that `load_checkpoint` reads."""
    from pinxit.encoders.fingerprint import encoder_fingerprints

    stored = Stored(
        params=model.params,
        model=to_json(model.config),
        text_encoder=text_encoder,
        vae=vae,
        image_size=model.image_size,
        name=model.name,
        sampling=to_json(model.sampling),
        objective=dict(objective or {}),
        extensions=extensions.loaded(),
        caption_cleaning=caption_cleaning,
        text_max_tokens=text_max_tokens,
        encoders=encoder_fingerprints(model.text_encoder, model.autoencoder),
        details=dict(details or {}),
    )
    return release.write_release(directory, stored, dtype=dtype)
