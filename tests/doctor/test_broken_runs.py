"""The doctor on broken runs: a table of faults, and the line and exit code that each must get.

No fault may raise, and none may leave the report without a problem or warning that names it. The
other checks still run: a broken file hides nothing else.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_run import run_to_examine

from pinxit.checkpoint_files import signed
from pinxit.cli.main import main
from pinxit.doctor import run_checkpoints, run_inputs
from pinxit.doctor.guard import guarded_check
from pinxit.doctor.report_line import Line, ok
from pinxit.train.run import run

OLD = time.time() - 7200


@pytest.fixture
def broken(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to break, last written two hours ago, whose encoders are as they were."""
    newest = sorted((finished_run / "checkpoints").glob("step_*"))[-1]
    weights = json.loads((newest / "run.json").read_text())["encoders"]
    monkeypatch.setattr(run_inputs, "ask", lambda *args, **more: dict(weights))
    root = shutil.copytree(finished_run, tmp_path / "good")
    for path in [root, *root.rglob("*")]:
        os.utime(path, (OLD, OLD))
    return root


def doctor(root: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, list[Line]]:
    """The exit code and the lines of the command."""
    code = main(["doctor", str(root), "--machine", "0", "--json", *more])
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = json.loads(printed.out)["lines"]
    return code, [Line(x["status"], x["name"], x["said"], x["advice"]) for x in lines]


def edit(path: Path, change: Callable[[dict], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)
    os.utime(path, (OLD, OLD))


def unfinished(root: Path) -> None:
    """What a run that was killed after its last checkpoint leaves."""
    (root / "results.json").unlink()
    shutil.rmtree(root / "model")


def into_folder(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.mkdir()


def into_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("not a folder")


def partial(root: Path, *, old: bool) -> None:
    unfinished(root)
    path = root / "checkpoints" / ".step_00000009.000000000123.partial"
    (path / "state").mkdir(parents=True)
    (path / "state" / "some").write_bytes(b"half")
    if old:
        for one in (path, path / "state", path / "state" / "some"):
            os.utime(one, (OLD, OLD))


def cut(path: Path, keep: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def newest(root: Path) -> Path:
    return root / "checkpoints" / "step_00000006"


def newer_version(root: Path) -> None:
    def renew(manifest: dict[str, Any]) -> None:
        hashes = manifest["sha256"]
        manifest.clear()
        manifest.update(signed({"version": 99, "sha256": hashes}))

    edit(newest(root) / "manifest.json", renew)


def prepared_gone(root: Path) -> None:
    gone = {"dataset_name": "prepared", "dataset_path": "/absent/set"}
    edit(root / "config.json", lambda value: value.update(gone))


def folder_gone(root: Path) -> None:
    gone = {"dataset_name": "folder", "dataset_path": "/absent/pictures"}
    edit(root / "config.json", lambda value: value.update(gone))


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a run, and the line that it must get."""

    make: Callable[[Path], object]
    status: str
    name: str
    says: str
    advice: str = ""


ROWS, SET = "metrics.jsonl", "config.json"
BINARY = random.Random(0).randbytes(300)
FAULTS = {
    # settings
    "settings missing": Fault(
        lambda r: (r / SET).unlink(), "problem", "config", "config.json is missing", "run.json"
    ),
    "settings empty": Fault(
        lambda r: (r / SET).write_text(""), "problem", "config", "not valid JSON", "run.json"
    ),
    "settings a list": Fault(
        lambda r: (r / SET).write_text("[1]"), "problem", "config", "holds a list", "run.json"
    ),
    "settings unknown": Fault(
        lambda r: edit(r / SET, lambda v: v.update(nonsense=1)),
        "problem", "config", "nonsense", "run.json",
    ),
    "settings of a wrong type": Fault(
        lambda r: edit(r / SET, lambda v: v.update(max_steps="many")),
        "problem", "config", "max_steps: 'many' is not a whole number", "run.json",
    ),
    "settings nested wrongly": Fault(
        lambda r: edit(r / SET, lambda v: v.update(model=[1])),
        "problem", "config", "model: [1] is not an object with settings", "run.json",
    ),
    "settings a folder": Fault(
        lambda r: into_folder(r / SET), "problem", "config", "config.json is a folder", "run.json"
    ),
    # metrics
    "a number as the last row": Fault(
        lambda r: append(r / ROWS, "12"), "problem", "metrics", "is 12, not a row", "Resuming"
    ),
    "a list as a row": Fault(
        lambda r: append(r / ROWS, "[]\n"), "problem", "metrics", "is [], not a row", "Resuming"
    ),
    "a row without a step": Fault(
        lambda r: append(r / ROWS, '{"loss": 1.0}\n'), "problem", "metrics", "has no step"
    ),
    "a step in words": Fault(
        lambda r: append(r / ROWS, '{"step": "six"}\n'),
        "problem", "metrics", 'has the step "six", not a whole number',
    ),
    "a loss in words": Fault(
        lambda r: append(r / ROWS, '{"step": 6, "loss": "low"}\n'),
        "problem", "metrics", 'has the loss "low", not a number',
    ),
    "a warning that is none": Fault(
        lambda r: append(r / ROWS, '{"step": 6, "warnings": [{"kind": 1}]}\n'),
        "problem", "signs", "values of the wrong kind at step 6", "restore these rows",
    ),
    "warnings that are a number": Fault(
        lambda r: append(r / ROWS, '{"step": 6, "warnings": 3}\n'),
        "problem", "signs", "values of the wrong kind at step 6",
    ),
    "binary rows": Fault(
        lambda r: (r / ROWS).write_bytes(BINARY + b"\n" + bytes(range(256)) + b"\n"),
        "problem", "metrics", "line 1 is not JSON",
    ),
    "one line that is cut": Fault(
        lambda r: (r / ROWS).write_text('{"step": 2, "lo'),
        "problem", "metrics", "its only line is not JSON",
    ),
    "nested too deeply": Fault(
        lambda r: append(r / ROWS, "[" * 100_000 + "\n"), "problem", "metrics", "is not JSON"
    ),
    "no rows": Fault(
        lambda r: (r / ROWS).unlink(), "warning", "metrics", "no rows yet; there are no rows, but",
        "restore",
    ),
    "rows lost": Fault(
        lambda r: (r / ROWS).write_text('{"step": 2, "loss": 1.0}\n'),
        "warning", "metrics", "the rows end at step 2, but the newest checkpoint is of step 6",
    ),
    "rows a folder": Fault(
        lambda r: into_folder(r / ROWS), "problem", "metrics", "Is a directory", "restore it"
    ),
    "a watcher that failed": Fault(
        lambda r: append(r / ROWS, '{"step": 6, "watch_failures": 3}\n'),
        "warning", "watchers", "what runs beside the training failed 3 times", "not affected",
    ),
    "a watcher that failed in a finished run": Fault(
        lambda r: edit(
            r / "results.json",
            lambda v: v.update(warnings=[{"kind": "watcher", "text": "sampling failed once"}]),
        ),
        "warning", "watchers", "sampling failed once", "not affected",
    ),
    "warnings of the results that are none": Fault(
        lambda r: edit(r / "results.json", lambda v: v.update(warnings=[5])),
        "problem", "signs", "could not be checked", "restore it",
    ),
    # results
    "results empty": Fault(
        lambda r: (r / "results.json").write_text(""),
        "problem", "results", "results.json is not valid JSON", "remove",
    ),
    "results a list": Fault(
        lambda r: (r / "results.json").write_text("[]"),
        "problem", "results", "holds a list", "remove"
    ),
    "results without a step": Fault(
        lambda r: (r / "results.json").write_text("{}"),
        "problem", "results", "has no step", "remove"
    ),
    "results with a step in words": Fault(
        lambda r: (r / "results.json").write_text('{"step": "six"}'),
        "problem", "results", "has the step 'six'", "remove",
    ),
    "results a folder": Fault(
        lambda r: into_folder(r / "results.json"), "problem", "results", "Is a directory", "remove"
    ),
    "results not finite": Fault(
        lambda r: edit(r / "results.json", lambda v: v["validation"].update(raw=float("nan"))),
        "problem", "results", "not finite: validation.raw", "diverged",
    ),
    # checkpoints
    "a copy of a checkpoint": Fault(
        lambda r: shutil.copytree(newest(r), r / "checkpoints" / "step_00000006_copy"),
        "warning", "checkpoint", "step_00000006_copy is not the name of a checkpoint", "remove",
    ),
    "a file among checkpoints": Fault(
        lambda r: (r / "checkpoints" / "step_00000009").write_text(""),
        "warning", "checkpoint", "step_00000009 is a file", "remove",
    ),
    "a checkpoint of a newer version": Fault(
        newer_version, "problem", "checkpoint", "a newer version of Pinxit wrote it (format 99",
        "install that version",
    ),
    "a manifest cut short": Fault(
        lambda r: cut(newest(r) / "manifest.json"), "problem", "checkpoint", "cannot be read"
    ),
    "a manifest that lists nothing": Fault(
        lambda r: (newest(r) / "manifest.json").write_text('{"sha256": ["a"]}'),
        "problem", "checkpoint", "step_00000006", "uses the checkpoint before it",
    ),
    "a manifest that is a folder": Fault(
        lambda r: into_folder(newest(r) / "manifest.json"),
        "problem", "checkpoint", "step_00000006", "",
    ),
    "run.json damaged": Fault(
        lambda r: cut(newest(r) / "run.json"), "problem", "checkpoint", "run.json is damaged"
    ),
    "checkpoints a file": Fault(
        lambda r: into_file(r / "checkpoints"),
        "problem", "checkpoints", "checkpoints is a file, not a folder", "remove",
    ),
    "finished without checkpoints": Fault(
        lambda r: shutil.rmtree(r / "checkpoints"),
        "problem", "next", "would start again at step 0", "--init_from",
    ),
    "checkpoints lost on the way": Fault(
        lambda r: [unfinished(r), shutil.rmtree(r / "checkpoints")],
        "problem", "next", "there is no checkpoint, although the run reached step 6", "restore",
    ),
    "a checkpoint after the last step": Fault(
        lambda r: [unfinished(r), edit(r / SET, lambda v: v.update(max_steps=5))],
        "problem", "next", "step 6, but max_steps is 5", "--max_steps 6",
    ),
    "half-written by a killed process": Fault(
        lambda r: partial(r, old=True),
        "warning", "checkpoint", "is incomplete: a process was killed", "the next start removes it",
    ),
    # what a finished run leaves
    "release deleted": Fault(
        lambda r: shutil.rmtree(r / "model"), "problem", "release", "model is missing", "remove"
    ),
    "release without settings": Fault(
        lambda r: (r / "model" / "config.json").unlink(),
        "problem", "release", "is incomplete: config.json missing", "remove",
    ),
    "release cut short": Fault(
        lambda r: cut(r / "model" / "model.safetensors"), "problem", "release", "damaged", "remove"
    ),
    "release empty": Fault(
        lambda r: (r / "model" / "model.safetensors").write_bytes(b""),
        "problem", "release", "damaged", "remove",
    ),
    "release settings a list": Fault(
        lambda r: (r / "model" / "config.json").write_text("[]"),
        "problem", "release", "not a JSON object", "remove",
    ),
    "release a file": Fault(
        lambda r: into_file(r / "model"), "problem", "release", "is incomplete", "remove"
    ),
    "report deleted": Fault(
        lambda r: (r / "report.html").unlink(),
        "warning", "report", "report.html is missing", "remove"
    ),
    "samples gone": Fault(
        lambda r: shutil.rmtree(r / "samples"), "warning", "samples", "missing: step_00000003.png"
    ),
    "samples empty": Fault(
        lambda r: into_folder(r / "samples"), "warning", "samples", "missing: step_00000003.png"
    ),
    "samples a file": Fault(
        lambda r: into_file(r / "samples"), "warning", "samples", "missing: step_00000003.png"
    ),
    "a picture of 0 bytes": Fault(
        lambda r: (r / "samples" / "final.png").write_bytes(b""),
        "warning", "samples", "cannot be opened: final.png", "not drawn again",
    ),
    "a picture that is a folder": Fault(
        lambda r: into_folder(r / "samples" / "final.png"),
        "warning", "samples", "cannot be opened: final.png",
    ),
    # inputs
    "prepared dataset gone": Fault(
        prepared_gone, "problem", "dataset", "/absent/set", "pinxit prepare --out /absent/set"
    ),
    "pictures gone": Fault(
        folder_gone, "problem", "dataset", "/absent/pictures is missing", "mount"
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", FAULTS)
def test_every_fault_gets_its_line(title: str, broken: Path, capsys):
    fault = FAULTS[title]
    fault.make(broken)
    code, lines = doctor(broken, capsys)
    matching = [line for line in lines if line.name == fault.name and line.status == fault.status]
    assert any(fault.says in line.message and fault.advice in line.advice for line in matching), (
        lines
    )
    assert code == (1 if any(line.status == "problem" for line in lines) else 0)
    assert code == 1 or fault.status == "warning"
    assert all(line.advice for line in lines if line.status != "ok"), "a line without advice"
    names = {line.name for line in lines}
    assert names & {"checkpoints", "checkpoint"} and "metrics" in names, "the rest did not go on"
    assert {"next", "release"} & names, "the rest did not go on"


def test_an_undisturbed_copy_has_no_complaint(broken: Path, capsys):
    code, lines = doctor(broken, capsys)
    assert code == 0 and {line.status for line in lines} == {"ok"}, lines


SAVE = """
import sys, time
from pathlib import Path
from pinxit.files import whole_folder
with whole_folder(Path(sys.argv[1])) as temporary:
    (temporary / "half").write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_run_that_is_saving_is_not_called_killed_and_a_killed_one_is(broken: Path, capsys):
    command = [sys.executable, "-c", SAVE, str(broken / "checkpoints" / "step_00000009")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        code, lines = doctor(broken, capsys)
        (line,) = [line for line in lines if line.name == "checkpoint"]
        assert (code, line.status) == (0, "ok")
        assert "is being saved by a process that is running" in line.message
        process.kill()
        process.wait()
    code, lines = doctor(broken, capsys)  # at once: its files are seconds old
    (line,) = [line for line in lines if line.name == "checkpoint"]
    assert (code, line.status) == (0, "warning")
    assert "is incomplete: a process was killed while writing it" in line.message


def test_where_folders_cannot_be_locked_the_time_of_the_last_write_decides(
    broken: Path, capsys, monkeypatch
):
    monkeypatch.setattr(run_checkpoints, "is_being_filled", lambda path: None)
    partial(broken, old=False)
    code, lines = doctor(broken, capsys)
    (line,) = [line for line in lines if line.name == "checkpoint"]
    assert code == 0 and line.status == "ok" and "is being saved, or a process" in line.message


def test_what_a_run_moved_aside_is_named(broken: Path, capsys):
    (broken / "abandoned_after_step_00000003").mkdir()
    code, lines = doctor(broken, capsys)
    (line,) = [line for line in lines if line.name == "abandoned"]
    assert code == 0 and line.status == "ok" and "a run of its own" in line.message


def test_a_run_that_is_running(broken: Path, capsys):
    unfinished(broken)
    os.utime(broken / ROWS)
    code, lines = doctor(broken, capsys)
    assert code == 0 and any("seems to be running" in line.message for line in lines)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "results.json", "checkpoints"])
def test_files_without_permission(name: str, broken: Path, capsys):
    (broken / name).chmod(0)
    try:
        code, lines = doctor(broken, capsys)
    finally:
        (broken / name).chmod(0o755)
    assert code == 1 and any(
        line.status == "problem" and "Permission denied" in line.message for line in lines
    )


def test_several_faults_at_once(broken: Path, capsys):
    append(broken / ROWS, "12")
    (broken / "results.json").write_text("")
    (broken / SET).write_text("")
    (broken / "samples" / "final.png").write_bytes(b"")
    code, lines = doctor(broken, capsys)
    names = [line.name for line in lines if line.status != "ok"]
    assert code == 1 and {"config", "metrics", "results", "samples"} <= set(names)


def test_the_advice_to_write_a_release_again_is_right(bundle: Path, broken: Path, capsys):
    before = (broken / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(broken / "model")
    (_, lines) = doctor(broken, capsys)
    (line,) = [line for line in lines if line.name == "release"]
    assert line.advice.startswith(f"remove {broken / 'results.json'}, then run the same command")
    (broken / "results.json").unlink()
    result = run(run_to_examine(bundle, broken.parent), [], console=Console(file=io.StringIO()))
    assert result.status == "finished"
    assert (broken / "model" / "model.safetensors").read_bytes() == before
    assert doctor(broken, capsys)[0] == 0


def test_a_folder_of_runs_names_them(broken: Path, capsys):
    code, lines = doctor(broken.parent, capsys)
    assert code == 1 and "one of its runs: good" in lines[0].advice


def test_a_guard_keeps_the_lines_so_far_and_reports_what_it_met():
    def check():
        yield ok("a", "fine")
        raise KeyError("x" * 900)

    lines = list(guarded_check("a", check, read="the file", advice="do this"))
    assert [line.status for line in lines] == ["ok", "problem"]
    assert "the file could not be checked: KeyError" in lines[1].message
    assert len(lines[1].message) < 400 and lines[1].advice == "do this"


def test_a_check_of_the_machine_that_raises_is_a_problem_line(monkeypatch, tmp_path, capsys):
    from pinxit.doctor import machine

    def huge_pages():
        raise ZeroDivisionError

    monkeypatch.setattr(machine, "huge_pages", huge_pages)
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--network", "0", "--json"]) == 1
    lines = json.loads(capsys.readouterr().out)["lines"]
    (line,) = [line for line in lines if line["name"] == "huge pages"]
    assert line["said"] == "the machine's huge pages could not be checked: ZeroDivisionError"
    assert any(line["name"] == "memory" for line in lines)
