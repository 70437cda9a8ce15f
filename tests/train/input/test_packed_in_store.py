"""Training on a packed dataset in an S3 store: the local run, bit for bit."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import write_captioned
from small_run import arrays_of, rows_without_times, small_run, train_here

from pinxit.cli.main import main
from pinxit.cli.prepare import prepare_command
from pinxit.data.packed import packed_manifest
from pinxit.data.stores import remote_store
from pinxit.data.stores.remote_store import Retries
from pinxit.train.input import outage
from pinxit.train.settings import EvalConfig, TrainConfig

ROWS, STEPS = 60, 12
URL = "s3://bucket/set"


@pytest.fixture(scope="module")
def prepared(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset."""
    folder = tmp_path_factory.mktemp("datasets")
    pictures = write_captioned(tmp_path_factory.mktemp("pictures"), ROWS, [(24, 20)])
    words = ["folder", "--dataset_path", pictures, "--out", folder / "set", "--vae", bundle]
    words += ["--engine", "inline", "--image_size", 16, "--unit_rows", 15, "--images.workers", 1]
    assert prepare_command([str(word) for word in words]) == 0
    return folder / "set"


@pytest.fixture(scope="module")
def objects(prepared: Path) -> dict[str, bytes]:
    """The packed dataset, as the objects of a bucket."""
    packed = prepared.parent / "packed"
    words = ["pack", str(prepared), "--out", str(packed), "--pack_gigabytes", "3e-6"]
    assert main([*words, "--held_out_images", "12"]) == 0
    files = [path for path in packed.rglob("*") if path.is_file()]
    return {f"set/{path.relative_to(packed).as_posix()}": path.read_bytes() for path in files}


def settings(bundle: Path, folder: Path, dataset: str) -> TrainConfig:
    held = EvalConfig(images=10, batch_size=10, prompts=0)
    quick = {"sample_interval": 0, "eval_interval": 4, "log_interval": 1}
    one = small_run(bundle, folder, dataset_path=dataset, evaluation=held, **quick)
    return dataclasses.replace(one, dataset_name="scenes", dataset_size=20000)


@pytest.fixture(scope="module")
def reference(bundle: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the local dataset."""
    config = settings(bundle, tmp_path_factory.mktemp("reference"), str(prepared))
    result, output = train_here(config)
    assert result.exit_code == 0, output
    return result.folder


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the pauses after errors short, and forgets the manifests of other servers."""
    monkeypatch.setattr(remote_store, "Retries", lambda: Retries(pauses=(0.01,), timeout=20.0))
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.05)
    packed_manifest._MANIFESTS.clear()


def same(folder: Path, reference: Path, *, last: bool = False) -> None:
    rows, expected = rows_without_times(folder), rows_without_times(reference)
    assert rows[-1] == expected[-1] if last else rows == expected
    one, other = arrays_of(folder, STEPS), arrays_of(reference, STEPS)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_run_from_a_bucket_is_the_local_run(serving, bundle, objects, reference, tmp_path):
    with serving(objects, latency=0.01) as server:
        result, output = train_here(settings(bundle, tmp_path, URL))
        assert result.exit_code == 0, output
        assert "50 rows to train on, 10 held out" in output and "no validation" not in output
        same(result.folder, reference)
        latents = [r for r in server.requests if ".pack bytes=" in r and "latents" in r]
        assert latents and server.most_at_once > 1
        for step in (8, STEPS):
            shutil.rmtree(result.folder / "checkpoints" / f"step_{step:08d}")
        (result.folder / "results.json").unlink()
        result, output = train_here(settings(bundle, tmp_path, URL))
        assert result.exit_code == 0 and "step 4" in output, output
        same(result.folder, reference, last=True)


def test_an_outage_is_waited_for_and_changes_nothing(
    serving, bundle, objects, reference, tmp_path, monkeypatch
):
    with serving(objects) as server:
        take, reads = remote_store.RemoteStore.ranges, []

        def with_an_outage(store, ranges):
            reads.append(len(ranges))
            if len(reads) == 20:
                server.down = 12
            return take(store, ranges)

        monkeypatch.setattr(remote_store.RemoteStore, "ranges", with_an_outage)
        result, output = train_here(settings(bundle, tmp_path, URL))
        assert server.down == 0 and result.exit_code == 0, output
        assert f"{URL} cannot be reached" in output and "can be reached again" in output
        same(result.folder, reference)


@pytest.mark.slow
def test_an_outage_beyond_the_limit_ends_with_a_checkpoint(
    serving, bundle, objects, tmp_path, monkeypatch
):
    monkeypatch.setattr(outage, "LEAST", 0.5)
    with serving(objects) as server:
        take, reads = remote_store.RemoteStore.ranges, []

        def with_an_outage(store, ranges):
            reads.append(len(ranges))
            if len(reads) == 20:
                server.down = 10**6
            return take(store, ranges)

        monkeypatch.setattr(remote_store.RemoteStore, "ranges", with_an_outage)
        config = dataclasses.replace(settings(bundle, tmp_path, URL), outage_hours=0)
        result, output = train_here(config)
        assert result.exit_code != 0 and "--outage_hours" in (result.reason or output), output
        steps = sorted((result.folder / "checkpoints").glob("step_*"))
        assert steps and "this is a bug" not in output
        server.down = 0
        monkeypatch.setattr(remote_store.RemoteStore, "ranges", take)
        result, output = train_here(config)
        assert result.exit_code == 0, output
