"""The shapes of CLIP's towers, with the field names of Hugging Face's config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pinxit.config import UsageError
from pinxit.encoders.config_fields import finite_positive, known_fields, object_in

TOWERS = ("text", "vision")
ACTIVATIONS = ("quick_gelu", "gelu")
LEGACY_EOS = 2
"""The ``eos_token_id`` in configs of 2022. It means that the largest id of a row ends the text."""


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """The fields that both towers have, with the names of Hugging Face's config.json."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, int) and value < 1 and not name.endswith("_token_id"):
                raise UsageError(f"{name} is {value}; it must be at least 1")
        finite_positive("layer_norm_eps", self.layer_norm_eps)
        if self.hidden_size % self.num_attention_heads:
            raise UsageError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads "
                f"{self.num_attention_heads}"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise UsageError(f"hidden_act is {self.hidden_act!r}; known: {', '.join(ACTIVATIONS)}")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]):
        """Reads one tower's part of config.json; absent fields have Hugging Face's defaults."""
        return cls(**known_fields(cls, value))


@dataclass(frozen=True, kw_only=True)
class ClipTextConfig(TowerConfig):
    """The shape of the text tower, with Hugging Face's defaults."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    bos_token_id: int = 49406
    eos_token_id: int = 49407
    pad_token_id: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bos_token_id", "eos_token_id"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 0")


@dataclass(frozen=True, kw_only=True)
class ClipVisionConfig(TowerConfig):
    """The shape of the vision tower, with Hugging Face's defaults."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    num_channels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        size, patch = self.image_size, self.patch_size
        if size % patch:
            raise UsageError(f"image_size {size} is not divisible by patch_size {patch}")


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The shapes of a CLIP with one or both towers."""

    text: ClipTextConfig | None = None
    vision: ClipVisionConfig | None = None
    projection_dim: int | None = 512
    """Width of the common space; None where the towers have no projection."""
    logit_scale_init_value: float = 2.6592

    def __post_init__(self) -> None:
        if self.text is None and self.vision is None:
            raise UsageError("a CLIP config needs a text tower, a vision tower, or both")
        if self.projection_dim is not None and self.projection_dim < 1:
            raise UsageError(f"projection_dim is {self.projection_dim}; it must be at least 1")
        if not math.isfinite(self.logit_scale_init_value):
            value = self.logit_scale_init_value
            raise UsageError(f"logit_scale_init_value is {value}; it must be finite")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ClipConfig:
        """Reads the config.json of a CLIPModel or of one tower; ``model_type`` decides which.

        If a CLIPModel's config describes only one tower, the result has only that tower.
        """
        kind = value.get("model_type", "clip")
        numbers = {n: value.get(n) for n in ("projection_dim", "logit_scale_init_value")}
        common = {"projection_dim": value.get("projection_dim", 512)} | known_fields(cls, numbers)
        projection = {"projection_dim": common["projection_dim"]}
        if kind == "clip_text_model":
            return cls(text=ClipTextConfig.from_json(value), **projection)
        if kind == "clip_vision_model":
            return cls(vision=ClipVisionConfig.from_json(value), **projection)
        if kind != "clip":
            raise UsageError(
                f"model_type is {kind!r}; known: clip, clip_text_model, clip_vision_model"
            )
        towers = {
            name: object_in(value, f"{name}_config_dict") or object_in(value, f"{name}_config")
            for name in TOWERS
        }
        if all(tower is None for tower in towers.values()):
            towers = {x: {} for x in TOWERS}
        text, vision = towers["text"], towers["vision"]
        return cls(
            text=None if text is None else ClipTextConfig.from_json(text),
            vision=None if vision is None else ClipVisionConfig.from_json(vision),
            **common,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns Hugging Face's config.json for a CLIPModel, or for the only tower."""
        common = {"torch_dtype": "float32", "projection_dim": self.projection_dim or 512}
        suffix = "WithProjection" if self.projection_dim else ""
        towers: dict[str, dict[str, Any]] = {
            name: asdict(tower) | {"model_type": f"clip_{name}_model"} | common
            for name, tower in (("text", self.text), ("vision", self.vision))
            if tower is not None
        }
        if len(towers) == 1:
            ((name, tower),) = towers.items()
            return {"architectures": [f"CLIP{name.capitalize()}Model{suffix}"], **tower}
        return {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            **common,
            "logit_scale_init_value": self.logit_scale_init_value,
            "text_config": towers["text"],
            "vision_config": towers["vision"],
        }
