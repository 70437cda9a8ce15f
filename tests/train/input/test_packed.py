"""Training on a packed dataset: the run of the unpacked one, bit for bit, and either continues."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import packed_toys  # pyrefly: ignore
import pytest
from damaged_shards import run_two  # pyrefly: ignore
from pictures import write_captioned  # pyrefly: ignore
from small_run import arrays_of, rows_without_times, small_run, train_here  # pyrefly: ignore

from pinxit.cli.main import main
from pinxit.cli.prepare import prepare_command
from pinxit.config import UsageError
from pinxit.data.packed.packed_manifest import read_packed
from pinxit.doctor.packs import check_packs
from pinxit.train.input.evaluation_rows import rows_of_dataset, rows_of_run
from pinxit.train.run_folder import folder_of
from pinxit.train.settings import EvalConfig, TrainConfig

ROWS, HELD_OUT, STEPS = 60, 10, 12


@pytest.fixture(scope="module")
def datasets(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of several sizes with text, and what `pinxit pack` makes of it."""
    folder = tmp_path_factory.mktemp("datasets")
    pictures = write_captioned(
        tmp_path_factory.mktemp("pictures"), ROWS, [(24, 20), (30, 18), (18, 30)]
    )
    words = ["folder", "--dataset_path", pictures, "--out", folder / "set", "--vae", bundle]
    words += ["--engine", "inline", "--image_size", 16, "--unit_rows", 15, "--images.workers", 1]
    words += ["--images.bucket_step", 4, "--store_text", 1, "--text_encoder", bundle]
    assert prepare_command([str(word) for word in words]) == 0
    words = ["pack", folder / "set", "--out", folder / "packed", "--pack_gigabytes", "3e-6"]
    assert main([*map(str, words), "--held_out_images", "12"]) == 0
    return {"set": folder / "set", "packed": folder / "packed"}


def settings(bundle: Path, folder: Path, dataset: Path, **changes: Any) -> TrainConfig:
    held = EvalConfig(images=HELD_OUT, batch_size=10, prompts=0)
    quick = {"sample_interval": 0, "eval_interval": 4, "log_interval": 1, "cache_text": True}
    one = small_run(bundle, folder, dataset_path=str(dataset), evaluation=held, **quick)
    return dataclasses.replace(one, dataset_name="scenes", dataset_size=20000, **changes)


@pytest.fixture(scope="module")
def reference(bundle: Path, datasets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the unpacked dataset."""
    config = settings(bundle, tmp_path_factory.mktemp("reference"), datasets["set"])
    result, output = train_here(config)
    assert result.exit_code == 0, output
    return result.folder


def same(folder: Path, reference: Path) -> None:
    assert rows_without_times(folder) == rows_without_times(reference)
    one, other = arrays_of(folder, STEPS), arrays_of(reference, STEPS)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_run_on_the_packed_dataset_is_the_same_run(bundle, datasets, reference, tmp_path):
    assert len(read_packed(str(datasets["packed"])).packs("latents")) > 3
    result, output = train_here(settings(bundle, tmp_path, datasets["packed"]))
    assert result.exit_code == 0, output
    assert "50 rows to train on, 10 held out" in output and "no validation loss" not in output
    same(result.folder, reference)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("set", "packed"), ("packed", "set")])
def test_a_run_continues_on_the_other_form(
    first: str, then: str, bundle: Path, datasets, reference: Path, tmp_path: Path
):
    config = settings(bundle, tmp_path, datasets[first])
    folder = train_here(config)[0].folder
    for step in (8, STEPS):
        shutil.rmtree(folder / "checkpoints" / f"step_{step:08d}")
    (folder / "results.json").unlink()
    config = dataclasses.replace(config, dataset_path=str(datasets[then]))
    result, output = train_here(config)
    assert result.exit_code == 0 and "step 4" in output, output
    assert rows_without_times(result.folder)[-1] == rows_without_times(reference)[-1]
    one, other = arrays_of(result.folder, STEPS), arrays_of(reference, STEPS)
    for name in other:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_damaged_record_costs_one_row_of_the_run(bundle, datasets, reference, tmp_path):
    root = shutil.copytree(datasets["packed"], tmp_path / "set")
    pack = root / read_packed(str(root)).packs("latents")[0].name
    packed_toys.flip(pack, 200)
    result, output = train_here(settings(bundle, tmp_path / "runs", root))
    assert result.exit_code == 0, output
    data = json.loads((result.folder / "results.json").read_text())["data"]
    assert data["rows_replaced"] == 1
    assert list(data["damaged_shards"]) == [f"packs/{pack.name}"]
    line = check_packs(root, read_packed(str(root)), ["latents"], full=False)
    assert line.status == "ok"
    line = check_packs(root, read_packed(str(root)), ["latents"], full=True)
    assert line.status == "problem" and "1 record does not match" in line.message
    pack.write_bytes(pack.read_bytes()[:-1])
    line = check_packs(root, read_packed(str(root)), ["latents"], full=False)
    assert line.status == "problem" and pack.name in line.message


def test_evaluation_reads_the_same_rows(bundle, datasets, reference, tmp_path):
    config = settings(bundle, reference.parent, datasets["set"]).resolved()
    packed = dataclasses.replace(config, dataset_path=str(datasets["packed"]))
    for rows_of in (
        lambda config, count: rows_of_run(config, folder_of(config), count, print).examples,
        lambda config, count: rows_of_dataset(config, count, print).examples,
    ):
        old, new = rows_of(config, HELD_OUT), rows_of(packed, HELD_OUT)
        assert [row.caption for row in new] == [row.caption for row in old]
        for one, other in zip(new, old, strict=True):
            np.testing.assert_array_equal(one.image, other.image)
    with pytest.raises(UsageError, match=r"images: 13 is more than .*--held_out_images 13"):
        rows_of_dataset(packed, 13, print)


def test_more_held_out_rows_than_images_are_refused(bundle, datasets, tmp_path):
    held = EvalConfig(images=13, batch_size=10, prompts=0)
    config = dataclasses.replace(settings(bundle, tmp_path, datasets["packed"]), evaluation=held)
    with pytest.raises(UsageError, match=r"evaluation.images: 13 .*\(12\).*--held_out_images 13"):
        train_here(config)


@pytest.mark.slow
def test_two_processes_replace_a_damaged_record_as_one_does(bundle, datasets, tmp_path):
    root = shutil.copytree(datasets["packed"], tmp_path / "set")
    packed_toys.flip(root / read_packed(str(root)).packs("latents")[0].name, 200)
    one = train_here(settings(bundle, tmp_path / "one", root))[0].folder
    config = settings(bundle, tmp_path / "two", root)
    codes, output = run_two(config, tmp_path, [("none", "", -1)] * 2)
    assert codes == [0, 0], output
    two = tmp_path / "two" / config.name
    rows, others = (
        [row for row in rows_without_times(folder) if "loss" in row] for folder in (one, two)
    )
    assert len(rows) == len(others) == STEPS
    for row, other in zip(rows, others, strict=True):
        assert row.get("rows_replaced") == other.get("rows_replaced")
        np.testing.assert_allclose(row["loss"], other["loss"], rtol=1e-4)
    assert rows[-1]["rows_replaced"] == 1
