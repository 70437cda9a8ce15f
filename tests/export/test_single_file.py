"""`pinxit export --format safetensors`: one file of the network, for every model."""

from __future__ import annotations

import json

import pytest
from exported import random_release
from safetensors import safe_open

from pinxit.cli.main import main
from pinxit.model_loading import load_checkpoint
from pinxit.models.diffusers_prx import to_prx
from pinxit.stored_model import read_model, release_config


def file_of(path):
    with safe_open(path, framework="numpy") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def check(release, path):
    """Exports a release, and compares the file with it."""
    assert main(["export", str(release), "--format", "safetensors", "--out", str(path)]) == 0
    about, tensors = file_of(path)
    model = load_checkpoint(release)
    expected = to_prx(model.params, model.config)
    assert tensors.keys() == expected.keys()
    assert all(tensors[name].tobytes() == expected[name].tobytes() for name in expected)
    assert json.loads(about["pinxit"]) == release_config(read_model(release))
    return about


@pytest.mark.parametrize("name", ["clip", "t5", "pixel"])
def test_the_file_holds_the_network_and_its_config(releases, tmp_path, name):
    about = check(releases[name], tmp_path / "deep" / "model.safetensors")
    assert about["modelspec.architecture"] == ("prx-pixel" if name == "pixel" else "prx")
    assert about["modelspec.prediction_type"] == ("sample" if name == "pixel" else "velocity")
    assert "modelspec.license" not in about


def test_models_that_no_stock_pipeline_takes(bundle, releases, tmp_path):
    pair = f"{bundle}+{releases['t5'].parent / 't5-encoder'}"
    check(
        random_release(tmp_path / "pair", text_encoder=pair, vae=str(bundle)),
        tmp_path / "pair.safetensors",
    )
    pixels = {"vae": "none", "patch_size": 4}
    check(
        random_release(tmp_path / "pixel", text_encoder=str(bundle), **pixels),
        tmp_path / "pixel.safetensors",
    )


def test_two_exports_are_equal_and_a_file_is_not_replaced(releases, tmp_path, capsys):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    for path in (one, two):
        words = ["export", str(releases["clip"]), "--format", "safetensors", "--out", str(path)]
        assert main(words) == 0
    assert one.read_bytes() == two.read_bytes()
    capsys.readouterr()
    assert main(words) == 2
    assert "is already there; valid: the name of a new file" in capsys.readouterr().err


def test_a_narrower_file(releases, tmp_path):
    words = ["--format", "safetensors", "--dtype", "bfloat16", "--license", "mit"]
    path = tmp_path / "half.safetensors"
    assert main(["export", str(releases["clip"]), *words, "--out", str(path)]) == 0
    about, tensors = file_of(path)
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"bfloat16"}
    assert about["modelspec.license"] == "mit"
