"""Prints how `pinxit prepare` ended: units, rows by status with examples, and what to do next.

A command that ends with nothing kept has failed, and the most frequent reasons say why.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from pinxit import extensions
from pinxit.config import shown
from pinxit.data.outcome import meaning
from pinxit.data.prepared.manifest import Manifest, Unfinished
from pinxit.prepare.image_totals import ImageTotals
from pinxit.prepare.report import enlarged_line
from pinxit.prepare.stages import StageResult, can_skip

SHOWN_UNITS = 10
"""The number of failed units that are listed."""
REASONS = 5
"""The number of reasons that are listed if nothing was kept."""
NAME = 160
"""The number of characters of an example's name that are printed."""

PrintLine = Callable[[str], None]


def print_unused(lines: Sequence[str], console: Console) -> None:
    """Prints one line for each kind of thing that a source does not read."""
    for line in lines:
        _printer(console)(f"not read: {line}")


def finished_manifest(folder: Path) -> Manifest | None:
    """Returns the manifest of a prepared dataset, or None if it is not finished."""
    try:
        return Manifest.read(folder)
    except Unfinished:
        return None


def is_empty(manifest: Manifest) -> bool:
    """Returns whether a finished dataset has nothing to train on."""
    if manifest.latents is not None:
        return not manifest.latents["count"]
    return not manifest.kept


def print_ending(
    results: Sequence[StageResult],
    totals: ImageTotals,
    report: Path | None,
    folder: Path,
    console: Console,
) -> int:
    """Prints the end of a preparation, and returns the exit code. `totals` are the sums over the
    images of its units, and there may be no `report`.

    The code is 1 if a unit failed, if a stage was stopped, or if nothing was kept.
    """
    say = _printer(console)
    for result in results:
        _print_stage(result, say)
    code = 1 if any_failed(results) else 0
    manifest = None
    if not code and not (results and results[-1].waiting):
        manifest = (results[-1].manifest if results else None) or finished_manifest(folder)
    if manifest is not None and is_empty(manifest):
        _print_failure(manifest, totals.examples, say)
        code = 1
    else:
        if manifest is not None:
            say(f"done: {manifest.kept:,} images of {manifest.rows:,} rows")
        _print_counts(totals.counts, totals.examples, say)
        if manifest is not None:
            say(f"to train: {training_command(folder)}")
        elif results and results[-1].waiting:
            again = "run the same command again to continue"
            if report is None:  # this rank has done its share
                again = "the last rank to finish writes the manifest"
            say(f"not finished: {results[-1].waiting}; {again}")
    if line := enlarged_line(totals):
        say(line)
    if report is not None:
        say(f"report: {report}")
    return code


def any_failed(results: Sequence[StageResult]) -> bool:
    """Returns whether a unit failed or a stage was stopped."""
    return any(result.exit_code for result in results)


def training_command(folder: Path | str) -> str:
    """Returns the command that trains on a prepared dataset, quoted for a shell.

    The dataset's size and encoders need not be given, since its manifest has them.
    """
    words = ["pinxit", "train", "--dataset_path", str(folder)]
    for path in extensions.files():
        words += [extensions.OPTION, str(path)]
    return shlex.join(words)


def _printer(console: Console) -> PrintLine:
    """Returns a function that prints a line as it is, without colours and line breaks."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    return say


def _print_stage(result: StageResult, say: PrintLine) -> None:
    """Prints the units of a stage that are done, and those that are not."""
    say(f"{result.stage}: {result.done} of {result.units} units done")
    for word, failures in (("failed", result.failed), ("left out", result.skipped)):
        for failure in failures[:SHOWN_UNITS]:
            say(f"  {getattr(failure.unit, 'id', failure.unit)} {word}: {failure.reason}")
        if len(failures) > SHOWN_UNITS:
            say(f"  and {len(failures) - SHOWN_UNITS} more")
    if result.stage == "images" and not result.stopped and any(map(can_skip, result.failed)):
        say("  if these units fail every time, rerun with --skip_failed 1 to leave them out")
    if result.stopped:
        say(f"stopped: {result.stopped}")


def _print_counts(counts: Mapping[str, int], examples: Mapping[str, str], say: PrintLine) -> None:
    """Prints the number of rows of each status, the most frequent first, if one was not kept."""
    if set(counts) <= {"ok"}:
        return
    width = max(len(f"{count:,}") for count in counts.values())
    for status, count in _sorted(counts):
        say(f"  {count:{width},} {_reason(status, examples)}")


def _print_failure(manifest: Manifest, examples: Mapping[str, str], say: PrintLine) -> None:
    """Prints why a dataset has nothing to train on."""
    if not manifest.rows:
        skipped = f" ({len(manifest.skipped)} units were left out)" if manifest.skipped else ""
        say(f"failed: nothing was kept, because the source has no rows{skipped}")
        return
    counts = {status: count for status, count in manifest.counts.items() if status != "ok"}
    if manifest.kept:  # all of them were lost in the second stage
        lost = (manifest.latents or {}).get("not_finite", 0)
        say(
            f"failed: nothing was kept of {manifest.kept:,} images: {lost:,} latents are not "
            "finite. Check the autoencoder (--vae), and use --encoder_dtype float32"
        )
        return
    say(f"failed: nothing was kept of {manifest.rows:,} rows. The most frequent reasons:")
    width = max(len(f"{count:,}") for count in counts.values())
    for status, count in _sorted(counts)[:REASONS]:
        say(f"  {count:{width},} {_reason(status, examples)}")
    if len(counts) > REASONS:
        say(f"  and {len(counts) - REASONS} more reasons, which the report lists")


def _sorted(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Returns the statuses with their counts, the most frequent first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _reason(status: str, examples: Mapping[str, str]) -> str:
    """Describes a status: its name, its meaning, and the first row that has it."""
    text = f"{status}: {meaning(status)}"
    name = examples.get(status)
    if not name:
        return text
    name = name if len(name) <= NAME else f"{name[: NAME - 3]}..."
    return f"{text}, such as {shown(name) if not name.isprintable() else name}"
