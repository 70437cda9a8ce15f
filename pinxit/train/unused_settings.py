"""Refuses settings that would have no effect in a run.

`RULES` lists every setting that only some runs read. A test lists the others, so that a new setting
must be added to one of the lists, and checks that docs/training.md has the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from pinxit.config import UsageError, flattened
from pinxit.output_paths import has_protocol
from pinxit.train.datasets import DATASETS
from pinxit.train.settings import TrainConfig

HOLD_IMAGES = ("folder", "monet", "webdataset")
"""The sources whose rows hold their images, so that nothing is fetched for each row."""


@dataclass(frozen=True)
class UseRule:
    """Settings that only some runs read."""

    settings: tuple[str, ...]
    """Dotted names of settings, or of groups, whose settings all follow the rule."""
    readers: str
    """A description of the runs that read them, which follows the word "only"."""
    is_read: Callable[[TrainConfig], bool]
    """Returns whether a run with these resolved settings reads them."""

    def covers(self, name: str) -> bool:
        """Returns whether the rule is about the setting with this dotted name."""
        return any(name == one or name.startswith(f"{one}.") for one in self.settings)


def _is_generated(config: TrainConfig) -> bool:
    return config.dataset_name in DATASETS


def _is_uniform(config: TrainConfig) -> bool:
    time = getattr(config.objective, "time", None)
    return getattr(time, "distribution", None) == "uniform"


def _draws(config: TrainConfig, *, mid_run: bool = False) -> bool:
    """Returns whether evaluators read pictures, at the end or, with `mid_run`, on the way."""
    evaluation = config.evaluation
    chosen = evaluation.in_mid_run if mid_run else evaluation.at_end
    return chosen(config.dataset_name, evaluation.images).draws


RULES = (
    UseRule(("dataset_size", "cache_gb"), "by datasets made by code (scenes, mock)", _is_generated),
    UseRule(
        ("filters", "images", "columns", "text_encoding", "dataset_revision"),
        "by streamed datasets; `pinxit prepare` has its own",
        lambda config: config.streamed,
    ),
    UseRule(
        ("outage_hours",),
        "by streamed datasets and by packed ones in object stores; `pinxit prepare` has its own",
        lambda config: config.streamed or has_protocol(config.dataset_path or ""),
    ),
    UseRule(
        ("fetch",),
        "by streamed datasets of links, whose rows do not hold their images",
        lambda config: config.streamed and config.dataset_name not in HOLD_IMAGES,
    ),
    UseRule(
        ("vae",),
        "by models of latents (--model.use_stable_vae 1)",
        lambda config: config.model.use_stable_vae,
    ),
    UseRule(
        ("text_max_tokens",),
        "by text encoders with T5 or T5Gemma, since the length of CLIP is fixed",
        lambda config: config.text_encoder not in ("tiny", "clip"),
    ),
    UseRule(
        ("encoder_chunk",),
        "by encoders inside the step (--encode_in_step 1, or --cache_text 0)",
        lambda config: config.encode_in_step or config.cache_text is not True,
    ),
    UseRule(
        ("use_amp",),
        "without --model.dtype, which sets the precision",
        lambda config: config.model.dtype is None,
    ),
    UseRule(
        ("model.modulation_rank",),
        "by --model.modulation shared, to which each block adds its own",
        lambda config: config.model.modulation != "per_block",
    ),
    UseRule(
        ("model.scan_unroll",),
        "by the loop over blocks (--model.scan_blocks 1)",
        lambda config: config.model.scan_blocks is not False,
    ),
    UseRule(
        ("optimizer.momentum",),
        "by --optimizer.name muon",
        lambda config: config.optimizer.name == "muon",
    ),
    UseRule(
        ("optimizer.decay_steps",),
        "by --optimizer.schedule wsd",
        lambda config: config.optimizer.schedule == "wsd",
    ),
    UseRule(
        ("optimizer.final_fraction",),
        "by --optimizer.schedule cosine, linear and wsd",
        lambda config: config.optimizer.schedule != "constant",
    ),
    UseRule(
        ("objective.time.mean", "objective.time.std"),
        "by --objective.time.distribution logit_normal",
        lambda config: not _is_uniform(config),
    ),
    UseRule(
        ("ema.kind",),
        "with averages (--ema.lengths)",
        lambda config: bool(config.ema.lengths),
    ),
    UseRule(
        ("sampling.guidance_interval", "sampling.cfg_zero_star", "samples.negative_prompt"),
        "with guidance (--sampling.guidance_scale other than 1)",
        lambda config: config.sampling.guidance_scale != 1,
    ),
    UseRule(
        ("evaluation.prompts",),
        "by scenes, and with a network (--evaluation.inception, --evaluation.clip) or an evaluator "
        "of pictures in --evaluation.evaluators",
        lambda config: config.dataset_name == "scenes" or _draws(config),
    ),
    UseRule(
        ("evaluation.mid_run",),
        "with --eval_interval above 0",
        lambda config: bool(config.eval_interval),
    ),
    UseRule(
        ("evaluation.mid_run_prompts",),
        "with --eval_interval above 0 and an evaluator of pictures in --evaluation.mid_run",
        lambda config: bool(config.eval_interval) and _draws(config, mid_run=True),
    ),
    UseRule(
        ("evaluation.inception", "evaluation.clip", "evaluation.reference_images"),
        "by evaluations of pictures (--evaluation.prompts above 0)",
        lambda config: _draws(config),
    ),
    UseRule(
        ("evaluation.reference_statistics",),
        "with --evaluation.inception, by evaluations of pictures (--evaluation.prompts above 0)",
        lambda config: _draws(config) and config.evaluation.inception is not None,
    ),
    UseRule(
        ("evaluation.composition_prompts",),
        "with composition in --evaluation.evaluators",
        lambda config: "composition" in config.evaluation.evaluators,
    ),
    UseRule(
        ("evaluation.variety_prompts",),
        "with variety in --evaluation.evaluators",
        lambda config: "variety" in config.evaluation.evaluators,
    ),
    UseRule(
        ("evaluation.batch_size",),
        "with --evaluation.images or --evaluation.prompts above 0",
        lambda config: bool(config.evaluation.images or config.evaluation.prompts),
    ),
    UseRule(
        ("eval_interval",),
        "with held-out rows (--evaluation.images above 0), or with an evaluator of pictures in "
        "--evaluation.mid_run",
        lambda config: bool(config.evaluation.images) or _draws(config, mid_run=True),
    ),
    UseRule(
        ("distributed.timeout",),
        "by several processes (--distributed.coordinator other than off)",
        lambda config: config.distributed.coordinator != "off",
    ),
)
"""The settings that only some runs read."""
CHECKED_ELSEWHERE = ("images.size", "encode_in_step", "distributed.processes")
"""Settings whose wrong use has its own message."""


def unused(config: TrainConfig) -> Iterator[tuple[str, UseRule]]:
    """Yields each setting that a run with these resolved settings does not read, with its rule."""
    for name in flattened(config):
        for rule in RULES:
            if rule.covers(name) and name not in CHECKED_ELSEWHERE and not rule.is_read(config):
                yield name, rule


def check_used(
    config: TrainConfig,
    default: TrainConfig,
    names: Collection[str],
    *,
    saved: TrainConfig | None = None,
) -> None:
    """Raises `UsageError` for a setting among `names` that has no effect.

    Only values that differ from those of `default` are refused, and not those in `saved`, the
    settings that an earlier part of the run was started with.
    """
    values, defaults = flattened(config), flattened(default) | flattened(default.resolved())
    before: dict[str, Any] = {} if saved is None else flattened(saved)
    for name, rule in unused(config):
        value = values[name]
        if name not in names or value == defaults.get(name):
            continue
        if name in before and before[name] == value:
            continue
        problem = f"without effect in this run, since it is read only {rule.readers}"
        raise UsageError(name, value, problem=problem, valid="leave it out")
