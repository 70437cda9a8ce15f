"""The judge: a small convolutional classifier that reads a scene's attributes from its picture.

Each attribute (time of day, object, colour, ...) is one softmax over its values. The trunk is a
stack of stages, each a 3x3 convolution of stride 2 followed by residual 3x3 convolutions. The final
grid is flattened and passed to a two-layer head. It is not averaged, because the position of an
object is an attribute too.

The accuracy of a model's pictures is the fraction of attributes for which the judge reads the value
in the prompt. The judge's own accuracy on real renders is the ceiling of that figure, and is stored
with its weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from safetensors.numpy import load_file, save_file

from pinxit.arrays import ArrayLike, to_pixels, to_uint8
from pinxit.config import UsageError
from pinxit.encoders.weights import flatten, unflatten
from pinxit.files import whole_set

ASSETS = Path(__file__).parent.parent / "assets" / "judge"
SEPARATOR = "/"
"""Separates the parts of a tensor's name; attributes such as ``left.object`` contain dots."""


@dataclass(frozen=True)
class JudgeConfig:
    """The judge's shape, the attributes that it reads, and its measured accuracy."""

    attributes: Mapping[str, tuple[str, ...]]
    """Values of each attribute, in the order of the logits."""
    image_size: int = 64
    """Side of the square image it was trained on, in pixels."""
    channels: tuple[int, ...] = (24, 48, 96, 128)
    """Width of each stage; every stage halves the resolution."""
    residuals: int = 1
    """Residual convolutions in each stage after the first (the first, at full width, has none)."""
    hidden: int = 256
    """Width of the layer between the flattened grid and the heads."""
    groups: int = 8
    """Number of groups of the group normalisation."""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """Measured accuracy on real renders of held-out scenes, by attribute: the ceiling."""

    def __post_init__(self) -> None:
        if not self.attributes:
            raise UsageError("judge attributes: empty; give at least one attribute with its values")
        if self.image_size % 2 ** len(self.channels):
            raise UsageError(
                f"judge image_size: {self.image_size} is not divisible by "
                f"{2 ** len(self.channels)} (two to the number of stages)"
            )
        wrong = [width for width in self.channels if width % self.groups]
        if wrong:
            raise UsageError(f"judge channels: {wrong} not divisible by groups={self.groups}")

    @property
    def grid(self) -> int:
        """The side of the grid after the last stage."""
        return self.image_size // 2 ** len(self.channels)


def _conv_params(key: Array, fan_in: int, width: int) -> dict[str, Array]:
    kernel = jax.random.normal(key, (3, 3, fan_in, width)) * np.sqrt(2.0 / (9 * fan_in))
    return {
        "kernel": kernel,
        "scale": jnp.ones((width,)),
        "bias": jnp.zeros((width,)),
    }


def _dense_params(key: Array, fan_in: int, width: int, gain: float) -> dict[str, Array]:
    kernel = jax.random.normal(key, (fan_in, width)) * np.sqrt(gain / fan_in)
    return {"kernel": kernel, "bias": jnp.zeros((width,))}


def init_judge(config: JudgeConfig, key: Array) -> dict[str, Any]:
    """Returns the parameters of an untrained judge as a nested dict with string keys."""
    count = len(config.channels) * (1 + config.residuals) + 1 + len(config.attributes)
    keys = iter(jax.random.split(key, count))
    params: dict[str, Any] = {}
    fan_in = 3
    for stage, width in enumerate(config.channels):
        params[f"stage_{stage}"] = {"down": _conv_params(next(keys), fan_in, width)}
        for i in range(config.residuals if stage else 0):
            params[f"stage_{stage}"][f"residual_{i}"] = _conv_params(next(keys), width, width)
        fan_in = width
    params["hidden"] = _dense_params(next(keys), config.grid**2 * fan_in, config.hidden, 2.0)
    params["heads"] = {
        name: _dense_params(next(keys), config.hidden, len(values), 0.1)
        for name, values in config.attributes.items()
    }
    return params


def _conv(params: Mapping[str, Array], x: Array, *, stride: int, groups: int) -> Array:
    """Applies a convolution, group normalisation and SiLU."""
    x = jax.lax.conv_general_dilated(
        x,
        params["kernel"],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    b, h, w, c = x.shape
    grouped = x.reshape(b, h * w, groups, c // groups)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    variance = grouped.var(axis=(1, 3), keepdims=True)
    x = ((grouped - mean) * jax.lax.rsqrt(variance + 1e-5)).reshape(b, h, w, c)
    return jax.nn.silu(x * params["scale"][None, None, None] + params["bias"][None, None, None])


def apply_trunk(
    params: Mapping[str, Any], config: JudgeConfig, images: Float[ArrayLike, "b hi wi 3"]
) -> Float[Array, "b d"]:
    """Returns the last hidden layer for images in [-1, 1] of side `config.image_size`."""
    x = jnp.asarray(images, jnp.float32)
    for stage in range(len(config.channels)):
        layers = params[f"stage_{stage}"]
        x = _conv(layers["down"], x, stride=2, groups=config.groups)
        for i in range(config.residuals if stage else 0):
            x = x + _conv(layers[f"residual_{i}"], x, stride=1, groups=config.groups)
    x = x.reshape(x.shape[0], -1)
    return jax.nn.silu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])


def apply_heads(
    params: Mapping[str, Any], config: JudgeConfig, hidden: Float[Array, "b d"]
) -> dict[str, Float[Array, "b _"]]:
    """Returns the logits of each attribute for the last hidden layer."""
    return {
        name: hidden @ params["heads"][name]["kernel"] + params["heads"][name]["bias"][None]
        for name in config.attributes
    }


def apply_judge(
    params: Mapping[str, Any], config: JudgeConfig, images: Float[ArrayLike, "b hi wi 3"]
) -> dict[str, Float[Array, "b _"]]:
    """Returns the logits of each attribute for images in [-1, 1] of side `config.image_size`."""
    return apply_heads(params, config, apply_trunk(params, config, images))


def judge_loss(
    params: Mapping[str, Any],
    config: JudgeConfig,
    images: Float[ArrayLike, "b hi wi 3"],
    labels: Mapping[str, ArrayLike],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Returns the mean cross-entropy and the accuracy by attribute; labels of -1 do not count."""
    losses, accuracy = [], {}
    for name, logits in apply_judge(params, config, images).items():
        label = jnp.asarray(labels[name])
        known = (label >= 0).astype(jnp.float32)
        total = jnp.maximum(known.sum(), 1.0)
        picked = jnp.take_along_axis(
            jax.nn.log_softmax(logits), jnp.maximum(label, 0)[:, None], axis=1
        )[:, 0]
        losses.append(-(picked * known).sum() / total)
        accuracy[name] = ((logits.argmax(-1) == label) * known).sum() / total
    return jnp.mean(jnp.stack(losses)), accuracy


def encode_labels(
    config: JudgeConfig, attributes: Sequence[Mapping[str, str]]
) -> dict[str, np.ndarray]:
    """Returns the index of each example's value by attribute, or -1 if it has none."""
    labels = {}
    for name, values in config.attributes.items():
        position = {value: i for i, value in enumerate(values)}
        index = [position.get(row.get(name, ""), -1) for row in attributes]
        labels[name] = np.array(index, np.int32)
    return labels


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Returns images (uint8 or in [-1, 1]) as float32 in [-1, 1] with the side `size`."""
    from PIL import Image

    if images.dtype != np.uint8:
        images = to_uint8(images)
    if images.shape[1:3] != (size, size):
        images = np.stack(
            [
                np.asarray(Image.fromarray(row).resize((size, size), Image.Resampling.LANCZOS))
                for row in images
            ]
        )
    return np.asarray(to_pixels(images))


class Judge:
    """A trained judge. Called with images, it returns the value it reads for every attribute."""

    def __init__(self, params: Mapping[str, Any], config: JudgeConfig) -> None:
        self.params = params
        self.config = config
        self._apply = jax.jit(lambda params, images: apply_judge(params, config, images))

    def logits(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns logits by attribute for images (uint8 or in [-1, 1]) of any square size."""
        ready = resize(np.asarray(images), self.config.image_size)
        return jax.tree.map(np.asarray, self._apply(self.params, ready))

    def __call__(self, images: np.ndarray) -> list[dict[str, str]]:
        best = {name: logits.argmax(-1) for name, logits in self.logits(images).items()}
        return [
            {name: self.config.attributes[name][int(index[i])] for name, index in best.items()}
            for i in range(len(images))
        ]


def save_judge(directory: str | Path, params: Mapping[str, Any], config: JudgeConfig) -> None:
    """Writes `model.safetensors` and `config.json` (attributes, shape, measured accuracy)."""
    tensors = {
        name: np.asarray(value, np.float32)
        for name, value in flatten(params, separator=SEPARATOR).items()
    }
    with whole_set(Path(directory), "model.safetensors", "config.json") as (weights, about):
        save_file(tensors, weights, metadata={"format": "np"})
        about.write_text(json.dumps(asdict(config), indent=2) + "\n")


def load_judge(directory: str | Path | None = None) -> Judge:
    """Returns the judge in `directory`, by default the judge that comes with the package."""
    directory = ASSETS if directory is None else Path(directory)
    if not (directory / "config.json").is_file():
        raise UsageError(
            f"judge: {directory} contains no judge; "
            "valid: a directory with config.json and model.safetensors"
        )
    stored = json.loads((directory / "config.json").read_text())
    stored["attributes"] = {name: tuple(values) for name, values in stored["attributes"].items()}
    stored["channels"] = tuple(stored["channels"])
    config = JudgeConfig(**stored)
    stored_tensors = load_file(str(directory / "model.safetensors"))
    tensors = {name: np.asarray(value, np.float32) for name, value in stored_tensors.items()}
    expected = flatten(
        jax.eval_shape(lambda: init_judge(config, jax.random.key(0))), separator=SEPARATOR
    )
    wrong = sorted(
        set(expected) ^ set(tensors)
        | {
            name
            for name in set(expected) & set(tensors)
            if expected[name].shape != tensors[name].shape
        }
    )
    if wrong:
        raise UsageError(
            f"judge: the tensors in {directory} do not fit its config.json; missing, unexpected or "
            f"of a wrong shape: {wrong}"
        )
    return Judge(unflatten(tensors, separator=SEPARATOR), config)
