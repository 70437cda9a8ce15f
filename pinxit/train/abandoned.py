"""Going back to an earlier checkpoint: whatever is newer is moved aside, and nothing is deleted.

::

    runs/<name>/abandoned_after_step_00008000/  config.json  metrics.jsonl  checkpoints/step_*/
                                                samples/  and what a finished run has

The folder is a run of its own, whose model can be drawn from. The newest checkpoints move first. If
the process is killed in between, the run can still go on from the newest one that is left, and the
same command moves the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from pinxit.checkpoint_files import checkpoints_in, step_of_checkpoint
from pinxit.files import move_into, whole
from pinxit.train.metric_rows import read_rows, write_rows
from pinxit.train.run_folder import RunFolder

PREFIX_ASIDE = "abandoned_after_step_"
"""Prefix of the folders, which ends with the step that the run went back to."""


def move_aside(folder: RunFolder, step: int) -> Path | None:
    """Moves everything of a run that is newer than `step` into a new folder of the run.

    Returns that folder, or None if nothing is newer. Rows of metrics are copied: the run drops them
    from its own file when it goes on.
    """
    rows = [row for row in read_rows(folder.metrics) if row["step"] > step]
    newer = list(_newer(folder, step))
    if not (rows or newer):
        return None
    aside = _free(folder.root / f"{PREFIX_ASIDE}{step:08d}")
    aside.mkdir()
    write_rows(aside / folder.metrics.name, rows)
    with whole(aside / folder.config.name) as temporary:
        shutil.copyfile(folder.config, temporary)
    for path in newer:
        move_into(path, aside / path.parent.relative_to(folder.root))
    return aside


def _newer(folder: RunFolder, step: int) -> Iterator[Path]:
    """Yields what a run has written after `step`, in the order in which to move it."""
    checkpoints = [path for path in checkpoints_in(folder.checkpoints) if _step(path) > step]
    if folder.results.is_file() and (folder.finished() or {}).get("step", 0) > step:
        finished = (folder.results, folder.report, folder.curves, folder.model)
        yield from (path for path in (*finished, folder.samples / "final.png") if path.exists())
    yield from checkpoints
    for path in sorted(folder.samples.glob("step_*.png")):
        number = path.stem.removeprefix("step_")
        if number.isdigit() and int(number) > step:
            yield path


def _step(checkpoint: Path) -> int:
    return step_of_checkpoint(checkpoint) or 0


def _free(path: Path) -> Path:
    """Returns `path`, or with a number behind it, so that nothing has that name."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free
