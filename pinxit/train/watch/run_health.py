"""What goes wrong in a run, told from its rows of metrics while it happens.

A `RunWatch` is given every row and answers with findings: what was seen, with its figures, and
what to try. Each is said once an episode, which begins when its condition holds and ends when it is
clearly gone. No figure is judged against a fixed number that depends on the data: a loss is held
against the run's own best and its own noise, a gradient against the median of those before, the
speed of the data against what the step was measured to take.

All but the speed follows from the rows alone: a resumed run gives its watch the rows of before
(`replay`) and goes on to say what an uninterrupted one would have said.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from pinxit.train.settings import TrainConfig
from pinxit.train.watch.data_advice import faster_data

MetricsRow = Mapping[str, Any]

RECENT = 3
"""Rows whose median is the loss of now."""
HISTORY = 50
"""Rows that tell the noise of a figure and its usual size."""
FEWEST = 8
"""Rows before anything is said of a loss or a gradient."""
LOST = 0.1
"""Share of what was learned whose loss is a divergence, if it also stands out of the noise."""
STARVED, FED = 0.2, 0.1
"""Shares of the time lost to waiting for data at which an episode begins and ends."""
STARVED_SECONDS = 30.0
"""Seconds of training over which waiting is measured."""
COLLAPSED, RECOVERED = 64.0, 512.0
"""Loss scales at which an episode begins and ends; a run begins at 32,768."""
EFFECT = 0.002
"""Share by which captions lower the loss under which they do nothing."""


@dataclass(frozen=True)
class Finding:
    """Something that was noticed, for people."""

    kind: str
    """loss_rises, nothing_learned, gradient, data_wait, loss_scale, skipped or text_unused."""
    step: int
    text: str
    """What was seen, with figures, and what to try."""


@dataclass
class Episode:
    """Says something once while a condition lasts."""

    open: bool = False

    def begins(self, bad: bool, *, over: bool) -> bool:
        """True where the condition has come to hold; `over` closes the episode."""
        if self.open:
            self.open = not over
            return False
        self.open = bad
        return bad


class LossCheck:
    """A loss that rises far above the run's best, or that never got below a zero prediction's."""

    def __init__(self, config: TrainConfig, dtype: str) -> None:
        self.config = config
        self.dtype = dtype
        self.first: list[float] = []
        self.rows: list[tuple[int, float]] = []
        self.zeros: deque[float] = deque(maxlen=HISTORY)
        self.best = (0, math.inf)
        self.rising, self.stuck = Episode(), Episode()

    def __call__(self, step: int, row: MetricsRow) -> Iterator[Finding]:
        loss = row.get("loss")
        if loss is None or not math.isfinite(loss):
            return
        self.rows = [*self.rows, (step, loss)][-HISTORY - RECENT :]
        self.first = [*self.first, loss][:FEWEST]
        if row.get("loss_of_zero") is not None:
            self.zeros.append(row["loss_of_zero"])
        before = self.rows[:-RECENT]
        if len(before) >= 5:
            window = median(value for _, value in before[-5:])
            if window < self.best[1]:
                self.best = (before[-3][0], window)
        if len(self.first) == FEWEST:
            yield from self._rises(step)
            yield from self._stuck(step)

    def noise(self) -> float:
        """How much rows differ from one to the next: a robust standard deviation."""
        values = [value for _, value in self.rows[:-RECENT]]
        steps = [abs(b - a) for a, b in pairwise(values)]
        return 1.4826 * median(steps) / math.sqrt(2) if steps else 0.0

    def start(self) -> float:
        """The loss of a model that has learned nothing."""
        return median(self.zeros) if self.zeros else median(self.first[:RECENT])

    def _rises(self, step: int) -> Iterator[Finding]:
        at, best = self.best
        start, noise, last = self.start(), self.noise(), self.rows[-1][1]
        recent = median(value for _, value in self.rows[-RECENT:])
        learned = start - best
        margin = max(8 * noise, LOST * learned if learned > 0 else 0.15 * best)
        bad = recent > best + margin or last > max(2 * start, best + 3 * margin)
        if not self.rising.begins(bad, over=max(recent, last) < best + margin / 2):
            return
        optimizer = self.config.optimizer
        advice = f"a lower learning rate (--optimizer.learning_rate {optimizer.learning_rate / 3:g}"
        advice += f"), a longer warm-up (--optimizer.warmup_steps {max(100, 3 * _warmup(self))})"
        if optimizer.clip_norm is None:
            advice += ", clipped gradients (--optimizer.clip_norm 1)"
        if self.dtype != "float32":
            advice += f", or float32 in place of {self.dtype} (--use_amp 0)"
        yield Finding(
            "loss_rises",
            step,
            f"the loss rises: {max(recent, last):.4g} at step {step}, after {best:.4g} around step "
            f"{at} (a model that knows nothing has {start:.4g}; rows differ by {noise:.2g}); try, "
            f"under another --name, {advice}",
        )

    def _stuck(self, step: int) -> Iterator[Finding]:
        if len(self.zeros) < 5 or step < max(300, 3 * _warmup(self)):
            return
        loss, zero = median(v for _, v in self.rows[-5:]), median(list(self.zeros)[-5:])
        if self.stuck.begins(loss > 0.95 * zero, over=loss < 0.9 * zero):
            rate = self.config.optimizer.learning_rate
            yield Finding(
                "nothing_learned",
                step,
                f"nothing is learned: after {step} steps the loss is {loss:.4g}, and predicting "
                f"zero has {zero:.4g}; try another learning rate ({rate / 10:g} and {rate * 3:g}; "
                f"it is {rate:g}), and look at the latents (their deviation should be near 1) and "
                "at a few images of the data",
            )


def _warmup(check: LossCheck) -> int:
    config = check.config
    return min(config.optimizer.warmup_steps, config.max_steps // 5)


class GradientCheck:
    """A gradient many times longer than those before."""

    def __init__(self, config: TrainConfig) -> None:
        self.clip = config.optimizer.clip_norm
        self.norms: deque[float] = deque(maxlen=HISTORY)
        self.episode = Episode()
        self.inside = 0

    def __call__(self, step: int, row: MetricsRow) -> Iterator[Finding]:
        norm = row.get("grad_norm")
        if norm is None or not norm > 0:
            return
        if len(self.norms) >= FEWEST:
            usual = median(self.norms)
            spread = 1.4826 * median(abs(math.log(n / usual)) for n in self.norms)
            bad = norm > 10 * usual and math.log(norm / usual) > 6 * spread
            if self.episode.begins(bad, over=norm < 3 * usual):
                yield Finding("gradient", step, self._said(step, norm, usual))
        self.inside = self.inside + 1 if self.episode.open else 0
        if not 0 < self.inside <= HISTORY // 2:
            # while it lasts the memory stays as it was, but not for ever
            self.norms.append(norm)

    def _said(self, step: int, norm: float, usual: float) -> str:
        said = (
            f"the gradient explodes: its norm is {norm:.3g} in the rows to step {step}, "
            f"{norm / usual:.0f} times its median of {usual:.3g}; "
        )
        if self.clip is None:
            return said + "it is not clipped: --optimizer.clip_norm 1, under another --name"
        return said + (
            f"updates are clipped to {self.clip:g}; if the loss follows, try a lower "
            "--optimizer.learning_rate or a longer --optimizer.warmup_steps"
        )


class DataCheck:
    """A step that waits for its data."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.episode = Episode()
        self.begin()

    def begin(self) -> None:
        """A process starts: its first rows fill queues and caches, and do not count."""
        self.rows: list[tuple[float, float, float, float]] = []
        self.last: int | None = None
        self.left_out = 2
        self.step_seconds: float | None = None

    def __call__(self, step: int, row: MetricsRow) -> Iterator[Finding]:
        seconds, share = row.get("seconds_per_step"), row.get("data_wait_share")
        if seconds is None or share is None:
            return
        steps, self.last = step - (self.last or step), step
        self.step_seconds = row.get("step_seconds") or self.step_seconds
        self.left_out -= 1
        if self.left_out >= 0 or steps <= 0:
            return
        alone = seconds
        if share > 0.1 and self.step_seconds is not None:
            alone = min(seconds, self.step_seconds)
        self.rows.append((steps * seconds, steps * alone, row["images_per_second"], alone))
        while len(self.rows) > 3 and sum(r[0] for r in self.rows[1:]) >= STARVED_SECONDS:
            self.rows.pop(0)
        total = sum(r[0] for r in self.rows)
        lost = 1 - sum(r[1] for r in self.rows) / total
        bad = lost > STARVED and total >= STARVED_SECONDS and len(self.rows) >= 3
        if self.episode.begins(bad, over=lost < FED):
            given = fmean(r[2] for r in self.rows)
            could = self.config.batch_size / fmean(r[3] for r in self.rows)
            yield Finding(
                "data_wait",
                step,
                f"the step waits for data {lost:.0%} of the time: {given:.3g} images/s come and "
                f"the step could take {could:.3g}; {faster_data(self.config, row)}",
            )


class ScaleCheck:
    """In float16, a loss scale so small that gradients vanish; anywhere, many skipped steps."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.rows: deque[tuple[int, int]] = deque(maxlen=10)
        self.collapse, self.skips = Episode(), Episode()

    def __call__(self, step: int, row: MetricsRow) -> Iterator[Finding]:
        other = "--use_amp 0" if self.dtype != "float32" else "a longer --optimizer.warmup_steps"
        scale = row.get("loss_scale")
        if scale is not None and self.collapse.begins(scale <= COLLAPSED, over=scale >= RECOVERED):
            yield Finding(
                "loss_scale",
                step,
                f"float16's loss scale has fallen to {scale:g} (it begins at 32768): gradients or "
                "activations overflow, and small gradients become zero; try --model.dtype bfloat16 "
                "(where the hardware has it) or float32, or a lower --optimizer.learning_rate",
            )
        if row.get("skipped") is None:
            return
        self.rows.append((step, row["skipped"]))
        (first, before), (last, now) = self.rows[0], self.rows[-1]
        count, share = now - before, (now - before) / max(1, last - first)
        limit = 0.1 if self.dtype == "float16" else 0.02
        bad = first >= 100 and count >= 5 and share > limit
        if self.skips.begins(bad, over=share < limit / 4):
            yield Finding(
                "skipped",
                step,
                f"{count} of the last {last - first} steps were skipped ({share:.0%}): their loss "
                f"or gradient was not finite; try a lower --optimizer.learning_rate or {other}",
            )


class TextCheck:
    """Captions that make no difference to the loss (see `evaluate.conditioning`)."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.episode = Episode()
        self.patience = min(1000, max(300, config.max_steps // 2))

    def __call__(self, step: int, row: MetricsRow) -> Iterator[Finding]:
        gain, error = row.get("conditioning/gain"), row.get("conditioning/gain_error")
        if gain is None or error is None or step < self.patience:
            return
        # a wide error says nothing: what is told is that the effect is small, and surely so
        if self.episode.begins(gain + 2 * error < EFFECT, over=effective(row)):
            yield Finding("text_unused", step, self._said(step, row, gain, error))

    def _said(self, step: int, row: MetricsRow, gain: float, error: float) -> str:
        own, other = row["conditioning/loss"], row["conditioning/loss_shuffled"]
        said = (
            f"the text does nothing: at step {step} the loss is {own:.4g} with the rows' own "
            f"captions and {other:.4g} with other rows' (a gain of {gain:.2%}, give or take "
            f"{error:.2%}); "
        )
        if row.get("conditioning/changed", 1.0) < 0.5:
            share = 1 - row["conditioning/changed"]
            return said + (
                f"the text encoder sees the same text in {share:.0%} of the rows: look at the "
                f"column that captions are read from (--columns caption=NAME), at "
                f"--caption_cleaning and at --text_max_tokens ({self.config.text_max_tokens or 77})"
            )
        share = self.config.objective.caption_dropout
        if share > 0.5:
            return said + f"objective.caption_dropout is {share:g}: that share is trained without"
        return said + (
            "either the captions do not tell of their images (a wrong column, rows that were mixed "
            "up), or the model is not there yet: look at a few rows, and at the next such figure"
        )


def effective(row: MetricsRow) -> bool:
    """Whether captions were surely found to lower the loss."""
    return row["conditioning/gain"] > max(EFFECT, 3 * row["conditioning/gain_error"])


@dataclass
class RunWatch:
    """Looks at every row of a run; `dtype` is that of the network's arithmetic."""

    config: TrainConfig
    dtype: str = "float32"
    before: Sequence[MetricsRow] = ()
    """Rows of an earlier part of the run, whose findings have been said."""
    findings: list[Finding] = field(default_factory=list)
    """All so far, those of `before` included."""
    text_works: bool = False
    """Whether captions were found to lower the loss."""

    def __post_init__(self) -> None:
        self._data = DataCheck(self.config)
        self._checks: tuple[Callable[[int, MetricsRow], Iterator[Finding]], ...] = (
            LossCheck(self.config, self.dtype),
            GradientCheck(self.config),
            self._data,
            ScaleCheck(self.dtype),
            TextCheck(self.config),
        )
        for row in self.before:
            # what was said is kept with the rows: what depends on time is not judged again
            self._observe(row["step"], row)
            self.findings += [Finding(**one) for one in row.get("warnings", ())]
        self._data.begin()

    def observe(self, step: int, row: MetricsRow) -> list[Finding]:
        """What there is to say of a row."""
        found = self._observe(step, row)
        self.findings += found
        return found

    def note(self, step: int, row: MetricsRow, say: Callable[[str], None]) -> dict[str, Any]:
        """Says what there is to say of a row; what the row is to keep of it."""
        found = self.observe(step, row)
        for finding in found:
            say(f"warning: {finding.text}")
        return {"warnings": [asdict(finding) for finding in found]} if found else {}

    def _observe(self, step: int, row: MetricsRow) -> list[Finding]:
        if "conditioning/gain" in row:
            self.text_works |= effective(row)
        return [finding for check in self._checks for finding in check(step, row)]
