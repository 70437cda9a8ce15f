"""Short names of the settings of training on the command line."""

from __future__ import annotations

TRAIN_ALIASES = {
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "warmup_steps": "optimizer.warmup_steps",
    "text_dropout_prob": "objective.caption_dropout",
    "caption_dropout": "objective.caption_dropout",
    "preset": "model.preset",
    "patch_size": "model.patch_size",
    "use_stable_vae": "model.use_stable_vae",
    "steps": "max_steps",
    "sampling.prompts": "samples.prompts",
    "sampling.seeds": "samples.seeds",
}
"""Short names of training settings, and names that older versions used."""
