"""Trains the bundled CLIP (tokenizer, text tower, image tower) on scenes, from nothing.

    python scripts/train_clip.py             # about half an hour on two cores

The loss is CLIP's contrastive one, plus linear heads that read every attribute from the
end-of-text state and from the class token: they keep facts that rarely decide between two pictures
of a batch. The heads are thrown away.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from fitting import asset_directory, fit, scene_pool, shuffled, to_unit

from pinxit.data.scene import HEADS
from pinxit.data.scenes import Scenes
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
from pinxit.encoders.text import load_clip_tokenizer, train_clip_tokenizer
from pinxit.evaluate.judge import JudgeConfig, encode_labels

MAX_TOKENS = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=asset_directory("tiny"))
    parser.add_argument("--pairs", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--batch", type=int, default=96)
    args = parser.parse_args()

    images, captions, attributes = scene_pool(args.pairs, seed=31)
    varied = captions + [Scenes(seed=32, full_captions=True).caption(i) for i in range(10_000)]
    size = train_clip_tokenizer(varied, 1_000, args.out / "tokenizer", max_tokens=MAX_TOKENS)
    tokenizer, _ = load_clip_tokenizer(args.out / "tokenizer")
    encoded = [row.ids for row in tokenizer.encode_batch(captions)]
    lengths = [row.index(size - 1) + 1 for row in encoded]
    print(f"vocabulary {size}; tokens a caption: mean {np.mean(lengths):.1f}, most {max(lengths)}")
    token_ids = np.array(
        [(row + [size - 1] * MAX_TOKENS)[:MAX_TOKENS] for row in encoded], np.int32
    )
    token_ids[:, -1] = size - 1

    config = clip_config(size)
    labels = encode_labels(JudgeConfig(attributes=HEADS), attributes)
    params = {"clip": init_clip(config, jax.random.key(0)), "heads": init_heads(config)}

    def loss_fn(params, batch, key):
        pictures, tokens, labels = batch
        image = image_forward(params["clip"], config, normalise(pictures, size=64))
        text = text_forward(params["clip"], config, tokens)
        contrast = contrastive_loss(text.projected, image.projected, params["clip"]["logit_scale"])
        text_loss, text_right = _read(params["heads"]["text"], text.pooled, labels)
        image_loss, image_right = _read(params["heads"]["image"], image.pooled, labels)
        return contrast + text_loss + image_loss, {
            "contrast": contrast,
            "text": text_right,
            "image": image_right,
        }

    def batches():
        for index in shuffled(args.pairs, args.batch, seed=3):
            rows = {name: value[index] for name, value in labels.items()}
            yield to_unit(images[index]), token_ids[index], rows

    def report(step, average):
        save_clip(args.out / "text_encoder", average["clip"], config)

    average = fit(
        loss_fn,
        params,
        batches(),
        steps=args.steps,
        learning_rate=1e-3,
        every=100,
        on_report=report,
    )
    report(args.steps, average)


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


def _read(heads: dict, states: jax.Array, labels: dict) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy and accuracy over attributes; -1 labels do not count."""
    losses, right = [], []
    for name, head in heads.items():
        logits = states @ head[:-1] + head[-1]
        label = jnp.asarray(labels[name])
        known = label >= 0
        total = jnp.maximum(known.sum(), 1)
        log_p = jax.nn.log_softmax(logits)
        picked = jnp.take_along_axis(log_p, jnp.maximum(label, 0)[:, None], 1)[:, 0]
        losses.append(-jnp.sum(picked * known) / total)
        right.append(jnp.sum((logits.argmax(-1) == label) & known) / total)
    return jnp.mean(jnp.stack(losses)), jnp.mean(jnp.stack(right))


if __name__ == "__main__":
    main()
