"""Training on prepared data: what fits the run, what is refused, and an exact resume."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import write_captioned
from rich.console import Console
from toys import assert_trees_equal

from pinxit.cli.prepare import prepare_command
from pinxit.config import UsageError
from pinxit.model_loading import load_checkpoint
from pinxit.train.build import build
from pinxit.train.display import Display
from pinxit.train.input.open import open_feed
from pinxit.train.metric_rows import read_rows
from pinxit.train.run import RunResult, run
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import (
    EvalConfig,
    ModelConfig,
    OptimizerConfig,
    SampleGridConfig,
    Sampling,
    TrainConfig,
)

ROWS = 60


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of PNG files with captions beside."""
    return write_captioned(tmp_path_factory.mktemp("pictures"), ROWS, [(24, 20)])


def make(pictures: Path, out: Path, bundle: Path, *more: object) -> int:
    words = ["folder", "--dataset_path", pictures, "--out", out, "--vae", bundle, "--engine"]
    words += ["inline", "--image_size", 16, "--unit_rows", 20, "--images.workers", 1]
    return prepare_command([str(word) for word in [*words, "--encode_batch", 8, *more]])


@pytest.fixture(scope="module")
def dataset(pictures: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents and stored text."""
    out = tmp_path_factory.mktemp("prepared") / "set"
    assert make(pictures, out, bundle, "--store_text", 1, "--text_encoder", bundle) == 0
    return out


@pytest.fixture
def config(dataset: Path, bundle: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        name="prepared",
        dataset_path=str(dataset),
        image_size=16,
        batch_size=4,
        max_steps=8,
        text_encoder=str(bundle),
        vae=str(bundle),
        log_interval=2,
        save_interval=4,
        sample_interval=0,
        output_dir=str(tmp_path),
        model=ModelConfig(preset="debug", hidden_size=16, depth=1, num_heads=2),
        optimizer=OptimizerConfig(schedule="constant"),
        sampling=Sampling(steps=1),
        samples=SampleGridConfig(prompts=("red",), seeds=(0,)),
        evaluation=EvalConfig(images=12, batch_size=6),
    )


def train(config: TrainConfig) -> tuple[RunResult, str]:
    said = io.StringIO()
    result = run(config, ["pinxit", "train"], console=Console(file=said, width=200))
    return result, said.getvalue()


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_rows(folder / "metrics.jsonl") if "loss" in row]


def test_a_resumed_run_equals_the_whole_one(config: TrainConfig, dataset: Path):
    whole, said = train(config)
    assert whole.status == "finished", said
    assert "48 rows to train on, 12 held out" in said and "latents' std" in said
    assert whole.results["validation"] and whole.results["data"]["rows"] == {"ok": ROWS}
    saved = json.loads((whole.folder / "config.json").read_text())
    assert saved["dataset_name"] == "prepared"

    half = dataclasses.replace(config, name="half", max_steps=4)
    train(half)
    moved = Path(config.output_dir) / "elsewhere"
    shutil.copytree(dataset, moved)
    resumed, said = train(dataclasses.replace(half, max_steps=8, dataset_path=str(moved)))
    assert resumed.status == "finished", said
    assert losses(resumed.folder) == losses(whole.folder)
    one, two = (load_checkpoint(run.folder, ema="raw").params for run in (resumed, whole))
    assert_trees_equal(one, two)


@pytest.mark.slow
def test_stored_text_gives_the_same_as_text_in_the_step(config: TrainConfig):
    short = dataclasses.replace(config, max_steps=4, evaluation=EvalConfig(images=0))
    inside, _ = train(dataclasses.replace(short, name="inside", cache_text=False))
    stored, _ = train(dataclasses.replace(short, name="stored", cache_text=True))
    np.testing.assert_allclose(losses(stored.folder), losses(inside.folder), rtol=2e-3)


def test_stored_text_is_what_the_step_reads(config: TrainConfig):
    """The same tokens as the encoder gives, in float16, at the same places."""
    folder = RunFolder(Path(config.output_dir) / config.name)
    batches = {}
    for cache in (False, True):
        asked = dataclasses.replace(config.resolved(), cache_text=cache)
        parts = build(asked)
        feed = open_feed(asked, parts, folder, Display("x", max_steps=1), source=None)
        raw = next(feed.loader.batches(0, 1))
        batches[cache] = raw, feed.text.conditioning(feed.text.frozen(feed.text_columns), raw)
    assert "text_tokens" in batches[True][0] and "token_ids" in batches[False][0]
    stored, computed = (batches[cache][1] for cache in (True, False))
    length = stored.mask.shape[1]
    np.testing.assert_array_equal(stored.mask, computed.mask[:, :length])
    assert not computed.mask[:, length:].any()
    real = np.asarray(stored.mask)[..., None]
    difference = np.abs(np.asarray(stored.tokens) - np.asarray(computed.tokens)[:, :length]) * real
    assert 0 < difference.max() < 4e-3


@pytest.mark.slow
def test_pixels_from_the_image_shards(config: TrainConfig):
    model = dataclasses.replace(config.model, use_stable_vae=False, patch_size=4)
    result, said = train(dataclasses.replace(config, model=model, max_steps=2))
    assert result.status == "finished" and result.results["validation"], said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vae": "tiny"}, "vae: 'tiny' is not the autoencoder that .* was prepared with"),
        ({"image_size": 32}, "image_size: 32 is different from that of .*; valid: 16"),
        ({"cache_text": True, "text_encoder": "tiny"}, "has no embeddings of this text"),
        ({"cache_text": True, "caption_cleaning": "none"}, "caption_cleaning: 'none' .* stock"),
    ],
)
def test_what_does_not_fit_is_refused(config: TrainConfig, changes: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        train(dataclasses.replace(config, **changes))
    assert not (Path(config.output_dir) / config.name).exists()


def test_other_sizes_of_images_are_refused(config: TrainConfig):
    model = dataclasses.replace(config.model, use_stable_vae=False, patch_size=4)
    with pytest.raises(ValueError, match=r"image_size: 32 is different from that of .*; valid: 16"):
        train(dataclasses.replace(config, model=model, image_size=32))


def test_a_dataset_prepared_anew_is_refused(config: TrainConfig, dataset: Path, tmp_path: Path):
    first = dataclasses.replace(config, max_steps=1, save_interval=1)
    assert train(first)[0].status == "finished"
    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    from pinxit.data.prepared.manifest import Manifest

    manifest = Manifest.read(other)
    dataclasses.replace(manifest, identity={**manifest.identity, "more": 1}).write(other)
    with pytest.raises(ValueError, match="resume: this run was started on dataset"):
        train(dataclasses.replace(first, max_steps=2, dataset_path=str(other)))


def test_an_unfinished_dataset_is_refused(
    config: TrainConfig, pictures: Path, bundle: Path, tmp_path: Path
):
    out = tmp_path / "images_only"
    assert make(pictures, out, bundle, "--stage", "images") == 0
    with pytest.raises(ValueError, match=r"dataset_path: .* is a dataset without latents"):
        train(dataclasses.replace(config, dataset_path=str(out)))
    (out / "manifest.json").unlink()
    with pytest.raises(ValueError, match="not finished: run the same `prepare` command again"):
        train(dataclasses.replace(config, dataset_path=str(out)))


def test_a_dataset_whose_images_were_deleted_is_trained_on(
    config: TrainConfig, dataset: Path, tmp_path: Path
):
    other = tmp_path / "latents_only"
    shutil.copytree(dataset, other)
    shutil.rmtree(other / "images")
    short = dataclasses.replace(config, max_steps=1, save_interval=1, dataset_path=str(other))
    result, said = train(short)
    assert result.status == "finished", said
    assert "only 0 held-out rows are left, so there is no validation loss" in said
    assert not result.results.get("validation")


def test_latents_of_another_scale_are_refused(config: TrainConfig, bundle: Path, tmp_path: Path):
    """The weights are the same: only scaling_factor in the autoencoder's config.json differs."""
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    about = json.loads((copy / "vae" / "config.json").read_text())
    (copy / "vae" / "config.json").write_text(json.dumps(about | {"scaling_factor": 0.5}))
    with pytest.raises(UsageError) as error:
        train(dataclasses.replace(config, vae=str(copy)))
    assert "is an autoencoder with scale 0.5, shift 0.0, but the latents in" in str(error.value)
    assert "have scale 0.18215, shift 0.0" in str(error.value)
