"""Pipeline directories of diffusers' PRX models: what is read, exactly, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from prx_folders import (
    LATENT,
    PIXEL,
    WEIGHTS,
    awake,
    change_json,
    tensors_of,
    write_json,
    write_prx,
    write_tensors,
)
from safetensors.numpy import save_file

from pinxit.config import UsageError, to_json
from pinxit.encoders.weights import flatten
from pinxit.model_loading import load_checkpoint
from pinxit.models.diffusers_prx import to_prx
from pinxit.models.transformer import from_stored
from pinxit.stored_model import read_model

PROMPT = "red light from the left"


@pytest.fixture(scope="module")
def latent(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prx(tmp_path_factory.mktemp("prx") / "latent", bundle)


@pytest.fixture
def copy(latent: Path, tmp_path: Path) -> Path:
    """A directory to change."""
    return Path(shutil.copytree(latent, tmp_path / "model"))


def assert_same(one: Any, other: Any) -> None:
    """Bit for bit."""
    flat, expected = flatten(one), flatten(other)
    assert flat.keys() == expected.keys()
    for name, leaf in flat.items():
        assert np.asarray(leaf).tobytes() == np.asarray(expected[name]).tobytes(), name


# --- reading ----------------------------------------------------------------------------------


def test_a_latent_model_is_read_whole(latent: Path):
    stored = read_model(latent)
    assert_same(stored.params, awake(LATENT))
    assert from_stored(stored.model, in_channels=9, context_dim=9) == LATENT
    assert (stored.text_encoder, stored.vae) == (str(latent), str(latent))
    assert (stored.name, stored.image_size) == ("latent", 16)
    assert stored.sampling == {
        "steps": 28, "guidance_scale": 4.0, "solver": "euler", "shift": 3.0,
        "spacing": "diffusers",
    }  # fmt: skip
    assert (stored.caption_cleaning, stored.text_max_tokens) == ("stock", None)
    assert stored.encoders == {} and stored.details == {"pipeline": "PRXPipeline"}
    assert read_model(latent, weights=False) == dataclasses.replace(stored, params={})


def test_a_pixel_model_predicts_pictures_and_has_no_autoencoder(bundle: Path, tmp_path: Path):
    stored = read_model(write_prx(tmp_path / "pixel", bundle, PIXEL))
    assert_same(stored.params, awake(PIXEL))
    assert from_stored(stored.model, in_channels=9, context_dim=9) == PIXEL
    assert (stored.vae, stored.caption_cleaning) == ("none", "light")
    assert load_checkpoint(tmp_path / "pixel").generate(PROMPT, steps=2).size == (16, 16)


def test_pictures_depend_on_the_weights_and_the_settings(latent: Path):
    model = load_checkpoint(latent)
    usual = np.asarray(model.generate(PROMPT, steps=4, output_type="latent"))
    assert usual.shape == (8, 8, 2) and usual.std() > 0.1
    shifted = model.generate(PROMPT, steps=4, shift=1.0, output_type="latent")
    even = model.generate(PROMPT, steps=4, spacing="even", output_type="latent")
    assert np.abs(usual - shifted).max() > 1e-3 and np.abs(usual - even).max() > 1e-3


def test_the_parameters_go_out_again_to_the_bit(latent: Path):
    model = load_checkpoint(latent)
    written, original = to_prx(model.params, model.config), tensors_of(latent)
    assert written.keys() == original.keys()
    assert all(written[name].tobytes() == original[name].tobytes() for name in original)


@pytest.mark.parametrize("shards", [2, 5])
def test_split_weights_are_read(bundle: Path, tmp_path: Path, shards: int):
    assert_same(
        read_model(write_prx(tmp_path / "split", bundle, shards=shards)).params, awake(LATENT)
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(bundle: Path, tmp_path: Path, dtype: Any):
    stored = read_model(write_prx(tmp_path / "half", bundle, dtype=dtype))
    halved = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(np.float32), awake(LATENT))
    assert_same(stored.params, halved)


def test_absent_settings_have_the_defaults_of_diffusers(copy: Path):
    change_json(copy / "model_index.json", default_sample_size=None)
    change_json(copy / "transformer" / "config.json", _class_name=None, time_factor=None)
    write_json(copy / "scheduler" / "scheduler_config.json", {})
    stored = read_model(copy)
    assert (stored.image_size, stored.sampling["shift"]) == (512, 1.0)
    assert stored.model["time_factor"] == 1000.0


def test_unknown_settings_of_the_network_are_ignored_with_a_warning(copy: Path):
    change_json(copy / "transformer" / "config.json", sample_size=64)
    with pytest.warns(UserWarning, match=r"config\.json: sample_size ignored"):
        assert_same(read_model(copy).params, awake(LATENT))


def test_rows_of_t5_are_as_long_as_the_tokenizer_says(bundle: Path, t5: Path, tmp_path: Path):
    config = dataclasses.replace(LATENT, context_dim=12)
    directory = write_prx(tmp_path / "model", t5, config)
    change_json(directory / "model_index.json", text_encoder=["transformers", "T5EncoderModel"])
    for written, expected in ((40, 40), (10**30, 512), (None, 512), (1e30, 512)):
        change_json(directory / "tokenizer" / "tokenizer_config.json", model_max_length=written)
        assert read_model(directory, weights=False).text_max_tokens == expected
    change_json(directory / "tokenizer" / "tokenizer_config.json", model_max_length=24)
    assert load_checkpoint(directory).text_encoder.max_tokens == 24


@pytest.fixture
def t5(bundle: Path, tmp_path: Path) -> Path:
    """The folders of the fixture `bundle` with a T5 instead of its CLIP."""
    from tiny_t5 import SIZES, sentencepiece_model, t5_pieces

    from pinxit.encoders import t5

    root = tmp_path / "t5"
    shape = t5.T5Config(**SIZES, feed_forward_proj="gated-gelu")
    t5.save_t5(root / "text_encoder", t5.init_t5(shape, jax.random.key(0)), shape)
    write_json(root / "tokenizer" / "tokenizer_config.json", {"extra_ids": 0})
    (root / "tokenizer" / "spiece.model").write_bytes(sentencepiece_model(t5_pieces()))
    shutil.copytree(bundle / "vae", root / "vae")
    return root


# --- our own exports --------------------------------------------------------------------------

SHARED = dataclasses.replace(LATENT, modulation="shared", modulation_rank=3)
OWN_SAMPLING = {"steps": 7, "guidance_scale": 2.5, "solver": "heun", "shift": 2.0}


def own_files(directory: Path, params: dict[str, Any], **changes: Any) -> Path:
    """Adds the folder ``pinxit`` that an export has, with native parameters of the modulation."""
    described = {
        "format": "pinxit-export",
        "version": 1,
        "name": "landscapes",
        "image_size": 16,
        "text_encoder": ".",
        "vae": ".",
        "model": to_json(SHARED),
        "sampling": OWN_SAMPLING,
        "objective": {"kind": "flow_matching"},
        "extensions": {},
        "caption_cleaning": "none",
        "text_max_tokens": None,
        "encoders": {},
        "details": {"step": 500},
    }
    write_json(directory / "pinxit" / "config.json", described | changes)
    factors = {
        name: np.ascontiguousarray(leaf)
        for name, leaf in flatten(params).items()
        if name.startswith(("modulation.", "blocks.modulation."))
    }
    save_file(factors, directory / "pinxit" / "modulation.safetensors")
    return directory


@pytest.fixture
def exported(bundle: Path, tmp_path: Path) -> Path:
    params = awake(SHARED)
    return own_files(write_prx(tmp_path / "exported", bundle, SHARED, params), params)


def test_an_export_comes_back_to_the_bit_with_its_settings(exported: Path):
    stored = read_model(exported)
    assert_same(stored.params, awake(SHARED))
    assert from_stored(stored.model, in_channels=9, context_dim=9) == SHARED
    assert (stored.text_encoder, stored.vae) == (str(exported), str(exported))
    assert (stored.name, stored.sampling) == ("landscapes", OWN_SAMPLING)
    assert (stored.caption_cleaning, stored.details) == ("none", {"step": 500})
    assert read_model(exported, weights=False) == dataclasses.replace(stored, params={})
    assert load_checkpoint(exported).generate(PROMPT).size == (16, 16)


def _changed_weights(directory: Path) -> None:
    tensors = tensors_of(directory)
    tensors["blocks.1.modulation.lin.weight"] *= np.float32(1.01)
    write_tensors(directory / "transformer", tensors)


def _half_weights(directory: Path) -> None:
    write_tensors(directory / "transformer", tensors_of(directory), dtype=np.float16)


def _no_factors(directory: Path) -> None:
    (directory / "pinxit" / "modulation.safetensors").unlink()


def _other_factors(directory: Path) -> None:
    other = awake(dataclasses.replace(SHARED, modulation_rank=2))
    own_files(directory, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_changed_weights, "does not make that of the weights"),
        (_half_weights, "does not make that of the weights"),
        (_no_factors, r"there is no pinxit/modulation\.safetensors"),
        (_other_factors, r"pinxit/modulation\.safetensors is of another network"),
    ],
)
def test_changed_weights_of_an_export_are_read_with_maps_per_block(
    change: Any, words: str, exported: Path
):
    change(exported)
    with pytest.warns(UserWarning, match=f"whole map in each block, since .*{words}"):
        stored = read_model(exported)
    config = from_stored(stored.model, in_channels=9, context_dim=9)
    assert config == dataclasses.replace(SHARED, modulation="per_block")
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors_of(exported).items()}
    written = to_prx(stored.params, config)
    assert all(written[name].tobytes() == tensors[name].tobytes() for name in tensors)
    assert (stored.sampling, stored.details) == (OWN_SAMPLING, {})


def test_another_network_in_an_export_is_read_as_one_of_diffusers(exported: Path, bundle: Path):
    other = dataclasses.replace(LATENT, depth=1)
    shutil.rmtree(exported / "transformer")
    write_prx(exported.parent / "other", bundle, other)
    shutil.copytree(exported.parent / "other" / "transformer", exported / "transformer")
    with pytest.warns(UserWarning, match="describes another network than transformer/config"):
        stored = read_model(exported)
    assert_same(stored.params, awake(other))
    assert stored.sampling["spacing"] == "diffusers"


def test_a_pixel_export_has_no_autoencoder(bundle: Path, tmp_path: Path):
    config = dataclasses.replace(PIXEL, modulation="shared", modulation_rank=0)
    params = awake(config)
    directory = write_prx(tmp_path / "pixel", bundle, config, params)
    stored = read_model(own_files(directory, params, model=to_json(config), vae="none"))
    assert_same(stored.params, params)
    assert stored.vae == "none"


# --- one file ---------------------------------------------------------------------------------


def test_an_exported_file_is_read_alone(bundle: Path, tmp_path: Path):
    params = awake(SHARED)
    described = {
        "format": "pinxit-release", "name": "landscapes", "image_size": 16,
        "text_encoder": str(bundle), "vae": str(bundle), "model": to_json(SHARED),
        "sampling": OWN_SAMPLING, "details": {},
    }  # fmt: skip
    path = tmp_path / "landscapes.safetensors"
    tensors = to_prx(params, SHARED)
    save_file(tensors, path, metadata={"format": "pt", "pinxit": json.dumps(described)})
    model = load_checkpoint(path)
    assert model.config == dataclasses.replace(SHARED, modulation="per_block")
    written = to_prx(jax.tree.map(np.asarray, model.params), model.config)
    assert all(written[name].tobytes() == tensors[name].tobytes() for name in tensors)
    assert model.generate(PROMPT).size == (16, 16)
    assert read_model(path, weights=False).params == {}
    save_file(tensors, path, metadata={"pinxit": "{"})
    with pytest.raises(UsageError, match=r"the metadata of .* is damaged: pinxit is not JSON"):
        read_model(path)
    save_file(tensors, path, metadata={"pinxit": "{}"})
    with pytest.raises(UsageError, match=r"the metadata of .* is incomplete .*it lacks model"):
        read_model(path)
    save_file(dict(list(tensors.items())[3:]), path, metadata={"pinxit": json.dumps(described)})
    with pytest.raises(UsageError, match=r"3 tensors do not fit the config: missing"):
        read_model(path)


def test_other_files_are_refused(latent: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"is a file; pass the directory .*format safetensors"):
        read_model(latent / "transformer" / WEIGHTS)
    for name, words in (("x.ckpt", "pickled weights"), ("x.txt", "is a file; pass")):
        (tmp_path / name).write_bytes(b"\x80\x04.")
        with pytest.raises(UsageError, match=words):
            read_model(tmp_path / name)
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match="not a whole safetensors file"):
        read_model(tmp_path / "x.safetensors")


# --- what is refused --------------------------------------------------------------------------


def _json_change(name: str, **changes: Any) -> Any:
    return lambda directory: change_json(directory / name, **changes)


def _removed(name: str) -> Any:
    def remove(directory: Path) -> None:
        path = directory / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def _tensors(change: Any) -> Any:
    def act(directory: Path) -> None:
        tensors = tensors_of(directory)
        change(tensors)
        write_tensors(directory / "transformer", tensors)

    return act


def _pickle(directory: Path) -> None:
    folder = directory / "transformer"
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.bin")


def _cut(directory: Path) -> None:
    path = directory / "transformer" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def _pointer(directory: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
    (directory / "transformer" / WEIGHTS).write_text(text)


def _integers(directory: Path) -> None:
    write_tensors(directory / "transformer", tensors_of(directory), dtype=np.int8)


def _many_wrong(tensors: dict[str, np.ndarray]) -> None:
    del tensors["img_in.bias"]
    tensors["extra.weight"] = np.zeros(3, np.float32)
    tensors["txt_in.weight"] = tensors["txt_in.weight"][:, :5].copy()


def _not_finite(tensors: dict[str, np.ndarray]) -> None:
    tensors["blocks.1.gate_proj.weight"][0, 0] = np.nan


INDEX, NETWORK = "model_index.json", "transformer/config.json"
TIMES = "scheduler/scheduler_config.json"
REFUSED = [
    (_json_change(INDEX, _class_name="FluxPipeline"), "describes a 'FluxPipeline'; readable: PRXP"),
    (_json_change(INDEX, _class_name=None), "describes a None; readable: PRXPipeline, PRXPixel"),
    (
        _json_change(INDEX, vae=[None, None]),
        "incomplete: it has no vae in model_index.json, without",
    ),
    (_json_change(INDEX, text_encoder=[None, None]), "has no text_encoder in model_index.json"),
    (_json_change(INDEX, transformer=["diffusers", "FluxTransformer2DModel"]), "is a 'FluxTransf"),
    (_json_change(INDEX, scheduler=["diffusers", "DDIMScheduler"]), "scheduler is a 'DDIMSchedul"),
    (_json_change(INDEX, default_sample_size="big"), "default_sample_size is 'big'"),
    (_removed(INDEX), "is not a Pinxit model"),
    (_removed("vae"), "incomplete: it has no vae/config.json, without which latents cannot be"),
    (_removed("text_encoder/config.json"), "incomplete: it has no text_encoder/config.json"),
    (_removed("scheduler"), r"incomplete: it has no scheduler/scheduler_config\.json"),
    (_removed("transformer"), "incomplete: it has no transformer/config.json"),
    (_removed(f"transformer/{WEIGHTS}"), "has none of diffusion_pytorch_model.safetensors"),
    (_json_change(NETWORK, _class_name="UNet"), "config.json: config.json describes a 'UNet'"),
    (_json_change(NETWORK, axes_dim=[2, 6]), r"config.json: axes_dim is \[2, 6\]; it must be \["),
    (_json_change(NETWORK, hidden_size=20), "num_heads|axes_dim"),
    (_json_change(NETWORK, depth="deep"), "config.json: depth: 'deep' is not a whole number"),
    (_json_change(NETWORK, quantization_config={"bits": 4}), "quantization_config is set"),
    (_json_change(NETWORK, depth=3), r"11 tensors do not fit the config: missing blocks\.2\."),
    (_json_change(NETWORK, context_in_dim=24), "text_encoder has 16 channels, but context_in_dim"),
    (_json_change(NETWORK, in_channels=4), "the vae has 2 channels, but in_channels"),
    (_json_change(TIMES, _class_name="DDIMScheduler"), "describes a 'DDIMScheduler'"),
    (_json_change(TIMES, use_dynamic_shifting=True), "use_dynamic_shifting is True, which change"),
    (_json_change(TIMES, shift_terminal=0.02), "shift_terminal is 0.02"),
    (_json_change(TIMES, num_train_timesteps=8), "num_train_timesteps is 8; it must be 1000"),
    (_json_change(TIMES, shift=-1.0), "shift is -1.0; it must be a number above 0"),
    (_json_change("text_encoder/config.json", model_type="qwen3_vl_text"), "qwen3_vl_text"),
    (_json_change("vae/config.json", _class_name="AutoencoderOobleck"), "AutoencoderOobleck"),
    (_json_change("tokenizer/tokenizer_config.json", model_max_length="x"), "model_max_length is"),
    (lambda d: (d / INDEX).write_text("{"), "model_index.json is not valid JSON"),
    (lambda d: (d / NETWORK).write_text("[]"), "holds a list, not a JSON object"),
    (_pickle, "has only pickled weights"),
    (_cut, "not a whole safetensors file"),
    (_pointer, "is a Git LFS pointer"),
    (_integers, r"is of type I8, known: float64"),
    (
        _tensors(_many_wrong),
        r"3 tensors do not fit the config: missing img_in.bias; unexpected extra.weight; "
        r"txt_in.weight has shape \(16, 5\), expected \(16, 16\)",
    ),
    (_tensors(_not_finite), r"the weights are damaged: not finite in blocks\.mlp\.gate\.kernel"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_what_cannot_be_read_is_refused_in_one_line(change: Any, words: str, copy: Path):
    change(copy)
    with pytest.raises(UsageError, match=words) as caught:
        read_model(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [2.0, None])
def test_noise_of_another_scale_is_refused(scale: float | None, bundle: Path, tmp_path: Path):
    directory = write_prx(tmp_path / "pixel", bundle, PIXEL)
    change_json(directory / INDEX, noise_scale=scale)  # None is the class's default, 2.0
    with pytest.raises(UsageError, match=r"noise_scale is 2\.0, and the path of such a model"):
        read_model(directory)


def test_a_pixel_model_has_three_channels_and_rows_of_its_encoder(bundle: Path, tmp_path: Path):
    directory = write_prx(tmp_path / "pixel", bundle, PIXEL)
    change_json(directory / INDEX, prompt_max_tokens=9)
    with pytest.raises(UsageError, match=r"prompt_max_tokens is 9, but rows .* have 16 tokens"):
        read_model(directory)
    change_json(directory / INDEX, prompt_max_tokens=256)
    assert read_model(directory, weights=False).text_max_tokens is None
    change_json(directory / NETWORK, in_channels=4)
    with pytest.raises(UsageError, match="in_channels is 4; a pixel model has 3"):
        read_model(directory)


def test_weights_are_read_last(copy: Path):
    """A directory that is refused for another reason is refused without its weights, too."""
    (copy / "transformer" / WEIGHTS).unlink()
    change_json(copy / TIMES, use_karras_sigmas=True)
    with pytest.raises(UsageError, match="use_karras_sigmas"):
        read_model(copy)


def test_a_part_alone_is_refused_with_the_folder_to_pass(latent: Path):
    words = "one part of a pipeline, a PRXTransformer2DModel; pass the folder that has model_index"
    with pytest.raises(UsageError, match=words):
        read_model(latent / "transformer")


def test_an_average_of_a_pipeline_is_refused(latent: Path):
    with pytest.raises(UsageError, match="ema: 'raw' is not in a pipeline of diffusers"):
        read_model(latent, ema="raw")
