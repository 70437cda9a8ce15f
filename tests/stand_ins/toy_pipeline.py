"""A minute model that draws, with toys in place of the encoders, and a count of compilations."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinxit.arrays import Conditioning, LatentStats
from pinxit.models.transformer import init_params, preset
from pinxit.pipeline import Sampling, TextToImage

WIDTH, TOKENS = 8, 4


class Words:
    """A text encoder that looks words up in a table."""

    kind = "words"
    cacheable = False
    max_tokens = TOKENS
    width = WIDTH

    def __init__(self):
        self.parts = (self,)
        self.params = {"table": jax.random.normal(jax.random.key(3), (64, WIDTH))}

    def tokenize(self, captions):
        rows = [[sum(map(ord, word)) % 63 + 1 for word in text.split()] for text in captions]
        return np.array([(row + [0] * TOKENS)[:TOKENS] for row in rows], np.int32)

    def truncated(self, captions):
        return np.array([len(text.split()) > TOKENS for text in captions], bool)

    def apply(self, params, token_ids):
        mask = jnp.asarray(token_ids) > 0
        return Conditioning(tokens=params["table"][token_ids], mask=mask.at[:, 0].set(True))

    def __call__(self, captions):
        return self.apply(self.params, self.tokenize(captions))


class Doubler:
    """An autoencoder whose latents are every second pixel."""

    stats = LatentStats(channels=3, downsample=2)
    params = None

    def encode(self, params, images, *, key=None):
        return jnp.asarray(images)[:, ::2, ::2]

    def decode(self, params, latents):
        return jnp.repeat(jnp.repeat(latents, 2, axis=1), 2, axis=2)


def config():
    return preset("debug", in_channels=3, context_dim=WIDTH, hidden_size=16, num_heads=2, depth=1)


def noisy_params():
    """Parameters whose output is not zero, as a fresh model's is."""
    params = init_params(config(), jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def toy_model(autoencoder: Any = None, **sampling: Any) -> TextToImage:
    """A model of pictures of 16 pixels, with random weights."""
    return TextToImage(
        noisy_params(),
        config(),
        text_encoder=Words(),
        autoencoder=autoencoder or Doubler(),
        image_size=16,
        sampling=Sampling(**{"steps": 2, "guidance_scale": 2.0} | sampling),
        name="toy",
    )


@contextlib.contextmanager
def compilations():
    """Collects the names of JAX's compilation events."""
    events = []

    def listen(name, seconds, **_):
        if name.endswith("backend_compile_duration"):
            events.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def pixels(images) -> list[bytes]:
    return [np.asarray(image).tobytes() for image in images]
