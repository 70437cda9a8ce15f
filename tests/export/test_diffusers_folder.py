"""`pinxit export --format diffusers`: contents, equal bytes, refusals. None of this needs torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from exported import files_of, random_release
from safetensors import safe_open
from safetensors.numpy import load_file
from tiny_t5gemma import write_t5gemma

from pinxit.cli.main import main
from pinxit.encoders.autoencoder import load_autoencoder
from pinxit.encoders.fingerprint import encoder_fingerprints
from pinxit.encoders.text_encoder_catalogue import TEXT_ENCODERS, load_text_encoder
from pinxit.encoders.weights import flatten
from pinxit.model_loading import load_checkpoint
from pinxit.models.diffusers_prx import prx_config, to_prx
from pinxit.stored_model import read_model

NAMES = ("clip", "t5", "pixel", "shipped")
WEIGHTS = "diffusion_pytorch_model.safetensors"


def read(path: Path):
    return json.loads(path.read_text("utf-8"))


def refusal(capsys, *words: str) -> str:
    """Runs an export that must be refused in one line, and returns the line."""
    assert main(["export", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_the_files_of_each_kind(exports):
    latent = {
        "README.md",
        "model_index.json",
        "pinxit/config.json",
        "pinxit/modulation.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "transformer/config.json",
        f"transformer/{WEIGHTS}",
        "vae/config.json",
        f"vae/{WEIGHTS}",
    }
    t5 = (latent - {"tokenizer/merges.txt", "tokenizer/vocab.json"}) | {"tokenizer/spiece.model"}
    pixel = {name for name in latent if not name.startswith("vae/")}
    assert files_of(exports["clip"]).keys() == latent
    assert files_of(exports["t5"]).keys() == t5
    assert files_of(exports["pixel"]).keys() == pixel
    assert files_of(exports["shipped"]).keys() == latent | {"sample_grid.png"}


def test_the_index_names_the_stock_classes(exports):
    index = read(exports["t5"] / "model_index.json")
    assert index["_class_name"] == "PRXPipeline"
    assert index["default_sample_size"] == 16
    assert index["text_encoder"] == ["transformers", "T5EncoderModel"]
    assert index["tokenizer"] == ["transformers", "T5Tokenizer"]
    assert index["vae"] == ["diffusers", "AutoencoderKL"]
    pixel = read(exports["pixel"] / "model_index.json")
    assert pixel["_class_name"] == "PRXPixelPipeline"
    assert pixel["noise_scale"] == 1.0
    assert pixel["prompt_max_tokens"] == 16
    assert "vae" not in pixel


def test_the_settings_of_the_parts(exports):
    assert read(exports["t5"] / "scheduler" / "scheduler_config.json")["shift"] == 3.0
    assert read(exports["t5"] / "vae" / "config.json")["shift_factor"] == 0.0
    lengths = {
        name: read(exports[name] / "tokenizer" / "tokenizer_config.json")["model_max_length"]
        for name in NAMES
    }
    assert lengths == {"clip": 16, "t5": 20, "pixel": 16, "shipped": 48}
    shipped = read(exports["shipped"] / "text_encoder" / "config.json")
    assert shipped["architectures"] == ["CLIPTextModel"]
    assert shipped["model_type"] == "clip_text_model"


@pytest.mark.parametrize("name", NAMES)
def test_the_transformer_is_the_model(releases, exports, name):
    model = load_checkpoint(releases.get(name))
    tensors = load_file(exports[name] / "transformer" / WEIGHTS)
    expected = to_prx(model.params, model.config)
    assert tensors.keys() == expected.keys()
    assert all(tensors[n].tobytes() == expected[n].tobytes() for n in expected)
    config = read(exports[name] / "transformer" / "config.json")
    assert config == prx_config(model.config) | {"_diffusers_version": "0.42.1"}


@pytest.mark.parametrize("name", NAMES)
def test_the_encoders_are_read_back_from_the_folder(releases, exports, name):
    """The existing loaders find them, with the same outputs and the recorded fingerprints."""
    folder, model = exports[name], load_checkpoint(releases.get(name))
    config = read(folder / "pinxit" / "config.json")
    encoder = load_text_encoder(folder, max_tokens=config["text_max_tokens"])
    autoencoder = load_autoencoder(folder if config["vae"] == "." else config["vae"])
    recorded = {n: v for n, v in config["encoders"].items()}
    loaded = encoder_fingerprints(encoder, autoencoder)
    assert recorded == {n: loaded[n] for n in recorded}
    assert recorded["text_encoder"]
    captions = ["a small red house", ""]
    clean = model.text_encoder(captions)
    again = encoder(captions)
    np.testing.assert_array_equal(np.asarray(clean.tokens), np.asarray(again.tokens))
    np.testing.assert_array_equal(np.asarray(clean.mask), np.asarray(again.mask))
    for ours, theirs in zip(
        jax.tree.leaves(model.autoencoder.params), jax.tree.leaves(autoencoder.params), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("name", NAMES)
def test_pinxits_own_files_hold_the_rest_of_the_model(releases, exports, name):
    stored = read_model(releases.get(name))
    own = read(exports[name] / "pinxit" / "config.json")
    assert own["format"] == "pinxit-export"
    assert own["text_encoder"] == "."
    assert own["vae"] == ("none" if name == "pixel" else ".")
    for field in ("model", "sampling", "image_size", "name", "caption_cleaning", "details"):
        assert own[field] == getattr(stored, field)
    factors = load_file(exports[name] / "pinxit" / "modulation.safetensors")
    params = {n: v for n, v in flatten(stored.params).items() if "modulation." in n}
    expected = {n: v for n, v in params.items() if not n.startswith("final")}
    assert factors.keys() == expected.keys()
    assert "modulation.kernel" in factors
    assert "blocks.modulation.table" in factors
    assert all(factors[n].tobytes() == np.asarray(v).tobytes() for n, v in expected.items())


def test_the_metadata_follows_the_model_spec(exports):
    path = exports["shipped"] / "transformer" / WEIGHTS
    with safe_open(path, framework="numpy") as file:
        about = file.metadata()
    assert about["format"] == "pt"
    assert about["modelspec.sai_model_spec"] == "1.0.0"
    assert about["modelspec.architecture"] == "prx"
    assert about["modelspec.implementation"] == "diffusers"
    assert about["modelspec.title"] == "pinxit-scenes"
    assert about["modelspec.license"] == "apache-2.0"
    assert about["modelspec.resolution"] == "64x64"
    assert "modelspec.date" not in about
    import hashlib

    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    assert about["modelspec.hash_sha256"] == f"0x{hashlib.sha256(data[header:]).hexdigest()}"


@pytest.mark.parametrize("name", ["t5", "shipped"])
def test_two_exports_are_equal_byte_for_byte(releases, exports, tmp_path, name):
    source = [str(releases[name])] if name in releases else []
    samples = "1" if name == "shipped" else "0"
    out = tmp_path / "elsewhere" / "again"
    assert main(["export", *source, "--out", str(out), "--samples", samples]) == 0
    assert files_of(out) == files_of(exports[name])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrower_types(releases, exports, tmp_path, dtype):
    out = tmp_path / "narrow"
    words = [str(releases["t5"]), "--out", str(out), "--samples", "0", "--dtype", dtype]
    assert main(["export", *words]) == 0
    kinds = {}
    for part, file in (
        ("transformer", WEIGHTS),
        ("vae", WEIGHTS),
        ("text_encoder", "model.safetensors"),
    ):
        with safe_open(out / part / file, framework="numpy") as opened:
            kinds[part] = {str(opened.get_tensor(name).dtype) for name in opened.keys()}  # noqa: SIM118
    # T5 overflows in float16, so a float16 export keeps its own type.
    text = "float32" if dtype == "float16" else dtype
    assert kinds == {"transformer": {dtype}, "vae": {dtype}, "text_encoder": {text}}
    assert not (out / "pinxit" / "modulation.safetensors").exists()
    config = read(out / "pinxit" / "config.json")
    encoder = load_text_encoder(out, max_tokens=20)
    loaded = encoder_fingerprints(encoder, load_autoencoder(out))
    assert config["encoders"] == loaded
    wide = load_file(exports["t5"] / "transformer" / WEIGHTS)
    narrow = load_file(out / "transformer" / WEIGHTS)
    for name, value in wide.items():
        np.testing.assert_allclose(narrow[name].astype(np.float32), value, rtol=1e-2, atol=1e-4)


def test_values_beyond_float16_are_refused(bundle, releases, tmp_path, capsys):
    folder = shutil.copytree(releases["clip"], tmp_path / "large")
    tensors = load_file(folder / "model.safetensors")
    tensors["text_in.bias"][0] = 1e6
    from safetensors.numpy import save_file

    save_file(tensors, folder / "model.safetensors")
    words = [str(folder), "--out", str(tmp_path / "out"), "--samples", "0", "--dtype", "float16"]
    assert main(["export", *words]) == 2
    assert "dtype: 'float16' is too small a range for txt_in.bias" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".out*")) == []


def test_an_export_needs_no_torch(releases, tmp_path):
    code = f"""
import sys
from pinxit.cli.main import main
assert main(["export", {str(releases["t5"])!r}, "--out", {str(tmp_path / "x")!r}]) == 0
assert not {{"torch", "diffusers", "transformers", "sentencepiece"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    assert (tmp_path / "x" / "sample_grid.png").is_file()


# --- refusals -----------------------------------------------------------------------------------


def test_a_pixel_model_of_velocity_is_refused(bundle, tmp_path, capsys):
    model = random_release(tmp_path / "model", text_encoder=str(bundle), vae="none", patch_size=4)
    line = refusal(capsys, str(model), "--out", str(tmp_path / "out"))
    assert "PRXPixelPipeline takes the output for the clean image" in line
    assert "--format safetensors" in line
    assert not (tmp_path / "out").exists()


def test_a_latent_model_of_latents_is_refused(bundle, tmp_path, capsys):
    model = random_release(
        tmp_path / "model", text_encoder=str(bundle), vae=str(bundle), prediction="latents"
    )
    line = refusal(capsys, str(model), "--out", str(tmp_path / "out"))
    assert "PRXPipeline takes the output for the velocity" in line
    assert "--format safetensors" in line
    assert not (tmp_path / "out").exists()


def test_two_text_encoders_are_refused(bundle, releases, tmp_path, capsys):
    pair = f"{bundle}+{releases['t5'].parent / 't5-encoder'}"
    model = random_release(tmp_path / "model", text_encoder=pair, vae=str(bundle))
    line = refusal(capsys, str(model), "--out", str(tmp_path / "out"))
    assert "has one text encoder and would draw from the tokens of the first alone" in line
    assert "--format safetensors" in line
    assert not (tmp_path / "out").exists()


def test_a_text_encoder_made_by_code_is_refused(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(TEXT_ENCODERS, "own", lambda: load_text_encoder(bundle))
    model = random_release(tmp_path / "model", text_encoder="own", vae=str(bundle))
    line = refusal(capsys, str(model), "--out", str(tmp_path / "out"))
    assert "text_encoder: 'own' is made by code" in line
    assert "--format safetensors" in line


def test_an_autoencoder_made_by_code_is_refused(bundle, tmp_path, capsys, monkeypatch):
    from pinxit.encoders.autoencoder import AUTOENCODERS

    monkeypatch.setitem(AUTOENCODERS, "own", lambda dtype: load_autoencoder(bundle))
    model = random_release(tmp_path / "model", text_encoder=str(bundle), vae="own")
    line = refusal(capsys, str(model), "--out", str(tmp_path / "out"))
    assert "vae: 'own' is made by code" in line


def test_a_kind_that_is_not_in_the_table_is_refused(releases, tmp_path, capsys, monkeypatch):
    from pinxit.export.text_encoder_part import STOCK_ENCODERS

    monkeypatch.delitem(STOCK_ENCODERS, "t5")
    line = refusal(capsys, str(releases["t5"]), "--out", str(tmp_path / "out"))
    assert "is of the kind 't5', which export cannot write" in line
    assert line.endswith("valid: clip, t5gemma")


def test_other_encoders_than_in_training_are_refused(releases, bundle, tmp_path, capsys):
    """Also without samples, for which the encoder would have to be loaded."""
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    tensors = load_file(copy / "text_encoder" / "model.safetensors")
    from safetensors.numpy import save_file

    changed = {name: value + 1 for name, value in tensors.items()}
    save_file(changed, copy / "text_encoder" / "model.safetensors")
    model = shutil.copytree(releases["clip"], tmp_path / "model")
    config = read(model / "config.json") | {"text_encoder": str(copy)}
    (model / "config.json").write_text(json.dumps(config))
    line = refusal(capsys, str(model), "--out", str(tmp_path / "out"), "--samples", "0")
    assert "not the weights that" in line
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_is_refused(releases, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    line = refusal(capsys, str(releases["clip"]), "--out", str(tmp_path / "out"))
    assert line.endswith("is not empty; valid: a new or empty folder")
    assert files_of(tmp_path / "out") == {"mine.txt": b"mine"}


def test_an_empty_folder_is_filled(releases, tmp_path):
    (tmp_path / "out").mkdir()
    words = [str(releases["clip"]), "--out", str(tmp_path / "out"), "--samples", "0"]
    assert main(["export", *words]) == 0
    assert (tmp_path / "out" / "model_index.json").is_file()


def test_a_full_disk_leaves_nothing(releases, tmp_path, monkeypatch, capsys):
    import errno

    from pinxit.export import diffusers_folder

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(diffusers_folder, "write_tokenizer", full)
    words = [str(releases["clip"]), "--out", str(tmp_path / "out"), "--samples", "0"]
    assert main(["export", *words]) == 1
    assert "could not be written: No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--out {out} a b", "run: 'a b' is more than one model"),
        ("--out {out} a --checkpoint b", "run: 'a b' is more than one model"),
        ("", "out: '' is missing; valid: a new or empty folder"),
        ("--out {out} --samples -1", "samples: -1 is too small"),
        ("--out {out} --license GPL!", "license: 'GPL!' is not an id of a licence"),
        ("--out {out} --private 1", "private: 1 is without effect"),
        ("--out {out} --format gguf", "format: 'gguf' is not understood; valid: diffusers, safe"),
        ("--out {out} --dtype int8", "dtype: 'int8' is not understood"),
        ("--out {out} missing", "checkpoint: 'missing' is missing"),
        ("--out {out} --ema raw", "ema: 'raw' is not in a release"),
        ("--out {out}.txt --format safetensors", "is not the name of a safetensors file"),
        (
            "--out {out}.safetensors --format safetensors --push_to_hub a/b",
            "push_to_hub: 'a/b' is not possible for one file",
        ),
    ],
)
def test_wrong_options_are_refused_in_one_line(tmp_path, capsys, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    line = refusal(capsys, *words.format(out=tmp_path / "out").split())
    assert expected in line
    assert list(tmp_path.iterdir()) == []


def test_rows_of_t5gemma_have_their_default_length(bundle, tmp_path):
    """A T5Gemma with fewer than 256 positions has rows of as many tokens, here and there."""
    encoder = write_t5gemma(tmp_path / "encoder")
    release = random_release(tmp_path / "release", text_encoder=str(encoder), vae=str(bundle))
    out = tmp_path / "out"
    assert main(["export", str(release), "--out", str(out), "--samples", "0"]) == 0
    settings = json.loads((out / "tokenizer" / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == load_text_encoder(str(encoder)).max_tokens == 64
