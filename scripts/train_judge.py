"""Trains the attribute judge on scenes and prints its accuracy on real renders.

    python scripts/train_judge.py            # about ten minutes on two cores

A judge that had seen only the training combinations would guess an object from its colour, so this
one is trained on all combinations. Its accuracy is measured on renders with other seeds and only
held-out combinations.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from fitting import asset_directory, fit, halve, scene_pool, shuffled, to_unit

from pinxit.data.scenes.attributes import HEADS, score
from pinxit.data.scenes.dataset import Scenes
from pinxit.evaluate.judge import (
    Judge,
    JudgeConfig,
    encode_labels,
    init_judge,
    judge_loss,
    save_judge,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=asset_directory("judge"))
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()

    config = JudgeConfig(attributes=HEADS)
    images, _, attributes = scene_pool(args.images, seed=11)
    labels = encode_labels(config, attributes)

    def loss_fn(params, batch, key):
        pictures, labels = batch
        # A judge meets imperfect pictures: blur, noise and brightness must not change its mind.
        noise_key, scale_key, gain_key = jax.random.split(key, 3)
        scale = 0.12 * jax.random.uniform(scale_key, (len(pictures), 1, 1, 1))
        noise = scale * jax.random.normal(noise_key, pictures.shape)
        gain = 1 + 0.1 * jax.random.normal(gain_key, (len(pictures), 1, 1, 1))
        loss, accuracy = judge_loss(params, config, pictures * gain + noise, labels)
        return loss, {"accuracy": jnp.mean(jnp.stack(list(accuracy.values())))}

    def batches():
        for index in shuffled(args.images, args.batch, seed=1):
            yield to_unit(images[index]), {name: value[index] for name, value in labels.items()}

    params = fit(
        loss_fn,
        init_judge(config, jax.random.key(0)),
        batches(),
        steps=args.steps,
        learning_rate=1.5e-3,
        every=500,
    )
    accuracy = measure(Judge(params, config), 2_000)
    save_judge(args.out, params, replace(config, accuracy=accuracy))
    halve(args.out)
    print("accuracy on real held-out renders:", accuracy)
    print("mean:", np.mean(list(accuracy.values())))


def measure(judge: Judge, count: int) -> dict[str, float]:
    """Accuracy by attribute on `count` held-out renders."""
    scenes = Scenes(length=count, seed=99, split="heldout")
    right: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, count, 100):
        rows = range(start, min(start + 100, count))
        answers = judge(np.stack([scenes[i].image for i in rows]))
        for i, answer in zip(rows, answers, strict=True):
            for name, ok in score(scenes.scene(i), answer):
                right[name].append(ok)
    return {name: round(float(np.mean(values)), 4) for name, values in right.items()}


if __name__ == "__main__":
    main()
