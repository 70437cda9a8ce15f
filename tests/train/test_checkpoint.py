"""Checkpoints: exact, whole or unused, and damage is found."""

import dataclasses
import json
import random
import resource
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from toys import assert_trees_equal, make, run_steps

from pinxit.checkpoint_files import CheckpointManifest, DamagedCheckpoint, damage, signed
from pinxit.config import UsageError
from pinxit.encoders.weights import flatten
from pinxit.stored_model import read_model
from pinxit.train.checkpoint import (
    CheckpointError,
    Checkpoints,
    read_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)


@pytest.fixture(scope="module")
def state():
    """A state after two steps of Muon, on the host."""
    return jax.device_get(run_steps(*make(name="muon"), 2)[0])


def test_what_is_restored_is_what_was_saved(state, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {"seed": 3})
    checkpoints.wait()
    restored = checkpoints.restore(make(name="muon")[1])
    assert restored.step == 2 and restored.run == {"seed": 3} and not restored.problems
    assert_trees_equal(restored.state, state)
    assert Checkpoints(tmp_path / "empty").restore(state) is None


def test_training_goes_on_bit_for_bit(tmp_path: Path):
    step, fresh = make()
    through, _ = run_steps(step, fresh, 6)
    step, fresh = make()
    halfway, _ = run_steps(step, fresh, 3)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(halfway, {})
    run_steps(step, halfway, 1)  # the state is donated while the checkpoint is being written
    checkpoints.wait()
    step, fresh = make()
    resumed, _ = run_steps(step, jax.device_put(checkpoints.restore(fresh).state), 3)
    assert_trees_equal(jax.device_get(resumed), jax.device_get(through))


def test_only_the_newest_are_kept(state, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(make(name="muon")[1], {})
    checkpoints.wait()
    checkpoints.save(state, {})
    checkpoints.wait()
    assert [folder.name for folder in checkpoints.folders()] == ["step_00000002"]


def test_a_copy_by_hand_is_no_checkpoint(state, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state, {})
    checkpoints.wait()
    for name in ("step_00000002_copy", "step_00000009 (1)", "step_9"):
        shutil.copytree(tmp_path / "step_00000002", tmp_path / name)
    (tmp_path / "step_00000004").write_text("a file")
    assert [folder.name for folder in checkpoints.folders()] == ["step_00000002"]
    checkpoints.save(state, {}, overwrite=True)
    checkpoints.wait()
    assert len(list(tmp_path.iterdir())) == 5, "a copy was removed"
    assert checkpoints.restore(make(name="muon")[1]).step == 2


def test_every_flipped_bit_is_found(state, tmp_path: Path):
    original = tmp_path / "step_00000002"
    write_checkpoint(original, state, {"seed": 0})
    rng = random.Random(0)
    for _ in range(20):
        copy = tmp_path / "copy"
        shutil.copytree(original, copy)
        files = [p for p in copy.rglob("*") if p.is_file() and p.stat().st_size]
        victim = rng.choice(files)
        data = bytearray(victim.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        victim.write_bytes(data)
        with pytest.raises(CheckpointError):
            verify_checkpoint(copy)
        shutil.rmtree(copy)


def test_a_flipped_bit_anywhere_in_the_manifest_is_damage(state, tmp_path: Path):
    """None looks like another version of the format, which would not be renamed and skipped."""
    folder = tmp_path / "step_00000002"
    write_checkpoint(folder, state, {})
    manifest = folder / "manifest.json"
    original = manifest.read_bytes()
    for place in range(8 * len(original)):
        data = bytearray(original)
        data[place // 8] ^= 1 << place % 8
        manifest.write_bytes(data)
        with pytest.raises(DamagedCheckpoint):
            CheckpointManifest(folder)
    manifest.write_bytes(original)
    assert damage(folder) is None


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "run.json~", "ema/.DS_Store"])
def test_a_stray_file_is_ignored(name: str, state, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {"seed": 3})
    checkpoints.wait()
    (tmp_path / "step_00000002" / name).write_bytes(b"left by another program")
    restored = checkpoints.restore(make(name="muon")[1])
    assert restored.run == {"seed": 3} and not restored.problems
    assert_trees_equal(restored.state, state)


def test_a_newer_versions_checkpoint_is_neither_renamed_nor_skipped(state, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    like = make(name="muon")[1]
    for older_or_newer in (like, state):
        checkpoints.save(older_or_newer, {})
        checkpoints.wait()
    manifest = tmp_path / "step_00000002" / "manifest.json"
    hashes = json.loads(manifest.read_text())["sha256"]
    manifest.write_text(json.dumps(signed({"version": 99, "sha256": hashes})))
    for read in (
        lambda: checkpoints.restore(like),
        lambda: checkpoints.restore(like, step=2),
        lambda: read_model(tmp_path),
    ):
        with pytest.raises(UsageError, match=r"step_00000002: .*format 99.*install that version"):
            read()
    assert checkpoints.steps() == [2, 0] and not list(tmp_path.glob("damaged_*"))


MODEL_OF_A_RUN = {
    "config": {"model": {}, "text_encoder": "none", "vae": "none", "image_size": 8, "name": "toy"}
}


def test_drawing_reads_no_byte_of_the_optimiser_and_the_averages(state, tmp_path: Path):
    folder = tmp_path / "step_00000002"
    write_checkpoint(folder, state, MODEL_OF_A_RUN)
    before = flatten(read_model(folder, ema="raw").params)
    assert_trees_equal(before, flatten(state.params))
    with (folder / "optimizer.00000.safetensors").open("r+b") as file:
        file.write(bytes(100))
    averages = sorted((folder / "ema").iterdir())
    averages[0].unlink()
    averages[1].write_text("damaged")
    assert_trees_equal(flatten(read_model(folder, ema="raw").params), before)
    for path in averages:
        with pytest.raises(UsageError, match=r"ema_.* is (missing|damaged)"):
            read_model(folder, ema=path.name.removesuffix(".00000.safetensors"))
    for name in ("params.00000.safetensors", "run.json", "counters.00000.safetensors"):
        original = (folder / name).read_bytes()
        (folder / name).write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        with pytest.raises(UsageError, match=f"{name} is damaged"):
            read_model(folder, ema="raw")
        (folder / name).write_bytes(original)
    assert_trees_equal(flatten(read_model(folder, ema="raw").params), before)


def damage_bit(folder: Path) -> None:
    victim = max(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)


def truncate(folder: Path) -> None:
    (folder / "run.json").write_text("")


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("spoil", [damage_bit, truncate, lose_manifest, empty])
def test_the_newest_valid_checkpoint_is_used(spoil, state, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    start = make(name="muon")[1]
    checkpoints.save(start, {})
    checkpoints.wait()
    checkpoints.save(state, {})
    checkpoints.wait()
    spoil(tmp_path / "step_00000002")
    restored = checkpoints.restore(start)
    assert restored.step == 0
    assert "step_00000002 was renamed to damaged_step_00000002" in restored.problems[0]
    assert (tmp_path / "damaged_step_00000002").is_dir()
    checkpoints.save(state, {})
    checkpoints.wait()
    assert checkpoints.restore(start).step == 2


def test_no_valid_checkpoint_is_an_error(state, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {})
    checkpoints.wait()
    truncate(tmp_path / "step_00000002")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoints.restore(state)


def test_another_models_checkpoint_names_what_does_not_fit(state, tmp_path: Path):
    write_checkpoint(tmp_path / "step_00000002", state, {})
    with pytest.raises(
        CheckpointError, match=r"optimizer/.* is missing; optimizer/.*; and \d+ more$"
    ):
        read_checkpoint(tmp_path / "step_00000002", make(name="adamw")[1])


def test_a_full_disk_is_reported(state, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make(name="muon")[1], {})
    checkpoints.wait()
    monkeypatch.setattr("pinxit.train.checkpoint_writing.json.dumps", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(state, {})
        checkpoints.wait()
    monkeypatch.undo()
    assert checkpoints.restore(state).step == 0
    assert not list(tmp_path.glob(".*"))


def test_a_disk_that_is_really_full_is_reported(state, tmp_path: Path):
    """No file may grow beyond 256 bytes."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make(name="muon")[1], {})
    checkpoints.wait()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, before[1]))
    try:
        with pytest.raises(Exception, match=r"[Ff]ile too large|FILE_TOO_LARGE"):
            checkpoints.save(state, {})
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoints.restore(state).step == 0
    assert not list(tmp_path.glob(".*"))


def test_a_disk_that_stays_full_is_warned_about_once(state, tmp_path: Path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    lines: list[str] = []
    checkpoints = Checkpoints(tmp_path, say=lines.append)
    monkeypatch.setattr("pinxit.train.checkpoint_writing.json.dumps", full)
    for _ in range(3):
        checkpoints.save(state, {})
    with pytest.raises(OSError, match=r"could not be written: .*run the same command again"):
        checkpoints.wait()
    assert len(lines) == 1 and "tried again every 5 seconds, as are later ones" in lines[0]
    assert "No space left on device (" in lines[0] and "GiB free)" in lines[0]
    monkeypatch.undo()
    checkpoints.save(state, {})
    checkpoints.wait()
    assert lines[1:] == [f"step_{int(state.step):08d} is written now"]


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, ValueError])
def test_whatever_stops_the_writer_is_told(state, tmp_path: Path, monkeypatch, error: type):
    def broken(*args, **kwargs):
        raise error("of the writer")

    monkeypatch.setattr("pinxit.train.checkpoint_writing.write_folder", broken)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {})
    with pytest.raises(error, match="of the writer"):
        checkpoints.wait()


def test_a_kill_while_a_checkpoint_is_replaced_loses_nothing(state, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {"best_ema": None})
    checkpoints.wait()
    folder = checkpoints.folders()[0]
    folder.rename(tmp_path / f".{folder.name}.before")
    shutil.copytree(tmp_path / f".{folder.name}.before", tmp_path / f".{folder.name}.1234")
    checkpoints.clean()
    assert checkpoints.restore(state).step == 2
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_removal_that_a_kill_interrupts_leaves_no_incomplete_checkpoint(
    state, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(make(name="muon")[1], {})
    checkpoints.wait()
    monkeypatch.setattr("shutil.rmtree", lambda *args, **kwargs: None)  # killed before this
    checkpoints.save(state, {})
    checkpoints.wait()
    monkeypatch.undo()
    assert checkpoints.steps() == [2]
    (tmp_path / ".shared.000000000001.partial").mkdir()  # asked whether all see this folder
    assert len(list(tmp_path.iterdir())) == 3
    checkpoints.clean()
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000002"]


def test_overwriting_replaces_what_the_host_knows(state, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {"best_ema": None})
    checkpoints.wait()
    checkpoints.save(state, {"best_ema": "x"})
    checkpoints.wait()
    assert checkpoints.restore(state).run["best_ema"] is None
    checkpoints.save(state, {"best_ema": "ema_0.1"}, overwrite=True)
    checkpoints.wait()
    assert checkpoints.restore(state).run["best_ema"] == "ema_0.1"
    assert json.loads((tmp_path / "step_00000002" / "manifest.json").read_text())["version"] == 2


def test_permanent_checkpoints_remain(state, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=1, keep_every=4)
    for step in range(2, 12, 2):
        at = dataclasses.replace(state, step=np.int32(step))
        checkpoints.save(at, {"permanent": True} if step == 6 else {})
        checkpoints.wait()
    assert checkpoints.steps() == [10, 8, 6, 4]
    (tmp_path / "step_00000006" / "run.json").write_text("damaged")
    checkpoints.save(dataclasses.replace(state, step=np.int32(11)), {})
    checkpoints.wait()
    assert checkpoints.steps() == [11, 8, 4]


def test_a_checkpoint_can_be_chosen_by_its_step(state, tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    for step in (2, 4):
        checkpoints.save(dataclasses.replace(state, step=np.int32(step)), {})
    checkpoints.wait()
    like = make(name="muon")[1]
    assert checkpoints.restore(like, step=2).step == 2
    with pytest.raises(UsageError, match=r"resume_step: 3 is not the step of a checkpoint; .*2, 4"):
        checkpoints.restore(like, step=3)
    truncate(tmp_path / "step_00000002")
    with pytest.raises(CheckpointError):
        checkpoints.restore(like, step=2)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_an_older_checkpoint_without_clipping_is_read(name: str, tmp_path: Path):
    """Before, the optimiser's state had another structure without clipping."""
    state = jax.device_get(run_steps(*make(name=name), 2)[0])
    older = dataclasses.replace(state, opt_state=state.opt_state[1])
    write_checkpoint(tmp_path / "step_00000002", older, {})
    restored = read_checkpoint(tmp_path / "step_00000002", make(name=name)[1])
    assert_trees_equal(restored.state, state)
