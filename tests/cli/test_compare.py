"""`pinxit compare` and `pinxit evaluate --sweep`: their files, and what they refuse beforehand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_pipeline import tiny_pipeline

from pinxit.cli import evaluate_sweep
from pinxit.cli.evaluate_sweep import gathered
from pinxit.cli.main import main
from pinxit.model_loading import save_release

pytestmark = pytest.mark.filterwarnings("ignore:.*tokens that the text encoder reads")
FEW = ["--prompts", "3", "--images", "4", "--steps", "1", "--evaluators", "prompt_accuracy"]


def released(bundle: Path, directory: Path, seed: int, **details) -> str:
    model = tiny_pipeline(bundle, seed=seed, name=directory.name, steps=1)
    encoders = {"text_encoder": str(bundle), "vae": str(bundle)}
    return str(save_release(directory, model, **encoders, details={"dataset": "scenes"} | details))


@pytest.fixture(scope="module")
def releases(bundle, tmp_path_factory) -> list[str]:
    """Two releases of different parameters, for pictures of scenes of 16 pixels."""
    root = tmp_path_factory.mktemp("compare")
    return [released(bundle, root / name, seed, step=seed) for seed, name in enumerate("ab")]


def trained_on(release: str, directory: Path, dataset: str) -> Path:
    """A copy of a release that says it was trained on another dataset."""
    shutil.copytree(release, directory)
    config = json.loads((directory / "config.json").read_text())
    config["details"]["dataset"] = dataset
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def run(capsys, *words: object) -> tuple[list[str], str]:
    capsys.readouterr()
    assert main([*map(str, words)]) == 0
    shown = capsys.readouterr()
    return shown.out.splitlines(), shown.err


def refused(capsys, *words: object) -> str:
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1, shown.err
    return shown.err.removeprefix("pinxit: error: ").strip()


def test_models_are_compared_on_the_same_prompts_and_seeds(releases, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["compare", *releases, *FEW, "--seeds", "0", "1", "--out", out]
    paths, _ = run(capsys, *words)
    assert paths[-3:] == [str(out / f"compare.{kind}") for kind in ("json", "md", "png")]
    record = json.loads((out / "compare.json").read_text())
    assert [model["checkpoint"] for model in record["models"]] == releases
    accuracies = [model["values"]["prompts/accuracy/mean"] for model in record["models"]]
    (difference,) = record["paired_differences"]
    assert difference["difference"] == pytest.approx(accuracies[1] - accuracies[0])
    assert difference["low"] <= difference["difference"] <= difference["high"]
    assert difference["pictures"] == 3 and record["protocol"]["sheet"]["seeds"] == [0, 1]
    assert [model["step"] for model in record["models"]] == [0, 1]
    assert record["models"][0]["model_hash"] != record["models"][1]["model_hash"]
    page = (out / "compare.md").read_text()
    assert releases[0] in page and "95 % interval" in page and "pinxit compare" in page
    assert not (out / "drawn").exists()


@pytest.mark.slow
def test_a_comparison_has_the_figures_of_evaluate(releases, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["compare", *releases, *FEW, "--out", out]
    run(capsys, *words)
    record = json.loads((out / "compare.json").read_text())
    run(capsys, "evaluate", "--checkpoint", releases[1], *FEW, "--out", tmp_path / "e")
    values = json.loads((tmp_path / "e").read_text())["values"]
    assert values == record["models"][1]["values"], "the same figures as pinxit evaluate"

    sheet = np.asarray(Image.open(out / "compare.png"))
    run(capsys, *words[:2], releases[0] + "/", *FEW, "--out", out)
    same = json.loads((out / "compare.json").read_text())
    assert same["paired_differences"][0]["difference"] == 0, "a model is equal to itself"
    assert not np.array_equal(sheet, np.asarray(Image.open(out / "compare.png")))


def test_wrong_models_are_refused_before_one_is_loaded(releases, tmp_path, capsys):
    one, other = releases
    assert "models: a is a single model; valid: two or more" in refused(capsys, "compare", "a")
    assert "models: '' is missing" in refused(capsys, "compare")
    assert "given more than once" in refused(capsys, "compare", one, one)
    assert f"'{tmp_path / 'no'}' is missing" in refused(capsys, "compare", one, tmp_path / "no")
    assert "checkpoint: 'x' is one model" in refused(capsys, "compare", one, "--checkpoint", "x")
    assert "seeds: -1 is out of range" in refused(capsys, "compare", one, other, "--seeds", "-1")
    message = refused(capsys, "compare", one, other, "--seeds", *range(17))
    assert "a sheet of 68 pictures of each model" in message
    message = refused(capsys, "compare", one, other, "--out", Path(one) / "config.json")
    assert message.startswith("out: ")
    message = refused(capsys, "compare", one, "none")
    assert "they draw pictures of different sizes" in message and "none 64 pixels" in message


def test_models_of_different_datasets_need_rows(releases, tmp_path, capsys):
    photographs = str(trained_on(releases[1], tmp_path / "p", "coyo"))
    message = refused(capsys, "compare", releases[0], photographs)
    assert f"{photographs} on coyo), so they have no held-out rows in common" in message
    assert "--dataset_path FOLDER" in message


@pytest.mark.slow
def test_rows_that_are_named_compare_models_of_different_datasets(releases, tmp_path, capsys):
    photographs = str(trained_on(releases[1], tmp_path / "p", "coyo"))
    words = ["--dataset_name", "scenes", *FEW, "--out", tmp_path / "out"]
    run(capsys, "compare", releases[0], photographs, *words)
    assert (tmp_path / "out" / "compare.json").is_file()


@pytest.mark.slow
def test_a_sweep_of_the_command_line(releases, tmp_path, capsys):
    out = tmp_path / "sweep"
    few = [*FEW[:4], *FEW[6:], "--checkpoint", releases[0], "--out", out]
    words = ["evaluate", "--sweep", "steps=1,2", "--shift", "2", *few]
    words += ["--sweep=guidance_scale=1,2"]
    paths, err = run(capsys, *words)
    assert paths[-3:] == [str(out / f"sweep.{kind}") for kind in ("json", "md", "png")]
    assert "4 cells of 3 pictures: 12 pictures" in err and "cell 4 of 4: steps 2, guid" in err
    record = json.loads((out / "sweep.json").read_text())
    assert record["command"] == ["pinxit", *map(str, words)]
    values = record["cells"][3]["values"]["prompt_accuracy"]
    single = ["evaluate", "--steps", 2, "--guidance_scale", 2, "--shift", "2", *few[:-2]]
    run(capsys, *single, "--out", tmp_path / "single.json")
    assert values == json.loads((tmp_path / "single.json").read_text())["values"]
    assert "4 of 4 cells: stored in" in run(capsys, *words)[1]
    shutil.rmtree(out)


def test_wrong_sweeps_are_refused_before_the_model_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluate_sweep, "subject_of", None)
    sweep = ["evaluate", "--sweep"]
    assert "no setting that a sweep varies" in refused(capsys, *sweep, "prompt=a|b")
    assert "steps: 4 is fixed" in refused(capsys, *sweep, "steps=1,2", "--steps", 4)
    assert "ema: 'raw' is fixed" in refused(capsys, *sweep, "ema=raw,x", "--ema", "raw")
    message = refused(capsys, *sweep, "steps=1,2", "--out", "values.json")
    assert message == "out: 'values.json' is a file; valid: with --sweep, a folder"
    assert refused(capsys, *sweep) == "sweep: none is without axes; valid: steps=4,8,16"
    (tmp_path / "sweep.json").write_text("{}")
    message = refused(capsys, *sweep, "steps=1,2", "--out", tmp_path)
    assert "a file that no sweep of this version has written" in message


def test_repeated_sweep_options_are_gathered():
    words = ["--sweep", "a=1,2", "b=1,2", "--x", "1", "--sweep=c=1,2", "--y", "--sweep", "d=3,4"]
    assert gathered(words) == [
        *("--x", "1", "--y", "--sweep", "a=1,2", "b=1,2", "c=1,2", "d=3,4"),
    ]
    assert gathered(["--x", "1"]) == ["--x", "1"]


def test_an_interrupted_sweep_says_how_it_goes_on(releases, tmp_path, capsys, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate_sweep.SweepRunner, "run", stop)
    words = ["evaluate", "--sweep", "steps=1,2", "--out", str(tmp_path / "s")]
    assert main(words) == 130
    rest = f"the same command measures the others: pinxit {' '.join(words)}"
    assert f"pinxit: in {tmp_path / 's'}: 0 of 2 cells; {rest}" in capsys.readouterr().err
