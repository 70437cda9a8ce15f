"""The model card: facts of the run, figures of these parameters only, hashes of the files."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil

import numpy as np
import pytest
from exported import random_release
from PIL import Image
from small_run import small_run, train_here

from pinxit.cli.export_provenance import _hub_dataset
from pinxit.cli.main import main
from pinxit.sampling import Sampling


@pytest.fixture(scope="module")
def trained(bundle, tmp_path_factory):
    """A finished run with an evaluation of its own at the end."""
    folder = tmp_path_factory.mktemp("runs")
    train_here(small_run(bundle, folder))
    return folder / "small"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, which a test may change."""
    return shutil.copytree(trained, tmp_path / "small")


def card_of(source, out, *words) -> str:
    assert main(["export", str(source), "--out", str(out), *words]) == 0
    return (out / "README.md").read_text("utf-8")


def section(card: str, title: str) -> str:
    return card.split(f"## {title}\n")[1].split("\n## ")[0]


def front(card: str) -> dict[str, str | list[str]]:
    """Reads the front matter, which uses only keys with a value or a list."""
    values: dict[str, str | list[str]] = {}
    name = ""
    for line in card.split("---\n")[1].splitlines():
        if line.startswith("- "):
            values[name].append(line[2:])
        else:
            name, _, value = line.partition(":")
            values[name] = value.strip() or []
    return values


def test_the_card_of_the_shipped_checkpoint(exports):
    card = (exports["shipped"] / "README.md").read_text("utf-8")
    values = front(card)
    assert values["library_name"] == "diffusers"
    assert values["pipeline_tag"] == "text-to-image"
    assert values["license"] == '"apache-2.0"'
    assert "text-to-image" in values["tags"]
    assert "9,000 steps and 144,000 images" in card
    assert "it holds no works of other people" in section(card, "Training data")
    assert "pinxit train --recipe scenes_long" in section(card, "Training")
    assert "| mean | 0.9893 | 1.0000 | 0.2723 |" in section(card, "Figures")
    assert "![Pictures of fixed prompts](sample_grid.png)" in card
    code = section(card, "Use")
    assert "use_resolution_binning=False" in code
    assert "skip_text_cleaning" not in code
    assert "num_inference_steps=33" in code
    assert "guidance_scale=3.0" in code
    assert "ftfy" in code
    assert "one prompt at a time" in code


@pytest.mark.parametrize("name", ["clip", "t5", "pixel", "shipped"])
def test_every_file_is_listed_with_its_hash(exports, name):
    folder = exports[name]
    rows = re.findall(r"\| `(.+?)` \| ([\d,]+) \| (\w{64}) \|", (folder / "README.md").read_text())
    listed = {path: (int(size.replace(",", "")), digest) for path, size, digest in rows}
    files = {
        path.relative_to(folder).as_posix(): (
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
        if path.is_file() and path.name != "README.md"
    }
    assert listed == files


def test_the_code_follows_the_model(bundle, releases, exports, tmp_path):
    code = section((exports["t5"] / "README.md").read_text(), "Use")
    assert "num_inference_steps=5" in code  # Euler's method with four steps
    assert "guidance_scale=2.5" in code
    assert "skip_text_cleaning=True" in code
    assert "skip_text_cleaning" not in section((exports["pixel"] / "README.md").read_text(), "Use")
    large = random_release(
        tmp_path / "large",
        text_encoder=str(bundle),
        vae=str(bundle),
        image_size=256,
        sampling=Sampling(steps=8, spacing="diffusers", guidance_interval=(0.1, 0.9)),
    )
    words = ["--samples", "0", "--dtype", "bfloat16"]
    code = section(card_of(large, tmp_path / "out", *words), "Use")
    assert "use_resolution_binning" not in code
    assert "num_inference_steps=8" in code
    assert "torch_dtype=torch.bfloat16" in code
    assert "guidance_interval" in code


def test_an_unknown_licence_and_origin_are_stated(exports):
    card = (exports["clip"] / "README.md").read_text("utf-8")
    assert front(card)["license"] == "other"
    assert front(card)["license_name"] == "not-stated"
    assert "The licence of these weights is not stated." in section(card, "Licence")
    assert "was read from a local folder" in section(card, "Licence")
    assert "is not recorded" in section(card, "Training data")
    assert "is not recorded" in section(card, "Training")
    assert "No figures are recorded" in section(card, "Figures")


def test_the_card_of_a_run(run, tmp_path):
    card = card_of(run, tmp_path / "out", "--license", "cc-by-4.0")
    assert front(card)["license"] == '"cc-by-4.0"'
    assert "12 steps" in card
    data = section(card, "Training data")
    assert "dataset `mock`" in data
    assert "Training saw 48 images, 4 at a time" in data
    command = json.loads((run / "environment.json").read_text())["command"]
    assert shlex.join(command) in section(card, "Training")
    results = json.loads((run / "results.json").read_text())
    figures = section(card, "Figures")
    values = results["evaluation"]
    assert values
    assert all(f"{value:.4f}" in figures for value in values.values())
    assert shlex.join(command) in figures
    with Image.open(tmp_path / "out" / "sample_grid.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape[0] > 128
    assert pixels.std() > 5


def test_rows_by_outcome(run, tmp_path):
    path = run / "results.json"
    results = json.loads(path.read_text())
    results["data"] = {"rows": {"ok": 20, "filtered_side": 4, "http_404": 1000}}
    path.write_text(json.dumps(results))
    data = section(card_of(run, tmp_path / "out", "--samples", "0"), "Training data")
    assert "Of 1,024 rows of the source, 20 were kept:" in data
    assert "| `filtered_side` | 4 | the shorter side is below the minimum |" in data
    assert "| `http_404` | 1,000 |" in data


def test_figures_of_evaluate_are_preferred(run, tmp_path):
    words = ["evaluate", "--checkpoint", str(run), "--prompts", "0", "--images", "10"]
    assert main(words) == 0
    record = json.loads((run / "evaluation.json").read_text())
    assert record["command"] == ["pinxit", *words]
    figures = section(card_of(run, tmp_path / "out", "--samples", "0"), "Figures")
    assert shlex.join(["pinxit", *words]) in figures
    assert "10 rows of mock" in figures
    assert f"{record['values']['validation/loss']:.4f}" in figures


def test_figures_of_other_parameters_are_left_out(run, tmp_path):
    assert main(["evaluate", "--checkpoint", str(run), "--prompts", "0", "--images", "10"]) == 0
    value = json.loads((run / "evaluation.json").read_text())["values"]["validation/loss"]
    older = run / "checkpoints" / "step_00000004"
    figures = section(card_of(older, tmp_path / "out", "--samples", "0"), "Figures")
    assert f"{value:.4f}" not in figures
    assert "evaluation.json holds figures of other parameters than these" in figures
    assert "results.json holds figures of other parameters than these" in figures


@pytest.mark.parametrize(
    ("name", "path", "repository"),
    [
        ("coyo", None, "kakaobrain/coyo-700m"),
        ("coyo", "/data/coyo", None),
        ("hf", "owner/pictures", "owner/pictures"),
        ("hf", "owner/pictures@main", "owner/pictures"),
        ("hf", "hf://datasets/owner/pictures/data", "owner/pictures"),
        ("folder", "owner/pictures", None),
        ("scenes", None, None),
    ],
)
def test_the_dataset_on_the_hub(name, path, repository):
    assert _hub_dataset(name, path) == repository
