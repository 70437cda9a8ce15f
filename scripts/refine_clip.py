"""Goes on training the bundled CLIP's text tower, on captions, until it knows every attribute.

python scripts/refine_clip.py            # about a quarter of an hour on two cores

The image tower is kept, so the pictures' vectors are computed once; a step then costs the text
tower alone. The heads that read the end-of-text state count objects three times, since the
contrastive loss can be small without them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from fitting import asset_directory, fit, scene_pool, shuffled, to_unit
from train_clip import init_heads

from pinxit.data.scene import HEADS
from pinxit.data.scenes import Scenes
from pinxit.encoders.clip import (
    contrastive_loss,
    image_forward,
    load_clip,
    normalise,
    save_clip,
    text_forward,
)
from pinxit.encoders.text import load_clip_tokenizer
from pinxit.evaluate.judge import JudgeConfig, encode_labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, default=asset_directory("tiny"))
    parser.add_argument("--out", type=Path, default=asset_directory("tiny"))
    parser.add_argument("--pairs", type=int, default=8_000, help="pictures to stay aligned with")
    parser.add_argument("--captions", type=int, default=60_000, help="captions without a picture")
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--batch", type=int, default=96)
    args = parser.parse_args()

    params, config = load_clip(args.start / "text_encoder")
    tokenizer, longest = load_clip_tokenizer(args.start / "tokenizer")
    tokenizer.enable_truncation(longest)
    judge = JudgeConfig(attributes=HEADS)

    def tokens(captions: list[str]) -> np.ndarray:
        rows = [row.ids for row in tokenizer.encode_batch(captions)]
        ids = np.full((len(rows), longest), config.text.pad_token_id, np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        return ids

    images, captions, attributes = scene_pool(args.pairs, seed=33)
    look = jax.jit(lambda x: image_forward(params, config, normalise(x, size=64)).projected)
    vectors = np.concatenate(
        [np.asarray(look(to_unit(images[i : i + 100]))) for i in range(0, args.pairs, 100)]
    )
    ids, labels = tokens(captions), encode_labels(judge, attributes)
    more = Scenes(seed=34, split="any", full_captions=True, length=args.captions)
    more_ids = tokens([more.caption(i) for i in range(args.captions)])
    more_labels = encode_labels(judge, [more.scene(i).labels() for i in range(args.captions)])

    def loss_fn(trained, batch, key):
        vision, ids, labels = batch
        text = text_forward(trained["clip"], config, ids)
        contrast = contrastive_loss(text.projected[: len(vision)], vision, params["logit_scale"])
        loss, right = 0.0, {}
        for name, head in trained["heads"].items():
            logits = text.pooled @ head[:-1] + head[-1][None]
            label = jnp.asarray(labels[name])
            known = label >= 0
            picked = jnp.take_along_axis(
                jax.nn.log_softmax(logits), jnp.maximum(label, 0)[:, None], 1
            )[:, 0]
            weight = 3.0 if name.endswith("object") else 1.0
            loss -= weight * jnp.sum(picked * known) / jnp.maximum(known.sum(), 1)
            hit = jnp.sum((logits.argmax(-1) == label) & known) / jnp.maximum(known.sum(), 1)
            right.setdefault(name.split(".")[-1], []).append(hit)
        shown = {name: jnp.mean(jnp.stack(right[name])) for name in ("object", "colour", "size")}
        return contrast + loss / len(HEADS), {"contrast": contrast, **shown}

    def batches():
        pairs = shuffled(args.pairs, args.batch // 3, seed=5)
        alone = shuffled(args.captions, args.batch - args.batch // 3, seed=6)
        for a, b in zip(pairs, alone, strict=False):
            rows = {n: np.concatenate([labels[n][a], more_labels[n][b]]) for n in labels}
            yield vectors[a], np.concatenate([ids[a], more_ids[b]]), rows

    def report(step, average):
        whole = {**params, **average["clip"]}
        save_clip(args.out / "text_encoder", whole, config)

    text_only = {name: params[name] for name in ("text_model", "text_projection")}
    trained = {"clip": text_only, "heads": init_heads(config)["text"]}
    average = fit(
        loss_fn, trained, batches(), steps=args.steps, learning_rate=1e-3, on_report=report,
        ema_decay=0.99, every=50,
    )  # fmt: skip
    report(args.steps, average)


if __name__ == "__main__":
    main()
