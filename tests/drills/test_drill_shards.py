"""Damaged shards in whole training runs: rows are replaced, counted, and nothing else changes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from damaged_shards import DAMAGES, damage, damage_at, run_two
from drill_table import record
from pictures import write_captioned
from small_run import arrays_of, rows_without_times, small_run, train_here

from pinxit.cli.prepare import prepare_command
from pinxit.data.loader import Loader
from pinxit.data.prepared.manifest import Manifest
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.train.settings import EvalConfig, TrainConfig

ROOT = Path(__file__).parents[2]
ROWS, UNIT, HELD_OUT, STEPS, BATCH = 60, 15, 10, 12, 4
VICTIM = 1
"""The unit that is damaged: rows 15 to 29, of which none is held out."""
WHEN = {"before": "before the run", "middle": "in mid-run"}
MIDDLE = 8
"""The step before which a shard is damaged in mid-run. Its file is open and verified then."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_captioned(tmp_path_factory.mktemp("pictures"), ROWS, [(24, 20)])


def prepare(pictures: Path, out: Path, bundle: Path, *more: object) -> int:
    words = ["folder", "--dataset_path", pictures, "--out", out, "--vae", bundle, "--engine"]
    words += ["inline", "--image_size", 16, "--unit_rows", UNIT, "--images.workers", 1]
    words += ["--store_text", 1, "--text_encoder", bundle, "--encode_batch", 8]
    return prepare_command([str(word) for word in [*words, *more]])


@pytest.fixture(scope="module")
def dataset(pictures: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "set"
    assert prepare(pictures, out, bundle) == 0
    return out


def settings(bundle: Path, folder: Path, dataset: Path, **changes: Any) -> TrainConfig:
    quick = {"sample_interval": 0, "eval_interval": 0, "log_interval": 1}
    held = EvalConfig(images=HELD_OUT, batch_size=10, prompts=0)
    one = small_run(bundle, folder, dataset_path=str(dataset), evaluation=held, **quick)
    return dataclasses.replace(one, dataset_name="scenes", dataset_size=20000, **changes)


@pytest.fixture(scope="module")
def sound(bundle: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the undamaged dataset."""
    result, output = train_here(settings(bundle, tmp_path_factory.mktemp("sound"), dataset))
    assert result.exit_code == 0, output
    return result.folder


def copied(dataset: Path, folder: Path) -> tuple[Path, Path]:
    """A copy to damage, and its shard."""
    root = Path(shutil.copytree(dataset, folder / "set"))
    return root, sorted((root / "latents").iterdir())[VICTIM]


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def replaced_by_step(dataset: Path, first: int) -> list[int]:
    """The number of rows of the victim before each step, in batches from `first` on."""
    rows = PreparedRows(dataset)
    rows.hold_out(HELD_OUT)
    loader = Loader(rows, batch_size=BATCH, seed=0, count=ROWS - HELD_OUT)
    counts = [0]
    for step in range(STEPS):
        numbers = loader.row_numbers(step)
        hits = ((numbers >= VICTIM * UNIT) & (numbers < (VICTIM + 1) * UNIT)).sum()
        counts.append(counts[-1] + (int(hits) if step >= first else 0))
    return counts


def check(folder: Path, sound: Path, expected: list[int], shard: Path, *, first: int) -> None:
    """Compares a run with the sound one."""
    rows, others = rows_without_times(folder), rows_without_times(sound)
    rows = [row for row in rows if "loss" in row]
    others = [row for row in others if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row.get("rows_replaced", 0) for row in rows] == expected[1:]
    for row, other in zip(rows, others, strict=True):
        if not expected[row["step"]]:
            assert row == other
    results = json.loads((folder / "results.json").read_text())
    data = results["data"]
    assert data["rows_replaced"] == expected[-1]
    reason = data["damaged_shards"].get(f"latents/{shard.name}", "")
    assert bool(reason) == bool(expected[-1]), data
    assert arrays_of(folder, STEPS).keys() == arrays_of(sound, STEPS).keys()


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.slow), "middle"])
@pytest.mark.parametrize("kind", DAMAGES)
def test_one_process(
    kind: str,
    when: str,
    dataset: Path,
    sound: Path,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    root, shard = copied(dataset, tmp_path)
    first = 0
    if when == "before":
        damage(shard, kind, monkeypatch.setattr)
    else:
        first = MIDDLE
        damage_at(MIDDLE, lambda: damage(shard, kind, monkeypatch.setattr), monkeypatch.setattr)
    before = names(root)
    config = settings(bundle, tmp_path / "runs", root)
    result, output = train_here(config)
    assert result.exit_code == 0, output
    expected = replaced_by_step(dataset, first)
    if when == "middle" and kind == "deleted":
        expected = [0] * (STEPS + 1)  # its file is open: what it holds can still be read
    assert expected[-1] or kind == "deleted"
    check(result.folder, sound, expected, shard, first=first)
    after = [name for name in before if when == "before" or kind != "deleted" or
             name != f"latents/{shard.name}"]  # fmt: skip
    assert names(root) == after
    record("shards", f"{kind}, {WHEN[when]}, 1 process", 1, 1, f"{expected[-1]} rows replaced")


@pytest.mark.slow
def test_a_resumed_run_counts_on_and_prepare_makes_the_shard_again(
    pictures: Path, dataset: Path, sound: Path, bundle: Path, tmp_path: Path
):
    root, shard = copied(dataset, tmp_path)
    before, good = Manifest.read(root).fingerprint(), shard.read_bytes()
    damage(shard, "flipped")
    config = settings(bundle, tmp_path / "runs", root)
    folder = train_here(config)[0].folder
    shutil.rmtree(folder / "checkpoints" / f"step_{STEPS:08d}")
    shutil.rmtree(folder / "checkpoints" / "step_00000008")
    (folder / "results.json").unlink()
    result, output = train_here(config)
    assert result.exit_code == 0 and "--verify 1" not in output, output
    check(result.folder, sound, replaced_by_step(dataset, 0), shard, first=0)
    assert prepare(pictures, root, bundle) == 0
    assert shard.read_bytes() != good, "without --verify 1, only sizes are compared"
    assert prepare(pictures, root, bundle, "--verify", 1) == 0
    assert shard.read_bytes() == good and Manifest.read(root).fingerprint() == before
    for folder_name in ("images", "text"):
        other = sorted((root / folder_name).iterdir())[VICTIM]
        good = other.read_bytes()
        damage(other, "flipped")
        assert prepare(pictures, root, bundle, "--verify", 1) == 0
        assert other.read_bytes() == good and Manifest.read(root).fingerprint() == before


def test_too_much_damage_in_mid_run_ends_with_a_checkpoint_and_one_line(
    dataset: Path, sound: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root, _ = copied(dataset, tmp_path)

    def ruin() -> None:
        for shard in sorted((root / "latents").iterdir())[1:3]:
            damage(shard, "truncated")

    with monkeypatch.context() as patch:
        damage_at(MIDDLE, ruin, patch.setattr)
        result, output = train_here(settings(bundle, tmp_path / "runs", root))
    assert result.exit_code == 1 and 0 < result.step < STEPS, output
    assert "2 of 4 shards" in result.reason and "--verify 1" in result.reason
    assert (result.folder / "checkpoints" / f"step_{result.step:08d}").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "middle"])
@pytest.mark.parametrize("kind", DAMAGES)
def test_two_processes(
    kind: str, when: str, dataset: Path, sound: Path, bundle: Path, tmp_path: Path
):
    root, shard = copied(dataset, tmp_path)
    first = 0 if when == "before" else MIDDLE
    before = names(root)
    config = settings(bundle, tmp_path / "runs", root)
    one = (kind, str(shard), first if when == "middle" else -1)
    codes, output = run_two(config, tmp_path, [one, one])
    assert codes == [0, 0], output
    folder = tmp_path / "runs" / config.name
    rows = [row for row in rows_without_times(folder) if "loss" in row]
    counts = [row.get("rows_replaced", 0) for row in rows]
    expected = replaced_by_step(dataset, first)[1:]
    if when == "before":
        assert counts == expected
    else:  # a process that has read ahead damages the file while the other has it open
        assert len(counts) == len(expected) and counts[-1] <= replaced_by_step(dataset, 0)[-1]
    gone = [f"latents/{shard.name}"] if kind == "deleted" else []
    assert [name for name in before if name not in gone] == names(root)
    record("shards", f"{kind}, {WHEN[when]}, 2 processes", 1, 1, f"{counts[-1]} rows replaced")
