"""What to do with a run that diverges: words to add to its command, which work as they stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pinxit.train.resume_policy import options_of
from pinxit.train.settings import TrainConfig


def remedies(config: TrainConfig, dtype: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields settings that may keep a run from diverging, each with a description."""
    optimizer = config.optimizer
    yield {"optimizer.learning_rate": half_rate(config)}, "half the learning rate"
    warmup = max(100, 3 * min(optimizer.warmup_steps, config.max_steps // 5))
    yield {"optimizer.warmup_steps": warmup}, f"the rate rises again, over {warmup} steps"
    if optimizer.clip_norm is None:
        yield {"optimizer.clip_norm": 1.0}, "gradient clipping"
    if dtype != "float32":
        name, value = ("model.dtype", "float32") if config.model.dtype else ("use_amp", False)
        yield {name: value}, f"float32 instead of {dtype}"


def half_rate(config: TrainConfig) -> float:
    """Returns half the learning rate, rounded to three digits."""
    return float(f"{config.optimizer.learning_rate / 2:.3g}")


def step_to_return_to(
    steps: Sequence[int], *, best: int | None = None, tried: Sequence[int] = ()
) -> int | None:
    """Returns the step of the checkpoint to go back to, or None if there is no checkpoint.

    It is the newest one, but not after the step with the `best` loss, and an older one than those
    that were `tried` before, as far as there are such checkpoints.
    """
    newest_first = sorted(steps, reverse=True)
    good = [step for step in newest_first if best is None or step <= best] or newest_first[-1:]
    untried = [step for step in good if step not in tried]
    return next(iter(untried or good), None)


def ways_out(config: TrainConfig, dtype: str, step: int | None) -> list[str]:
    """Returns words for the command, one line for each remedy, with a description in brackets.

    They go back to the checkpoint of `step`, or start a new run if that is None.
    """
    where: dict[str, Any] = {"resume_step": step, "change": True}
    return words_for(config, dtype, {"name": f"{config.name}_2"} if step is None else where)


def words_for(config: TrainConfig, dtype: str, settings: dict[str, Any]) -> list[str]:
    """Returns the words for `settings` and each remedy, with a description in brackets."""
    return [f"{options_of(settings | do)}   ({text})" for do, text in remedies(config, dtype)]


def rescue_message(config: TrainConfig, dtype: str, step: int | None) -> str:
    """Returns what to do with a run that has stopped because it diverged."""
    if step is None:
        text = "There is no checkpoint to go back to. To start a new run, add one or more of these"
    else:
        text = "Nothing was saved since, so the same command stops here again. To rescue the run, "
        text += "add one or more of these"
    lines = [f"{text} to the command:", *ways_out(config, dtype, step)]
    return "\n  ".join(lines)
