"""Planning finds the encoders that loading finds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest
from tiny_t5gemma import write_t5gemma

from pinxit.encoders import autoencoder as autoencoders
from pinxit.encoders.abstract_autoencoder import abstract_autoencoder, described_autoencoder
from pinxit.encoders.autoencoder import KLAutoencoder, load_autoencoder
from pinxit.encoders.text_encoder_catalogue import (
    abstract_text_encoder,
    described_text_encoder,
    load_text_encoder,
)


@pytest.fixture(scope="module")
def pipeline(bundle: Path, t5_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory like Stable Diffusion 3's: two CLIPs, a T5 and an autoencoder."""
    root = tmp_path_factory.mktemp("pipeline")
    for suffix in ("", "_2"):
        shutil.copytree(bundle / "text_encoder", root / f"text_encoder{suffix}")
        shutil.copytree(bundle / "tokenizer", root / f"tokenizer{suffix}")
    shutil.copytree(t5_directory, root / "text_encoder_3")
    shutil.copytree(t5_directory, root / "tokenizer_3")
    shutil.copytree(bundle / "vae", root / "vae")
    return root


def shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def alike(source: str) -> str:
    """Compares both ways, and returns the kinds that were found."""
    loaded, planned = load_text_encoder(source), abstract_text_encoder(source)
    assert loaded.kind == planned.kind
    assert (loaded.width, loaded.max_tokens) == (planned.width, planned.max_tokens)
    assert shapes(loaded.params) == shapes(planned.params)
    assert len(described_text_encoder(source)) == len(loaded.parts)
    return loaded.kind


def test_text_encoders_of_a_pipeline(pipeline: Path, bundle: Path, t5_directory: Path):
    assert alike(str(pipeline)) == "clip"
    assert alike(f"{pipeline}+{pipeline}") == "clip+t5"
    assert alike(f"{bundle}+{pipeline}") == "clip+t5"
    assert alike(f"{t5_directory}+{pipeline}") == "t5+clip"
    assert alike(f"tiny+{pipeline}") == "clip+t5"
    assert alike(str(pipeline / "text_encoder_3")) == "t5"


def test_a_t5gemma_is_found_as_in_a_prx_pipeline(t5_directory: Path, tmp_path: Path):
    pipeline = tmp_path / "pipeline"
    write_t5gemma(pipeline / "text_encoder", max_position_embeddings=256)
    shutil.copytree(pipeline / "text_encoder", pipeline / "tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (pipeline / "text_encoder" / name).unlink()
    path = pipeline / "text_encoder" / "config.json"
    assert alike(str(pipeline)) == alike(str(pipeline / "text_encoder")) == "t5gemma"
    path.write_text(json.dumps(json.loads(path.read_text())["encoder"]))  # as transformers saves it
    assert alike(str(pipeline)) == "t5gemma"
    assert alike(f"tiny+{pipeline}") == "clip+t5gemma"
    shutil.copytree(t5_directory, pipeline / "text_encoder_2")
    shutil.copytree(t5_directory, pipeline / "tokenizer_2")
    assert alike(str(pipeline)) == "t5"
    assert alike(f"{pipeline}+{pipeline}") == "t5+t5gemma"


def test_a_directory_is_read_even_if_it_is_named_like_a_repository(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("openai/clip-vit-large-patch14", "stabilityai/sd-vae-ft-mse"):
        shutil.copytree(pipeline, tmp_path / name)
        assert abstract_text_encoder(name).width == load_text_encoder(name).width == 16
        assert abstract_autoencoder(name).stats.channels == 2
        assert load_autoencoder(name).stats == abstract_autoencoder(name).stats
    # a name stands for its repository, here and there
    assert abstract_autoencoder("sd").stats.channels == load_autoencoder("sd").stats.channels == 2


def test_pinned_revisions_are_of_the_same_architecture():
    assert abstract_text_encoder("openai/clip-vit-large-patch14@main").width == 768
    assert abstract_text_encoder("city96/t5-v1_1-xxl-encoder-bf16@main").width == 4096
    assert abstract_text_encoder("google/t5gemma-2b-2b-ul2@main").width == 2304
    assert abstract_autoencoder("stabilityai/sd-vae-ft-mse@main").stats.channels == 4


def test_an_autoencoder_made_by_code_is_planned(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    def make(*, dtype: str) -> KLAutoencoder:
        return autoencoders.load_kl_autoencoder(bundle, dtype=dtype)

    monkeypatch.setitem(autoencoders.AUTOENCODERS, "own", make)
    planned = abstract_autoencoder("own", dtype="bfloat16")
    assert shapes(planned.params) == shapes(load_autoencoder("own", dtype="bfloat16").params)
    assert described_autoencoder("own") == "own"
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(planned.params))


def test_descriptions_follow_the_files(pipeline: Path, tmp_path: Path):
    root = tmp_path / "copy"
    shutil.copytree(pipeline, root)
    assert described_text_encoder(str(root)) == described_text_encoder(str(pipeline))
    before = described_text_encoder(str(root)), described_autoencoder(str(root))
    changes = (("text_encoder", "num_hidden_layers", 7), ("vae", "shift_factor", 1.0))
    for folder, field, value in changes:
        path = root / folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    after = described_text_encoder(str(root)), described_autoencoder(str(root))
    assert before[0] != after[0] and before[1] != after[1]
