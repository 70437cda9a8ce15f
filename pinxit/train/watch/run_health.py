"""Detects problems in a run from its rows of metrics, while it runs.

A `RunWatch` receives every row and returns findings: the observation with its figures, and advice.
A finding is reported once per episode. An episode begins when its condition holds and ends when the
condition is clearly over. No threshold is a fixed number that depends on the data: a loss is
compared with the run's own best and its own noise, a gradient with the median of earlier ones, and
the speed of the data with the measured time of a step.

Everything except the speed depends on the rows alone. A resumed run passes the earlier rows to its
watch (`before`), which then reports what the watch of an uninterrupted run would have reported.
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
from pinxit.train.watch.rescue import half_rate, step_to_return_to, ways_out, words_for

MetricsRow = Mapping[str, Any]
Steps = Callable[[], Sequence[int]]

RECENT = 3
"""Number of newest rows whose median counts as the current loss."""
HISTORY = 50
"""Number of rows from which the noise and the usual size of a figure are estimated."""
FEWEST = 8
"""Number of rows before the loss and the gradient are checked."""
LOST = 0.1
"""Fraction of the loss improvement that must be lost before a rise counts as divergence (the rise
must also exceed the noise)."""
STARVED, FED = 0.2, 0.1
"""Fractions of the time spent waiting for data above and below which an episode begins and ends."""
STARVED_SECONDS = 30.0
"""Seconds of training over which the waiting time is measured."""
COLLAPSED, RECOVERED = 64.0, 512.0
"""Loss scales at which an episode begins and ends. A run starts at 32,768."""
EFFECT = 0.002
"""Relative loss reduction below which captions are considered to have no effect."""


@dataclass(frozen=True)
class Finding:
    """A problem that was noticed, as text for the user."""

    kind: str
    """One of loss_rises, nothing_learned, gradient, data_wait, loss_scale, skipped, text_unused."""
    step: int
    text: str
    """The observation, with its figures."""
    advice: str = ""
    """Advice on what to try. Empty in rows written before this field existed."""


@dataclass
class Episode:
    """Turns a condition that lasts into a single report at its beginning."""

    open: bool = False

    def begins(self, bad: bool, *, over: bool) -> bool:
        """Returns True if the condition `bad` begins to hold now. `over` ends an open episode."""
        if self.open:
            self.open = not over
            return False
        self.open = bad
        return bad


class LossCheck:
    """Detects a loss that rises far above the run's best, or stays near that of predicting zero."""

    def __init__(self, config: TrainConfig, dtype: str, steps: Steps) -> None:
        self.config = config
        self.dtype = dtype
        self.steps = steps
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
        """Returns the noise between neighbouring rows, as a robust standard deviation."""
        values = [value for _, value in self.rows[:-RECENT]]
        steps = [abs(b - a) for a, b in pairwise(values)]
        return 1.4826 * median(steps) / math.sqrt(2) if steps else 0.0

    def start(self) -> float:
        """Returns the loss of an untrained model."""
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
        before = [step for step in self.steps() if step <= at]
        advice = "if it does not fall again, stop the run and add one or more of these to its "
        advice += "command: "
        advice += "; ".join(ways_out(self.config, self.dtype, step_to_return_to(before)))
        yield Finding(
            "loss_rises",
            step,
            f"the loss rises: {max(recent, last):.4g} at step {step}, up from {best:.4g} around "
            f"step {at} (an untrained model has a loss of {start:.4g}, and the noise between rows "
            f"is {noise:.2g})",
            advice,
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
                f"the model learns nothing: after {step} steps the loss is {loss:.4g}, and a model "
                f"that always predicts zero has {zero:.4g}",
                f"try other learning rates ({rate / 10:g} and {rate * 3:g}; it is {rate:g} now): "
                f"stop the run and add --change 1 --optimizer.learning_rate {rate / 10:g}. "
                "Check the latents (their standard deviation should be near 1) and a few images "
                "of the data",
            )


def _warmup(check: LossCheck) -> int:
    config = check.config
    return min(config.optimizer.warmup_steps, config.max_steps // 5)


class GradientCheck:
    """Detects a gradient whose norm is many times its usual value."""

    def __init__(self, config: TrainConfig) -> None:
        self.clip = config.optimizer.clip_norm
        self.lower = half_rate(config)
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
                text = (
                    f"the gradient explodes: its norm is {norm:.3g} in the row of step {step}, "
                    f"{norm / usual:.0f} times its median of {usual:.3g}"
                )
                yield Finding("gradient", step, text, self._advice())
        self.inside = self.inside + 1 if self.episode.open else 0
        if not 0 < self.inside <= HISTORY // 2:
            # rows of an episode do not enter the history, unless the episode lasts too long
            self.norms.append(norm)

    def _advice(self) -> str:
        if self.clip is None:
            return "stop the run and add gradient clipping: --change 1 --optimizer.clip_norm 1"
        return (
            f"updates are clipped to {self.clip:g}. If the loss rises as well, stop the run and "
            f"add a lower learning rate: --change 1 --optimizer.learning_rate {self.lower:g}"
        )


class DataCheck:
    """Detects training steps that wait for their data."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.episode = Episode()
        self.begin()

    def begin(self) -> None:
        """Starts measuring in a new process. Its first rows fill queues and caches and do not
        count."""
        self.rows: list[tuple[float, float, float, float]] = []
        self.last: int | None = None
        self.ignored = 2
        self.step_seconds: float | None = None

    def __call__(self, step: int, row: MetricsRow) -> Iterator[Finding]:
        seconds, share = row.get("seconds_per_step"), row.get("data_wait_share")
        if seconds is None or share is None:
            return
        steps, self.last = step - (self.last or step), step
        self.step_seconds = row.get("step_seconds") or self.step_seconds
        self.ignored -= 1
        if self.ignored >= 0 or steps <= 0:
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
            received = fmean(r[2] for r in self.rows)
            possible = self.config.batch_size / fmean(r[3] for r in self.rows)
            yield Finding(
                "data_wait",
                step,
                f"the step waits for data {lost:.0%} of the time: it receives {received:.3g} "
                f"images/s and could process {possible:.3g}",
                faster_data(self.config, row),
            )


class ScaleCheck:
    """Detects many skipped steps and, in float16, a loss scale so small that gradients vanish."""

    def __init__(self, config: TrainConfig, dtype: str) -> None:
        self.dtype = dtype
        self.advice = "stop the run and add one or more of these to its command: "
        self.advice += "; ".join(words_for(config, dtype, {"change": True}))
        self.rows: deque[tuple[int, int]] = deque(maxlen=10)
        self.collapse, self.skips = Episode(), Episode()

    def __call__(self, step: int, row: MetricsRow) -> Iterator[Finding]:
        scale = row.get("loss_scale")
        if scale is not None and self.collapse.begins(scale <= COLLAPSED, over=scale >= RECOVERED):
            yield Finding(
                "loss_scale",
                step,
                f"the float16 loss scale has fallen to {scale:g} (it starts at 32768): gradients "
                "or activations overflow, and small gradients become zero",
                "stop the run and add --change 1 --model.dtype bfloat16 (if the hardware supports "
                "it) or --change 1 --model.dtype float32 to its command",
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
                f"{count} of the last {last - first} steps were skipped ({share:.0%}) because "
                "their loss or gradient was not finite",
                self.advice,
            )


class TextCheck:
    """Detects captions that do not change the loss (see `evaluate.conditioning`)."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.episode = Episode()
        self.patience = min(1000, max(300, config.max_steps // 2))

    def __call__(self, step: int, row: MetricsRow) -> Iterator[Finding]:
        gain, error = row.get("conditioning/gain"), row.get("conditioning/gain_error")
        if gain is None or error is None or step < self.patience:
            return
        # report only if the effect is small with certainty: a large error proves nothing
        if self.episode.begins(gain + 2 * error < EFFECT, over=effective(row)):
            own, other = row["conditioning/loss"], row["conditioning/loss_shuffled"]
            text = (
                f"the captions have no effect: at step {step} the loss is {own:.4g} with each "
                f"row's own caption and {other:.4g} with another row's (a reduction of {gain:.2%} "
                f"± {error:.2%})"
            )
            yield Finding("text_unused", step, text, self._advice(row))

    def _advice(self, row: MetricsRow) -> str:
        if row.get("conditioning/changed", 1.0) < 0.5:
            share = 1 - row["conditioning/changed"]
            return (
                f"the text encoder sees the same text in {share:.0%} of the rows. Check the column "
                f"that captions are read from (--columns caption=NAME), --caption_cleaning and "
                f"--text_max_tokens ({self.config.text_max_tokens or 77})"
            )
        share = self.config.objective.caption_dropout
        if share > 0.5:
            return (
                f"objective.caption_dropout is {share:g}: lower it, because that fraction of the "
                "rows is trained without captions"
            )
        return (
            "either the captions do not describe their images (a wrong column, mixed-up rows), or "
            "the model needs more training. Check a few rows, and wait for the next measurement"
        )


def effective(row: MetricsRow) -> bool:
    """Returns whether captions reduce the loss with certainty (by more than three errors)."""
    return row["conditioning/gain"] > max(EFFECT, 3 * row["conditioning/gain_error"])


@dataclass
class RunWatch:
    """Checks every row of a run. `dtype` is the dtype that the network computes in."""

    config: TrainConfig
    dtype: str = "float32"
    before: Sequence[MetricsRow] = ()
    """Rows from before a resume. Their findings have already been reported."""
    steps: Steps = list
    """Returns the steps of the run's checkpoints, which the advice names."""
    findings: list[Finding] = field(default_factory=list)
    """The findings so far, including those stored in `before`."""
    text_works: bool = False
    """Whether captions have been shown to reduce the loss."""

    def __post_init__(self) -> None:
        self._data = DataCheck(self.config)
        self._loss = LossCheck(self.config, self.dtype, self.steps)
        self._checks: tuple[Callable[[int, MetricsRow], Iterator[Finding]], ...] = (
            self._loss,
            GradientCheck(self.config),
            self._data,
            ScaleCheck(self.config, self.dtype),
            TextCheck(self.config),
        )
        for row in self.before:
            # use the findings stored in the rows: those that depend on time cannot be recomputed
            self._observe(row["step"], row)
            self.findings += [Finding(**one) for one in row.get("warnings", ())]
        self._data.begin()

    def good_until(self) -> int | None:
        """Returns the step with the best loss if the loss has risen since, else None."""
        return self._loss.best[0] if self._loss.rising.open else None

    def observe(self, step: int, row: MetricsRow) -> list[Finding]:
        """Returns the new findings that a row gives rise to."""
        findings = self._observe(step, row)
        self.findings += findings
        return findings

    def note(self, step: int, row: MetricsRow, say: Callable[[str], None]) -> dict[str, Any]:
        """Reports a row's findings, and returns the fields to add to the row so that they are
        stored with it."""
        findings = self.observe(step, row)
        for finding in findings:
            say(f"warning: {finding.text}\n  {finding.advice}")
        return {"warnings": [asdict(finding) for finding in findings]} if findings else {}

    def _observe(self, step: int, row: MetricsRow) -> list[Finding]:
        if "conditioning/gain" in row:
            self.text_works |= effective(row)
        return [finding for check in self._checks for finding in check(step, row)]
