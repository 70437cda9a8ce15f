"""The doctor on a run's folder: a good one, and one thing wrong at a time."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import prepared_toys as toys
import pytest
from packed_toys import flip, packed

from pinxit.data.prepared.manifest import FORMAT, Manifest
from pinxit.data.prepared.shards import ShardInfo
from pinxit.doctor import run_checkpoints, run_inputs
from pinxit.doctor.report_line import Line
from pinxit.doctor.run_facts import RunFacts
from pinxit.doctor.run_folder import RunReport
from pinxit.train.watch.run_health import Finding


@pytest.fixture
def copy(finished_run: Path, tmp_path: Path) -> Path:
    """One to break; it was last written an hour ago."""
    path = shutil.copytree(finished_run, tmp_path / "good")
    before = time.time() - 3600
    os.utime(path / "metrics.jsonl", (before, before))
    return path


@pytest.fixture(autouse=True)
def known_weights(finished_run: Path, monkeypatch: pytest.MonkeyPatch):
    """What the child would tell, without another process that loads JAX."""
    newest = sorted((finished_run / "checkpoints").glob("step_*"))[-1]
    kept = json.loads((newest / "run.json").read_text())["encoders"]
    monkeypatch.setattr(run_inputs, "ask", lambda *args, **more: dict(kept))


def report(path: Path, **more: bool) -> list[Line]:
    return list(RunReport(path, **more).lines())


def one(lines: list[Line], name: str) -> Line:
    (found,) = [line for line in lines if line.name == name]
    return found


def test_a_good_run_has_no_complaint_and_is_not_touched(finished_run: Path):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    lines = report(finished_run)
    assert {line.status for line in lines} == {"ok"}, lines
    assert "valid: step_00000006, step_00000003" in one(lines, "checkpoints").message
    assert "3 rows, the last at step 6" in one(lines, "metrics").message
    assert "the weights that the run was trained with" in one(lines, "encoders").message
    assert "3 grids" in one(lines, "samples").message
    assert "finished after 6 steps" in one(lines, "next").message
    assert before == {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}


def test_a_flipped_bit_in_a_checkpoint(copy: Path):
    (copy / "results.json").unlink()
    file = next(
        path
        for path in (copy / "checkpoints" / "step_00000006").rglob("*.safetensors")
        if path.is_file() and path.stat().st_size
    )
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    lines = report(copy)
    assert "is damaged" in one(lines, "checkpoint").message
    assert one(lines, "checkpoint").status == "problem"
    assert "resumes after step 3 of 6" in one(lines, "next").message
    shutil.rmtree(copy / "checkpoints" / "step_00000003")
    assert one(report(copy), "next").status == "problem"


def test_large_checkpoints_are_not_hashed_unless_asked_for(copy: Path, monkeypatch):
    monkeypatch.setattr(run_checkpoints, "HASHED", 0)
    assert "not hashed: --full" in one(report(copy), "checkpoints").message
    assert "not hashed" not in one(report(copy, full=True), "checkpoints").message
    file = next((copy / "checkpoints" / "step_00000006").glob("*.safetensors"))
    file.rename(copy / "elsewhere")
    assert "is missing" in one(report(copy), "checkpoint").message


def test_leftovers(copy: Path):
    root = copy / "checkpoints"
    (root / ".step_00000009.77").mkdir()
    os.utime(root / ".step_00000009.77", (1e9, 1e9))
    (root / "damaged_step_00000002").mkdir()
    said = [line.message for line in report(copy) if line.name == "checkpoint"]
    assert len(said) == 2 and "damaged checkpoint" in said[0] and "incomplete" in said[1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: [lines[0], "{broken", *lines[1:]], "line 2 is not JSON"),
        (lambda lines: [*lines[:2], lines[0]], "step 2 comes after step"),
        (lambda lines: [lines[0].replace('"loss": ', '"loss": NaN, "was": ')], "not finite: loss"),
    ],
)
def test_metrics_that_cannot_be(copy: Path, change, says: str):
    path = copy / "metrics.jsonl"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    line = one(report(copy), "metrics")
    assert line.status == "problem" and says in line.message


def test_rows_without_a_finite_step(copy: Path):
    rows = [{"step": 2, "loss": 1.0}, {"step": 4, "loss": None}]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = one(report(copy), "metrics")
    assert line.status == "warning" and "no finite loss in the rows at step 4" in line.message


def test_what_the_watch_sees_is_told(copy: Path):
    losses = [*np.linspace(2, 0.5, 60), *[1.9] * 10]
    rows = [{"step": 20 * (i + 1), "loss": float(loss)} for i, loss in enumerate(losses)]
    finding = Finding("text_unused", 400, "the captions have no effect", "do this")
    rows[19]["warnings"] = [asdict(finding)]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = report(copy)
    assert "the loss rises: 1.9" in one(lines, "loss rises").message
    assert "--optimizer.learning_rate" in one(lines, "loss rises").advice
    assert one(lines, "text unused").advice == "do this"


def test_pictures(copy: Path):
    (copy / "samples" / "step_00000003.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    assert "cannot be opened" in one(report(copy), "samples").message
    (copy / "samples" / "step_00000003.png").unlink()
    assert "missing: step_00000003.png" in one(report(copy), "samples").message


def test_other_weights(copy: Path, monkeypatch):
    monkeypatch.setattr(run_inputs, "ask", lambda *a, **k: {"text_encoder": "0", "vae": "1"})
    line = one(report(copy), "encoders")
    assert line.status == "problem" and "text_encoder" in line.message


def test_encoders_that_are_elsewhere(copy: Path):
    config = json.loads((copy / "config.json").read_text())
    config["text_encoder"] = "somebody/something"
    (copy / "config.json").write_text(json.dumps(config))
    line = one(report(copy), "encoders")
    assert line.status == "warning" and "somebody/something" in line.message


def test_a_folder_that_is_no_run_and_a_config_that_cannot_be_read(tmp_path: Path):
    assert [line.status for line in report(tmp_path)] == ["problem"]
    (tmp_path / "config.json").write_text('{"nonsense": 1}')
    assert "cannot be read" in report(tmp_path)[0].message


# --- prepared data ----------------------------------------------------------------------------


def prepared(root: Path) -> Manifest:
    """A dataset of two shards, as far as its manifest goes."""
    (root / "latents").mkdir(parents=True)
    infos = []
    for name in ("a.array_record", "b.array_record"):
        (root / "latents" / name).write_bytes(name.encode())
        info = ShardInfo(name=name, count=1, bytes=len(name), sha256="0" * 64)
        infos.append(info)
    manifest = Manifest({"format": FORMAT}, ("a", "b"), {"latents": tuple(infos)}, {"ok": 2})
    manifest.write(root)
    return manifest


def with_dataset(copy: Path, root: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config |= {"dataset_name": "prepared", "dataset_path": str(root)}
    (copy / "config.json").write_text(json.dumps(config))


def test_a_prepared_dataset(copy: Path, tmp_path: Path):
    root = tmp_path / "set"
    prepared(root)
    with_dataset(copy, root)
    assert "2 shards" in one(report(copy), "dataset").message
    (root / "latents" / "b.array_record").unlink()
    line = one(report(copy), "dataset")
    assert line.status == "problem" and "1 of 2 shards: latents/b.array_record" in line.message
    assert f"pinxit prepare --out {root}" in line.advice
    (root / "manifest.json").unlink()
    assert one(report(copy), "dataset").status == "problem"


def test_another_dataset_than_the_run_was_begun_with(copy: Path, tmp_path: Path, monkeypatch):
    root = tmp_path / "set"
    prepared(root)
    with_dataset(copy, root)
    position = {"step": 6, "dataset": "another"}
    monkeypatch.setattr(RunFacts, "record", lambda self: {"loader_position": position})
    line = one(report(copy), "dataset")
    assert line.status == "problem" and "started on dataset another" in line.message


def test_a_packed_dataset(copy: Path, tmp_path: Path):
    root = tmp_path / "packed"
    packed(toys.latent_dataset(tmp_path / "set"), root)
    with_dataset(copy, root)
    line = one(report(copy), "dataset")
    assert line.status == "ok" and "all present with the right size (--full" in line.message
    assert "with the right checksums" in one(report(copy, full=True), "dataset").message
    pack = sorted((root / "packs").glob("latents*.pack"))[1]
    good = pack.read_bytes()
    flip(pack)
    assert one(report(copy), "dataset").status == "ok", "sizes only"
    line = one(report(copy, full=True), "dataset")
    assert line.status == "problem" and f"packs/{pack.name}: 1 record does not" in line.message
    assert f"--out {root}" in line.advice and "delete these packs" in line.advice
    pack.write_bytes(good[:-1])
    for full in (False, True):
        line = one(report(copy, full=full), "dataset")
        assert line.status == "problem" and f"has {len(good) - 1} bytes instead" in line.message
    pack.write_bytes(good)
    for path in (pack, pack.with_suffix(".index"), root / "packed.json"):
        content = path.read_bytes()
        path.unlink()
        assert one(report(copy), "dataset").status == "problem"
        path.write_bytes(content)
    assert one(report(copy, full=True), "dataset").status == "ok"
