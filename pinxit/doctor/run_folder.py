"""The report on a run's folder: its files, and the effect of running the same command again.

The checks only read. Each runs under a guard (`pinxit.doctor.guard`), so a broken file gives a
problem line and the others are still checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pinxit.checkpoint_files import RUN, checkpoints_in, step_of_checkpoint
from pinxit.doctor.guard import error_text, guarded_check
from pinxit.doctor.report_line import Line, ok, problem
from pinxit.doctor.run_checkpoints import check_abandoned, check_checkpoints
from pinxit.doctor.run_facts import RunFacts, age
from pinxit.doctor.run_inputs import check_dataset, check_run_encoders
from pinxit.doctor.run_metrics import check_metrics, check_signs, seems_alive
from pinxit.doctor.run_outputs import check_release, check_report, check_results, check_samples
from pinxit.train.run_folder import RunFolder, saved_config
from pinxit.train.settings import TrainConfig


class RunReport:
    """The report on one run."""

    def __init__(self, root: Path, *, full: bool = False) -> None:
        self.facts = RunFacts(RunFolder(root), full=full)

    def lines(self) -> Iterator[Line]:
        """Runs all checks and yields their lines in order."""
        facts, folder = self.facts, self.facts.folder
        if not is_run(folder):
            yield _no_run(folder)
            return
        yield from self._guarded("config", partial(check_settings, facts), folder.config)
        checks = {
            "checkpoints": (check_checkpoints, folder.checkpoints),
            "abandoned": (check_abandoned, folder.root),
            "metrics": (check_metrics, folder.metrics),
            "results": (check_results, folder.results),
            "release": (check_release, folder.model),
            "report": (check_report, folder.report),
        }
        for name, (check, path) in checks.items():
            yield from self._guarded(name, partial(check, facts), path)
        if facts.config is None:
            return
        with_settings = {
            "signs": (check_signs, folder.metrics),
            "samples": (check_samples, folder.samples),
            "encoders": (check_run_encoders, facts.checkpoint_file()),
            "dataset": (check_dataset, facts.config.dataset_path or facts.config.dataset_name),
            "next": (following, folder.root),
        }
        for name, (needy, read) in with_settings.items():
            yield from self._guarded(name, partial(needy, facts, facts.config), read)

    def _guarded(self, name: str, check: partial[Iterator[Line]], read: object) -> Iterator[Line]:
        advice = f"make {read} readable, or restore it from a copy"
        return guarded_check(name, check, read=read, advice=advice)


def is_run(folder: RunFolder) -> bool:
    """Returns whether a folder has any of the files of a run."""
    parts = (folder.config, folder.checkpoints, folder.metrics, folder.results)
    return any(path.exists() for path in parts)


def _no_run(folder: RunFolder) -> Line:
    """Returns the line for a folder that is not a run; it names the runs inside, if any."""
    inside = sorted(path.parent.name for path in folder.root.glob("*/config.json"))
    runs = f"one of its runs: {', '.join(inside[:8])}" if inside else "such as runs/scenes"
    message = f"{folder.root} has no config.json"
    return problem("run", message, f"name a run or its folder, {runs}")


def check_settings(facts: RunFacts) -> Iterator[Line]:
    """Checks the settings. Without them, a checkpoint's copy of the settings is used."""
    path = facts.folder.config
    try:
        if not path.is_file():
            kind = "is a folder" if path.is_dir() else "is missing"
            raise FileNotFoundError(f"{path} {kind}")
        config = saved_config(facts.folder)
        message = f"{config.name}: {config.model.preset} on {config.dataset_name}, "
        message += f"{config.max_steps} steps of {config.batch_size}"
    except Exception as error:  # a damaged file of settings raises many types
        facts.blocked = str(path)
        copies = [one / RUN for one in checkpoints_in(facts.folder.checkpoints)]
        advice = "restore config.json from a copy, or start a new run with --name"
        if copies:
            advice += f'. The settings are also under "config" in {copies[0]}'
            facts.config = _copied_config(copies[0])
        reason = str(error) if isinstance(error, FileNotFoundError) else error_text(error)
        yield problem("config", reason, advice)
        return
    facts.config = config
    yield ok("config", message)


def _copied_config(path: Path) -> TrainConfig | None:
    """Returns the settings that a checkpoint stores, or None if they cannot be read."""
    from pinxit.config import read_json
    from pinxit.train.settings import config_from_json

    try:
        return config_from_json(read_json(path)["config"])
    except Exception:  # the checkpoint's own check reports what is wrong with it
        return None


def following(facts: RunFacts, config: TrainConfig) -> Iterator[Line]:
    """Reports what running the same command again would do."""
    if facts.blocked:
        message = f"the same command stops with an error at {facts.blocked} (see above)"
        yield problem("next", message, "follow the advice for that file first")
        return
    step = step_of_checkpoint(facts.valid) if facts.valid is not None else None
    seconds = seems_alive(facts)
    if seconds is not None and facts.results is None:
        yield ok("next", f"the run seems to be running: its last row is {seconds:.0f} s old")
    if facts.results is not None and facts.results["step"] >= config.max_steps:
        yield _finished(facts, step)
    elif step is not None and step > config.max_steps:
        message = f"the newest checkpoint is of step {step}, but max_steps is {config.max_steps}: "
        message += "the same command stops with an error"
        yield problem("next", message, f"set --max_steps {step} or more")
    elif step is not None:
        yield ok("next", f"the same command resumes after step {step} of {config.max_steps}")
    elif facts.damaged:
        message = "no checkpoint is valid, so the same command stops with an error"
        advice = "restore a copy of a checkpoint, or start a new run with --name"
        yield problem("next", message, advice)
    else:
        yield _from_the_start(facts, config)


def _finished(facts: RunFacts, step: int | None) -> Line:
    done = (facts.results or {})["step"]
    message = f"finished after {done} steps: the same command does nothing, "
    if step is None:
        message += "and a larger --max_steps would start again at step 0, because there is no "
        message += "valid checkpoint"
        advice = "restore a copy of the newest checkpoint; to train on from the released model, "
        advice += f"start a new run with --init_from {facts.folder.model}"
        return problem("next", message, advice)
    message += f"and a larger --max_steps continues. Report: {facts.folder.report}"
    return ok("next", message)


def _from_the_start(facts: RunFacts, config: TrainConfig) -> Line:
    """Returns the line for a run without checkpoints; a problem if it should have some."""
    done = max(facts.last_step, (facts.results or {}).get("step", 0))
    due = done - done % config.save_interval
    if not due or (done == due and not math.isinf(age(facts.folder.checkpoints))):
        return ok("next", "no checkpoint yet: the same command starts at step 0")
    message = f"there is no checkpoint, although the run reached step {done} and save_interval is "
    message += f"{config.save_interval}: the same command starts again at step 0"
    advice = "restore the folder checkpoints from a copy, or accept that the training is lost"
    return problem("next", message, advice)
