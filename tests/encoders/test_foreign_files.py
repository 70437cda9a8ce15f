"""Weights that are not what they seem: Git LFS pointers, the LDM layout, pickles."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pinxit.config import UsageError
from pinxit.encoders import vae
from pinxit.encoders.autoencoder import downsample_of, load_autoencoder
from pinxit.encoders.text_encoder_catalogue import load_text_encoder
from pinxit.encoders.vae import AutoencoderKLConfig
from pinxit.lfs_pointer import pointer_problem
from pinxit.stored_model import read_model

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    f"oid sha256:{'0123456789abcdef' * 4}\nsize 334643276\n"
)
PROBLEM = r"is a Git LFS pointer \(\d+ bytes\), not the file itself: run `git lfs pull`"
TINY = AutoencoderKLConfig(block_out_channels=(4,), norm_num_groups=2, latent_channels=2)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    vae.save_vae(tmp_path / "vae", vae.init_vae(TINY, jax.random.key(0)), TINY)
    return tmp_path / "vae"


@pytest.mark.parametrize("name", [vae.WEIGHTS, "config.json"])
def test_a_pointer_in_an_autoencoder(directory, name):
    (directory / name).write_text(POINTER)
    for load in (load_autoencoder, downsample_of):
        with pytest.raises(UsageError, match=f"{name} {PROBLEM}") as error:
            load(directory)
        assert "hf download" in str(error.value) and "header" not in str(error.value)
    assert f"({len(POINTER)} bytes)" in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "text_encoder/model.safetensors",
        "text_encoder/config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    ],
)
def test_a_pointer_in_a_text_encoder(bundle, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    if not (copy / name).is_file():
        pytest.skip("the bundle has no such file")
    (copy / name).write_text(POINTER)
    with pytest.raises(UsageError, match=f"{Path(name).name} {PROBLEM}"):
        load_text_encoder(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_pointer_in_a_release(tmp_path, name):
    from pinxit.stored_model import SHIPPED

    copy = tmp_path / "release"
    shutil.copytree(SHIPPED, copy)
    (copy / name).write_text(POINTER)
    with pytest.raises(UsageError, match=f"checkpoint: .*{name} {PROBLEM}"):
        read_model(copy)


def test_a_pointer_as_a_table(tmp_path, capsys):
    from pinxit.cli.main import main

    path = tmp_path / "t.parquet"
    path.write_text(POINTER)
    words = ["prepare", "parquet", "--dataset_path", path, "--out", tmp_path / "out", "--vae"]
    assert main([*map(str, words), "none"]) == 2
    assert "t.parquet is a Git LFS pointer (" in capsys.readouterr().err


def test_only_pointers_are_pointers(tmp_path):
    path = tmp_path / "file"
    for text in ("", "version 1", "x" + POINTER):
        path.write_text(text)
        assert pointer_problem(path) is None
    assert pointer_problem(tmp_path / "none") is None


@pytest.mark.parametrize(
    "names",
    [
        ["encoder.down.0.block.0.norm1.weight", "decoder.conv_in.weight"],
        ["decoder.mid.attn_1.q.weight"],
        ["first_stage_model.encoder.conv_in.weight", "model.diffusion_model.out.0.bias"],
        ["cond_stage_model.transformer.text_model.final_layer_norm.weight"],
    ],
)
def test_the_original_layout_is_recognised(directory, names):
    whole = load_file(directory / vae.WEIGHTS)
    save_file({name: np.zeros(3, np.float32) for name in names}, directory / vae.WEIGHTS)
    expected = r"original Stable Diffusion \(LDM\) layout.*from_single_file"
    with pytest.raises(UsageError, match=expected) as error:
        load_autoencoder(directory)
    assert "missing" not in str(error.value)
    with pytest.raises(UsageError, match=expected):
        load_autoencoder(directory / vae.WEIGHTS)  # the file itself
    (directory / "config.json").unlink()
    with pytest.raises(UsageError, match=f"has no config.json.*{expected}"):
        load_autoencoder(directory)
    save_file(whole, directory / vae.WEIGHTS)
    with pytest.raises(UsageError, match=r"has no config\.json") as error:
        load_autoencoder(directory)
    assert "LDM" not in str(error.value)


def test_the_original_layout_as_a_text_encoder(bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    path = next((copy / "text_encoder").glob("*.safetensors"))
    save_file({"cond_stage_model.transformer.x": np.zeros(3, np.float32)}, path)
    with pytest.raises(UsageError, match=r"\(LDM\) layout"):
        load_text_encoder(copy)


def test_many_missing_tensors_are_counted(directory):
    save_file({"nothing": np.zeros(3, np.float32)}, directory / vae.WEIGHTS)
    with pytest.raises(UsageError, match=r"\d+ tensors do not fit the config") as error:
        load_autoencoder(directory)
    message = str(error.value).partition("config: ")[2]
    assert message.count("missing") == 5 and "more; unexpected nothing" in message
    assert len(message) < 700


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".pth"])
def test_pickles_are_refused_unopened(tmp_path, suffix):
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / f"v1-5-pruned{suffix}").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    for source in (folder, folder / f"v1-5-pruned{suffix}"):
        with pytest.raises(UsageError, match=r"pickled weights.*run code when opened"):
            load_autoencoder(source)
    assert not (tmp_path / "ran").exists()
