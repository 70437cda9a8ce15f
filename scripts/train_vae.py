"""Trains the bundled autoencoder on scenes, from scratch.

    python scripts/train_vae.py              # about half an hour on two cores

The architecture is diffusers' AutoencoderKL, with latents eight times coarser than the picture. The
loss is the sum of an absolute error that weights edges more (small objects consist mostly of
edges), the absolute error of image gradients, and a small KL term. The scale of the latents is
measured at the end, so that the model sees unit variance.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from fitting import asset_directory, fit, halve, scene_pool, shuffled, to_unit
from PIL import Image

from pinxit.data.scenes.attributes import score
from pinxit.data.scenes.dataset import Scenes
from pinxit.encoders.vae import (
    AutoencoderKLConfig,
    decode_latents,
    encode_moments,
    init_vae,
    load_vae,
    save_vae,
)
from pinxit.evaluate.judge import load_judge

CONFIG = AutoencoderKLConfig(
    block_out_channels=(16, 32, 64, 96),
    layers_per_block=1,
    latent_channels=16,
    norm_num_groups=4,
    sample_size=64,
    scaling_factor=1.0,
    shift_factor=0.0,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=asset_directory("tiny") / "vae")
    parser.add_argument("--start", type=Path, help="continue from this autoencoder")
    parser.add_argument("--images", type=int, default=24_000)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--kl", type=float, default=1e-3, help="weight of the mean KL divergence")
    args = parser.parse_args()

    images, _, _ = scene_pool(args.images, seed=21)
    params = init_vae(CONFIG, jax.random.key(0))
    if args.start:
        params = grow(load_vae(args.start)[0], params)

    def loss_fn(params, pictures, key):
        mean, logvar = encode_moments(params, CONFIG, pictures)
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
        drawn = decode_latents(params, CONFIG, z)
        error, edges = jnp.abs(drawn - pictures), _edges(pictures)
        gradients = _gradient_error(drawn, pictures)
        kl = 0.5 * jnp.mean(mean**2 + jnp.exp(logvar) - 1 - logvar)
        loss = jnp.mean(error * (1 + 4 * edges)) + gradients + args.kl * kl
        mse = jnp.mean((drawn - pictures) ** 2)
        return loss, {"l1": jnp.mean(error), "psnr": 10 * jnp.log10(4 / mse), "kl": kl}

    def batches():
        for index in shuffled(args.images, args.batch, seed=2):
            yield to_unit(images[index])

    def report(step, average):
        save_vae(args.out, average, replace(CONFIG, scaling_factor=_scale(average, images[:256])))

    average = fit(
        loss_fn,
        params,
        batches(),
        steps=args.steps,
        learning_rate=args.learning_rate,
        every=500,
        weight_decay=1e-4,
        muon=True,
        on_report=report,
    )
    report(args.steps, average)
    halve(args.out)
    print("judge on reconstructions:", reconstruction_accuracy(args.out, 400))


def grow(old: dict, new: dict) -> dict:
    """`old`'s weights; where `new` has more latent channels, the added ones start as in `new`.

    Channels that give means and those that give log-variances lie in two halves of one axis.
    """

    def one(path, a, b):
        if a.shape == b.shape:
            return a
        halves = 2 if "decoder" not in str(path) and "post_quant" not in str(path) else 1
        axes = [axis for axis in range(b.ndim) if a.shape[axis] != b.shape[axis]]
        index = [np.arange(size) for size in a.shape]
        for axis in axes:
            per = a.shape[axis] // halves
            index[axis] = np.concatenate(
                [np.arange(per) + i * b.shape[axis] // halves for i in range(halves)]
            )
        return b.at[np.ix_(*index)].set(a)

    return jax.tree_util.tree_map_with_path(one, old, new)


def _edges(x: jax.Array) -> jax.Array:
    """How far each pixel lies from its 5x5 neighbourhood's mean, largest channel: about [0, 1]."""
    mean = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 5, 5, 1), (1, 1, 1, 1), "SAME") / 25
    return jnp.max(jnp.abs(x - mean), axis=-1, keepdims=True)


def _gradient_error(a: jax.Array, b: jax.Array) -> jax.Array:
    d = a - b
    return jnp.mean(jnp.abs(d[:, 1:] - d[:, :-1])) + jnp.mean(jnp.abs(d[:, :, 1:] - d[:, :, :-1]))


def _scale(params, images: np.ndarray) -> float:
    mean, _ = jax.jit(lambda p, x: encode_moments(p, CONFIG, x))(params, to_unit(images))
    return round(float(1 / jnp.std(mean)), 5)


def reconstruction_accuracy(directory: Path, count: int) -> dict[str, float]:
    """The judge's accuracy on decoded pictures, by attribute; draws originals above them."""
    params, config = load_vae(directory)
    scenes, judge = Scenes(length=count, seed=98, split="heldout"), load_judge()
    rebuild = jax.jit(
        lambda x: decode_latents(params, config, encode_moments(params, config, x)[0])
    )
    right: dict[str, list[bool]] = {}
    for start in range(0, count, 50):
        originals = np.stack([scenes[i].image for i in range(start, start + 50)])
        drawn = np.asarray(rebuild(to_unit(originals)))
        for i, answer in enumerate(judge(drawn)):
            for name, ok in score(scenes.scene(start + i), answer):
                right.setdefault(name, []).append(ok)
        if start == 0:
            pair = np.concatenate([to_unit(originals[:20]), drawn[:20]], axis=1)
            sheet = np.concatenate([np.concatenate(list(pair[i : i + 10]), 1) for i in (0, 10)])
            pixels = np.clip((sheet + 1) * 127.5, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save("reconstructions.png")
    return {name: round(float(np.mean(values)), 4) for name, values in right.items()}


if __name__ == "__main__":
    main()
