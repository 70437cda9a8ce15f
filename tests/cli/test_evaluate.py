"""`pinxit evaluate`: on which rows it measures, and that its figures are those of the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_features import ToyFeatures

from pinxit import evaluate_model, load_checkpoint
from pinxit.cli.evaluation_subject import run_of
from pinxit.cli.main import main
from pinxit.evaluate.evaluators import EVALUATORS, Evaluator
from pinxit.evaluate.picture_sets import texts_hash
from pinxit.train.datasets import held_out_examples

pytestmark = pytest.mark.filterwarnings("ignore:.*tokens that the text encoder reads")
TRAIN = ["--recipe", "mock", "--image_size", 16, "--max_steps", 3, "--batch_size", 4]
TRAIN += ["--model.hidden_size", 16, "--use_amp", 0, "--sampling.steps", 1, "--log_interval", 1]
TRAIN += ["--sample_interval", 0, "--samples.prompts", "red", "--evaluation.batch_size", 8]


def pinxit(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder of 60 images with captions."""
    root = tmp_path_factory.mktemp("pictures")
    for i in range(60):
        coarse = np.random.default_rng(i).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((24, 20)).save(root / f"{i:03d}.png")
        (root / f"{i:03d}.txt").write_text(f"red light from the left, number {i}")
    return root


def prepared_set(pictures: Path, out: Path, bundle: Path, size: int = 16) -> Path:
    words = ["--dataset_path", pictures, "--out", out, "--vae", bundle, "--engine", "inline"]
    words += ["--image_size", size, "--unit_rows", 20, "--images.workers", 1, "--encode_batch", 8]
    assert pinxit("prepare", "folder", *words) == 0
    return out


@pytest.fixture(scope="module")
def prepared(pictures, bundle, tmp_path_factory) -> Path:
    return prepared_set(pictures, tmp_path_factory.mktemp("prepared") / "set", bundle)


def trained(runs: Path, bundle: Path, name: str, *more: object) -> Path:
    encoders = ["--vae", bundle, "--text_encoder", bundle]
    assert pinxit("train", *TRAIN, "--output_dir", runs, "--name", name, *encoders, *more) == 0
    return runs / name


@pytest.fixture(scope="module")
def run(prepared, bundle, tmp_path_factory) -> Path:
    """A run on the prepared dataset, which holds out its last 12 rows."""
    more = ["--dataset_path", prepared, "--evaluation.images", 12]
    return trained(tmp_path_factory.mktemp("runs"), bundle, "toy", *more)


def measured(capsys, *words: object, out: Path) -> tuple[dict, str]:
    """The record of an evaluation and its output."""
    capsys.readouterr()
    assert pinxit("evaluate", *words, "--out", out) == 0
    return json.loads(out.read_text()), capsys.readouterr().out


def refused(capsys, *words: object) -> str:
    capsys.readouterr()
    assert pinxit("evaluate", *words) == 2
    return capsys.readouterr().err


def test_a_run_is_measured_on_its_held_out_rows_with_its_own_figures(
    run, prepared, tmp_path, capsys
):
    results = json.loads((run / "results.json").read_text())
    for average in ("raw", "ema_0.1"):
        words = ["--checkpoint", run, "--ema", average]
        record, shown = measured(capsys, *words, out=tmp_path / "values.json")
        assert record["values"]["validation/loss"] == results["validation"][average]
        assert f"measured on: 12 rows of prepared ({prepared}), held out by the run {run}" in shown
        assert record["rows"]["count"] == 12 and record["rows"]["path"] == str(prepared)
        assert "held-out prompts" not in shown
        assert not any(name.startswith("prompts/") for name in record["values"])
    raw = measured(capsys, "--checkpoint", run, "--ema", "raw", out=tmp_path / "values.json")[0]
    for name, value in results["probe"].items():
        assert raw["values"][name] == value
    for place in (run / "model", next(run.glob("checkpoints/step_*"))):
        record, shown = measured(capsys, "--checkpoint", place, out=tmp_path / "values.json")
        assert record["values"]["validation/loss"] == results["validation"][results["ema"]]
        assert f"held out by the run {run}" in shown


def test_a_run_with_mixed_precision_is_measured_as_it_was_trained(
    prepared, bundle, tmp_path, capsys
):
    more = ["--dataset_path", prepared, "--evaluation.images", 12, "--use_amp", 1]
    run = trained(tmp_path, bundle, "mixed", *more)
    results = json.loads((run / "results.json").read_text())
    expected = results["validation"][results["ema"]]
    for place in (run, run / "model"):
        record, _ = measured(capsys, "--checkpoint", place, out=tmp_path / "values.json")
        assert record["values"]["validation/loss"] == expected


def test_a_streamed_run_is_measured_on_the_rows_that_it_stored(pictures, bundle, tmp_path, capsys):
    more = ["--dataset_name", "folder", "--dataset_path", pictures, "--evaluation.images", 10]
    run = trained(tmp_path, bundle, "streamed", *more, "--images.workers", 1)
    results = json.loads((run / "results.json").read_text())
    out = tmp_path / "values.json"
    record, shown = measured(capsys, "--checkpoint", run, out=out)
    assert record["values"]["validation/loss"] == results["validation"][results["ema"]]
    assert f"measured on: 10 rows of folder ({pictures}), held out by the run {run}" in shown
    assert "images: 11 is more than the 10 rows" in refused(
        capsys, "--checkpoint", run, "--images", 11
    )


@pytest.mark.slow
def test_scenes_alone_are_judged(bundle, tmp_path, capsys):
    more = ["--dataset_name", "scenes", "--dataset_size", 16, "--evaluation.images", 10]
    more += ["--evaluation.prompts", 3, "--evaluation.reference_images", 8]
    run = trained(tmp_path, bundle, "scenes", *more)
    results = json.loads((run / "results.json").read_text())
    out = tmp_path / "values.json"
    record, shown = measured(capsys, "--checkpoint", run, out=out)
    assert record["values"]["validation/loss"] == results["validation"][results["ema"]]
    of_run = {n: v for n, v in results["evaluation"].items() if "validation_loss/" not in n}
    assert of_run.items() <= record["values"].items() and "prompts/accuracy/mean" in of_run
    assert {name.partition("/")[0] for name in record["values"]} == {
        *{name.partition("/")[0] for name in of_run},
        "validation",
    }
    about = record["protocol"]
    assert about["average"] == results["ema"] and about["sampling"]["steps"] == 1
    for name in ("sets", "sampling", "versions", "dtype", "batch_size", "prompts", "rows"):
        assert about[name] == results["protocol"][name]
    drawn = next(one["pictures"] for one in about["sets"] if "drawn" in one["pictures"])
    assert drawn["count"] == about["prompts"] == 3 and len(drawn["prompts"]) == 64
    assert "Protocol of the evaluation" in (run / "report.html").read_text()
    assert not (run / "evaluation.partial").exists() and not list(tmp_path.glob("*.partial"))
    page = out.with_suffix(".md").read_text()
    for part in ("| mean |", "pinxit evaluate --checkpoint", "| sampling.steps | 1 |"):
        assert part in page
    # and from Python
    rows = held_out_examples("scenes", 10, image_size=16, seed=0)
    reference = {"reference_images": 8} if "distances" in EVALUATORS else {}
    how = {"prompts": 3, "rows": rows, "scenes": True, "batch_size": 8} | reference
    found = evaluate_model(load_checkpoint(run), **how)
    assert found["values"] == record["values"] and found["model_hash"] == record["model_hash"]
    assert found["protocol"]["sets"] == about["sets"]
    assert "held-out prompts" in shown and f"10 rows of scenes, held out by the run {run}" in shown
    # a release without its run, too, as it says what it was trained on
    moved = tmp_path / "moved"
    shutil.copytree(run / "model", moved)
    words = ["--checkpoint", moved, "--images", 10, "--prompts", 3, "--batch_size", 8]
    words += ["--reference_images", 8] if "distances" in EVALUATORS else []
    again, shown = measured(capsys, *words, out=out)
    assert "10 rows of scenes, of its held-out split" in shown
    assert again["values"]["validation/loss"] == record["values"]["validation/loss"]
    words = ["--checkpoint", moved, "--dataset_name", "mock", "--images", 10]
    record, shown = measured(capsys, *words, out=out)
    assert "10 rows of mock, of its held-out split" in shown and "prompts/" not in str(
        record["values"]
    )


def test_another_dataset_may_be_named(run, pictures, prepared, bundle, tmp_path, capsys):
    out = tmp_path / "values.json"
    folder = ["--dataset_name", "folder", "--dataset_path", pictures, "--images", 14]
    record, shown = measured(capsys, "--checkpoint", run, *folder, out=out)
    assert f"measured on: 14 rows of folder ({pictures}), the first usable ones" in shown
    assert record["rows"]["count"] == 14 and record["values"]["validation/loss"] > 0
    record, shown = measured(capsys, "--checkpoint", run, *folder[:-1], 100, out=out)
    assert "measured on: 60 rows of folder" in shown  # each once

    words = ["--checkpoint", run, "--dataset_path", prepared]
    record, shown = measured(capsys, *words, out=out)
    assert f"measured on: 12 rows of prepared ({prepared}), the last ones" in shown

    wide = prepared_set(pictures, tmp_path / "wide", bundle, size=32)
    message = refused(capsys, "--checkpoint", run, "--dataset_path", wide)
    assert f"image_size: 16 is different from that of {wide}" in message
    assert "dataset_path: 'nowhere' is missing" in refused(
        capsys, "--checkpoint", run, "--dataset_path", "nowhere"
    )


def test_captions_of_any_rows_are_drawn(run, pictures, prepared, tmp_path, capsys, monkeypatch):
    """A run, a checkpoint and a release, on the run's rows and on others."""
    extractor = ToyFeatures()

    def colours(context):
        rows = context.observations.features(context.drawn, extractor)
        yield "colours/mean", rows.take(range(len(context.drawn))).mean()

    needs = lambda context: [(context.drawn, extractor), (context.real, extractor)]  # noqa: E731
    monkeypatch.setitem(EVALUATORS, "colours", Evaluator(colours, needs=needs))
    out, found = tmp_path / "values.json", []
    words = ["--evaluators", "colours", "--prompts", 3, "--checkpoint"]
    for place in (run, next(run.glob("checkpoints/step_*")), run / "model"):
        record, _ = measured(capsys, *words, place, out=out)
        drawn, real = (one["pictures"] for one in record["protocol"]["sets"])
        assert drawn["count"] == real["count"] == 3 and drawn["prompts"] == real["prompts"]
        found.append((record["values"], record["protocol"]["sets"]))
    assert found[0] == found[1] == found[2]
    folder = ["--dataset_name", "folder", "--dataset_path", pictures, "--images", 10]
    record, _ = measured(capsys, *words, run, *folder, out=out)
    assert record["protocol"]["sets"][0]["pictures"]["prompts"] != drawn["prompts"]
    assert record["rows"]["count"] == 10
    record, _ = measured(capsys, *words, run, "--dataset_name", "mock", "--images", 10, out=out)
    mock = [row.caption for row in held_out_examples("mock", 3, image_size=16, seed=0)]
    assert record["protocol"]["sets"][0]["pictures"]["prompts"] == texts_hash(mock)


def test_what_is_missing_is_said(run, pictures, prepared, bundle, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(run / "model", moved)
    message = refused(capsys, "--checkpoint", moved)
    assert "is a model without its run, so its held-out rows are not known" in message
    assert "toy was trained on prepared" in message and "--dataset_path FOLDER" in message

    message = refused(capsys, "--checkpoint", run, "--evaluators", "prompt_accuracy")
    assert "not possible on prepared: only pictures of scenes can be judged" in message
    message = refused(capsys, "--checkpoint", run, "--prompts", 13)
    assert "prompts: 13 is more than the 12 held-out rows whose captions are drawn" in message
    assert "images: 13 is more than the 12 rows" in refused(
        capsys, "--checkpoint", run, "--images", 13
    )

    config = run / "config.json"
    before = config.read_text()
    other = prepared_set(pictures, tmp_path / "other", bundle)
    (pictures / "extra.png").write_bytes((pictures / "000.png").read_bytes())
    (pictures / "extra.txt").write_text("one more")
    try:
        shutil.rmtree(other)
        prepared_set(pictures, other, bundle)
        config.write_text(before.replace(str(prepared), str(other)))
        message = refused(capsys, "--checkpoint", run)
        assert "is another dataset" in message and f"--dataset_path {other} to measure" in message
        config.write_text(before.replace(str(prepared), str(tmp_path / "gone")))
        assert "gone" in refused(capsys, "--checkpoint", run)
    finally:
        config.write_text(before)
        for name in ("extra.png", "extra.txt"):
            (pictures / name).unlink()


def test_the_run_of_a_checkpoint(run, tmp_path):
    checkpoint = next(run.glob("checkpoints/step_*"))
    for place in (run, run / "model", run / "checkpoints", checkpoint):
        found = run_of(str(place))
        assert found is not None and found.root == run
    assert run_of(None) is None and run_of(str(tmp_path)) is None
    assert run_of(str(run / "samples")) is None
