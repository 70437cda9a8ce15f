"""Decides which pipeline of diffusers draws with a model, and refuses models that none can draw.

diffusers has two pipelines for our network. `PRXPipeline` takes the network's output for a velocity
and decodes the latents with an autoencoder. `PRXPixelPipeline` takes it for the clean image, which
it converts to a velocity, and has no autoencoder. Each has one text encoder from transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pinxit.config import UsageError, from_json
from pinxit.encoders.fingerprint import SCALING, fingerprint
from pinxit.export.autoencoder_part import AutoencoderPart, autoencoder_part
from pinxit.export.text_encoder_part import TextEncoderPart, text_encoder_part
from pinxit.model_loading import network_config
from pinxit.models.diffusers_prx import CLASS
from pinxit.models.transformer import TransformerConfig
from pinxit.prx_directory import SCHEDULER, TIMESTEPS
from pinxit.sampling import Sampling
from pinxit.stored_model import Stored, check_encoders

DIFFUSERS = "0.42.1"
"""The version of diffusers that the exported folders are tested with."""
BINNED = {"PRXPipeline": (256, 512, 1024), "PRXPixelPipeline": (1024,)}
"""The sizes at which a pipeline chooses among aspect ratios. At any other size it fails unless it
is called with ``use_resolution_binning=False``."""
INSTEAD = "write the network alone with --format safetensors, which Pinxit can load again"


@dataclass(frozen=True, kw_only=True)
class StockPipeline:
    """A model and the pipeline of diffusers that draws with it."""

    class_name: str
    """The pipeline's class."""
    stored: Stored
    config: TransformerConfig
    sampling: Sampling
    text_encoder: TextEncoderPart
    autoencoder: AutoencoderPart | None
    """The autoencoder; None for a pixel model."""

    @property
    def pixels(self) -> bool:
        """Whether the model draws pixels, without an autoencoder."""
        return self.autoencoder is None

    @property
    def binning(self) -> bool:
        """Whether a call of the pipeline may choose among aspect ratios, as it does by default."""
        return self.stored.image_size in BINNED[self.class_name]

    def model_index(self) -> dict[str, Any]:
        """Returns the contents of model_index.json."""
        index: dict[str, Any] = {
            "_class_name": self.class_name,
            "_diffusers_version": DIFFUSERS,
            "default_sample_size": self.stored.image_size,
        }
        if self.autoencoder is None:
            index |= {"prompt_max_tokens": self.text_encoder.max_tokens, "noise_scale": 1.0}
        index |= {
            "scheduler": ["diffusers", SCHEDULER],
            "text_encoder": ["transformers", self.text_encoder.class_name],
            "tokenizer": ["transformers", self.text_encoder.tokenizer_class],
            "transformer": ["diffusers", CLASS],
        }
        if self.autoencoder is not None:
            index["vae"] = ["diffusers", self.autoencoder.class_name]
        return index

    def scheduler(self) -> dict[str, Any]:
        """Returns the contents of scheduler_config.json."""
        return {
            "_class_name": SCHEDULER,
            "_diffusers_version": DIFFUSERS,
            "num_train_timesteps": TIMESTEPS,
            "shift": float(self.sampling.shift),
        }


def stock_pipeline(stored: Stored, *, where: str) -> StockPipeline:
    """Returns the pipeline that draws with a model. Reads no weights of the encoders.

    Raises `UsageError` if no stock pipeline can draw with it, and says why. `where` names the model
    in messages.
    """
    text_encoder = text_encoder_part(stored.text_encoder, stored.text_max_tokens, instead=INSTEAD)
    autoencoder = autoencoder_part(stored.vae, instead=INSTEAD)
    config = network_config(
        stored,
        channels=3 if autoencoder is None else autoencoder.channels,
        width=text_encoder.width,
        where=where,
    )
    _check_prediction(config, pixels=autoencoder is None)
    return StockPipeline(
        class_name="PRXPixelPipeline" if autoencoder is None else "PRXPipeline",
        stored=stored,
        config=config,
        sampling=from_json(Sampling, stored.sampling),
        text_encoder=text_encoder,
        autoencoder=autoencoder,
    )


def _check_prediction(config: TransformerConfig, *, pixels: bool) -> None:
    """Raises unless the network predicts what its pipeline takes its output for."""
    if pixels and config.prediction == "velocity":
        problem = (
            "not what the stock pipeline expects of a pixel model: PRXPixelPipeline takes the "
            f"output for the clean image, so that pictures would be wrong; {INSTEAD}"
        )
        raise UsageError("prediction", "velocity", problem=problem)
    if not pixels and config.prediction == "latents":
        problem = (
            "not what the stock pipeline expects of a latent model: PRXPipeline takes the output "
            f"for the velocity, so that pictures would be wrong; {INSTEAD}"
        )
        raise UsageError("prediction", "latents", problem=problem)


def check_trained_encoders(pipeline: StockPipeline, *, where: str) -> None:
    """Raises unless the encoders are those that the model was trained with. Reads their weights."""
    stored, autoencoder = pipeline.stored, pipeline.autoencoder
    if not stored.encoders:
        return
    loaded = {"text_encoder": fingerprint(pipeline.text_encoder.trained)}
    if autoencoder is not None:
        loaded |= {"vae": fingerprint(autoencoder.trained), SCALING: autoencoder.scaling}
    check_encoders(stored.encoders, loaded, where=where)
