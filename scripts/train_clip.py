"""Trains the bundled CLIP (tokenizer, text tower, image tower) on scenes, from scratch.

    python scripts/train_clip.py             # about forty minutes on two cores

First the text tower alone learns to predict every attribute of a caption's scene, through linear
heads on the end-of-text state. Then both towers learn CLIP's contrastive loss, with such heads on
both. The contrastive loss alone can be small even if the towers ignore the objects; the heads
prevent this. They are discarded afterwards.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from fitting import asset_directory, fit, halve, scene_pool, shuffled, to_unit

from pinxit.data.scenes.attributes import HEADS
from pinxit.data.scenes.dataset import Scenes
from pinxit.encoders.clip import (
    ClipConfig,
    ClipTextConfig,
    ClipVisionConfig,
    contrastive_loss,
    image_forward,
    init_clip,
    normalise,
    save_clip,
    text_forward,
)
from pinxit.encoders.clip_tokenizer import load_clip_tokenizer, train_clip_tokenizer
from pinxit.evaluate.judge import JudgeConfig, encode_labels

MAX_TOKENS = 48
OF_A_THING = 3.0
"""Weight of a head that reads an object, its colour or its size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=asset_directory("tiny"))
    parser.add_argument("--captions", type=int, default=60_000, help="captions without a picture")
    parser.add_argument("--text_steps", type=int, default=1_500)
    parser.add_argument("--pairs", type=int, default=24_000)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--batch", type=int, default=96)
    args = parser.parse_args()

    judge = JudgeConfig(attributes=HEADS)
    images, captions, attributes = scene_pool(args.pairs, seed=31)
    alone, alone_attributes = caption_pool(args.captions, seed=32)
    size = train_clip_tokenizer(
        captions + alone, 1_000, args.out / "tokenizer", max_tokens=MAX_TOKENS
    )
    tokenizer, _ = load_clip_tokenizer(args.out / "tokenizer")
    ids, alone_ids = (_tokens(tokenizer, rows, size - 1) for rows in (captions, alone))
    labels, alone_labels = (encode_labels(judge, rows) for rows in (attributes, alone_attributes))
    print(f"vocabulary {size}")

    config = clip_config(size)
    clip, heads = init_clip(config, jax.random.key(0)), init_heads(config)

    def reading_loss(params, batch, key):
        ids, labels = batch
        state = text_forward(params["clip"], config, ids).pooled
        return read(params["heads"], state, labels)

    def caption_batches():
        for index in shuffled(args.captions, args.batch, seed=4):
            yield alone_ids[index], {name: value[index] for name, value in alone_labels.items()}

    text = {name: clip[name] for name in ("text_model", "text_projection")}
    first = fit(
        reading_loss, {"clip": text, "heads": heads["text"]}, caption_batches(),
        steps=args.text_steps, learning_rate=1e-3, ema_decay=0.99, every=50,
    )  # fmt: skip

    def pair_loss(params, batch, key):
        pictures, ids, labels = batch
        image = image_forward(params["clip"], config, normalise(pictures, size=64))
        text = text_forward(params["clip"], config, ids)
        seen = len(pictures)
        contrast = contrastive_loss(
            text.projected[:seen], image.projected, params["clip"]["logit_scale"]
        )
        text_loss, text_right = read(params["heads"]["text"], text.pooled, labels)
        pictured = {name: value[:seen] for name, value in labels.items()}
        image_loss, image_right = read(params["heads"]["image"], image.pooled, pictured)
        return contrast + text_loss + image_loss, {
            "contrast": contrast,
            **text_right,
            **{f"image_{name}": value for name, value in image_right.items()},
        }

    def pair_batches():
        pairs = shuffled(args.pairs, args.batch // 2, seed=5)
        more = shuffled(args.captions, args.batch - args.batch // 2, seed=6)
        for a, b in zip(pairs, more, strict=False):
            rows = {n: np.concatenate([labels[n][a], alone_labels[n][b]]) for n in labels}
            yield to_unit(images[a]), np.concatenate([ids[a], alone_ids[b]]), rows

    def report(step, average):
        save_clip(args.out / "text_encoder", average["clip"], config)

    params = {"clip": {**clip, **first["clip"]}, "heads": {**heads, "text": first["heads"]}}
    average = fit(
        pair_loss, params, pair_batches(), steps=args.steps, learning_rate=1e-3,
        ema_decay=0.99, every=50, on_report=report,
    )  # fmt: skip
    report(args.steps, average)
    halve(args.out / "text_encoder")


def caption_pool(count: int, *, seed: int) -> tuple[list[str], list[dict[str, str]]]:
    """Captions without pictures, half of them full, with the labels of their scenes."""
    scenes = [
        Scenes(seed=seed + i, split="any", full_captions=bool(i), length=count) for i in (0, 1)
    ]
    chosen = [scenes[i % 2] for i in range(count)]
    return (
        [one.caption(i) for i, one in enumerate(chosen)],
        [one.scene(i).labels() for i, one in enumerate(chosen)],
    )


def _tokens(tokenizer, captions: list[str], pad: int) -> np.ndarray:
    """Token ids, (len(captions), `MAX_TOKENS`); what is too long still ends in end-of-text."""
    ids = np.full((len(captions), MAX_TOKENS), pad, np.int32)
    for i, row in enumerate(tokenizer.encode_batch(captions)):
        ids[i, : len(row.ids)] = row.ids[:MAX_TOKENS]
    ids[:, -1] = pad
    return ids


def clip_config(vocabulary: int) -> ClipConfig:
    """Two towers of width 128 and depth 4."""
    shape = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    text = ClipTextConfig(
        **shape,
        vocab_size=vocabulary,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    vision = ClipVisionConfig(**shape, image_size=64, patch_size=8)
    return ClipConfig(text=text, vision=vision, projection_dim=128)


def init_heads(config: ClipConfig) -> dict:
    """One linear reading per attribute and tower, from zero."""
    width = config.text.hidden_size
    return {
        tower: {name: jnp.zeros((width + 1, len(values))) for name, values in HEADS.items()}
        for tower in ("text", "image")
    }


def read(heads: dict, states: jax.Array, labels: dict) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean cross-entropy over attributes, what belongs to a thing counting `OF_A_THING` times;
    and accuracy by kind of attribute. Labels of -1 do not count."""
    loss, right = jnp.zeros(()), defaultdict(list)
    for name, head in heads.items():
        logits = states @ head[:-1] + head[-1]
        label = jnp.asarray(labels[name])
        known = label >= 0
        total = jnp.maximum(known.sum(), 1)
        log_p = jax.nn.log_softmax(logits)
        picked = jnp.take_along_axis(log_p, jnp.maximum(label, 0)[:, None], 1)[:, 0]
        weight = OF_A_THING if "." in name else 1.0
        loss -= weight * jnp.sum(picked * known) / total / len(heads)
        hit = jnp.sum((logits.argmax(-1) == label) & known) / total
        right[name.split(".")[-1] if "." in name else "scene"].append(hit)
    return loss, {name: jnp.mean(jnp.stack(values)) for name, values in right.items()}


if __name__ == "__main__":
    main()
