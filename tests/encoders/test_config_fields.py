"""Every field of an encoder's config.json, of a wrong type or out of range: one line at load."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from pinxit.config import UsageError, hints, misfit
from pinxit.encoders import weights
from pinxit.encoders.abstract_autoencoder import abstract_autoencoder
from pinxit.encoders.autoencoder import downsample_of, load_autoencoder
from pinxit.encoders.clip_config import ClipConfig, ClipTextConfig, ClipVisionConfig
from pinxit.encoders.clip_tokenizer import load_clip_tokenizer
from pinxit.encoders.config_fields import naming
from pinxit.encoders.dc_ae_config import AutoencoderDCConfig
from pinxit.encoders.t5 import T5Config
from pinxit.encoders.t5_tokenizer import load_t5_tokenizer
from pinxit.encoders.t5gemma import T5GemmaConfig
from pinxit.encoders.text_encoder_catalogue import abstract_text_encoder, load_text_encoder
from pinxit.encoders.token_rows import check_fit
from pinxit.encoders.vae import AutoencoderKLConfig

WRONG = {int: "8", float: "0.18", bool: "yes", str: 5, tuple: 8}
"""A value of a wrong type for each type that a field may have."""


def wrong_values(cls: type) -> list[tuple[str, object]]:
    """Each field of a config with a value of a wrong type, and numbers that are out of range."""
    pairs: list[tuple[str, object]] = []
    for name, hint in hints(cls).items():
        pairs += [(name, value) for value in (*WRONG.values(), [], {}) if misfit(hint, value)]
        if hint is int and name not in ("pad_token_id", "sample_size"):
            pairs += [(name, -1), (name, True), (name, 2.5)]
        if hint is int and not name.endswith("_id") and name != "sample_size":
            pairs.append((name, 0))
        if hint is float:
            pairs += [(name, float("nan")), (name, float("inf"))]
    return pairs


def pairs(*classes: type) -> list[tuple[type, str, object]]:
    return [(cls, name, value) for cls in classes for name, value in wrong_values(cls)]


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    pairs(
        AutoencoderKLConfig,
        AutoencoderDCConfig,
        ClipTextConfig,
        ClipVisionConfig,
        T5Config,
        T5GemmaConfig,
    ),
)
def test_every_field_refuses_what_it_cannot_be(cls: type, name: str, value: object):
    kinds = {T5Config: {"model_type": "t5"}, T5GemmaConfig: {"model_type": "t5_gemma_module"}}
    kind = kinds.get(cls, {})
    with pytest.raises(UsageError) as error:
        cls.from_json({**kind, name: value})
    message = str(error.value)
    assert name in message and "\n" not in message
    assert repr(value) in message or str(value) in message


def test_every_field_was_tried():
    classes = (AutoencoderKLConfig, AutoencoderDCConfig, ClipTextConfig, T5Config, T5GemmaConfig)
    tried = {(cls, name) for cls, name, _ in pairs(*classes)}
    for cls in classes:
        assert {name for one, name in tried if one is cls} == {field.name for field in fields(cls)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scaling_factor": "0.18"}, "scaling_factor is '0.18'; it must be a number"),
        ({"scaling_factor": 0}, "scaling_factor is 0.0; it must be more than 0, and finite"),
        ({"scaling_factor": -1.0}, "scaling_factor is -1.0; it must be more than 0, and finite"),
        ({"scaling_factor": float("nan")}, "scaling_factor is nan; it must be more than 0"),
        ({"shift_factor": float("inf")}, "shift_factor is inf; it must be finite"),
        ({"shift_factor": [0.1]}, r"shift_factor is \[0.1\]; it must be a number"),
        ({"in_channels": 4}, "in_channels is 4; it must be 3, because images are RGB"),
        ({"out_channels": 6}, "out_channels is 6; it must be 3, because images are RGB"),
        ({"norm_num_groups": "2"}, "norm_num_groups is '2'; it must be a whole number"),
        ({"use_quant_conv": "no"}, "use_quant_conv is 'no'; it must be true or false"),
        ({"block_out_channels": [8, True]}, "block_out_channels is .*; give one width per level"),
    ],
)
def test_an_autoencoder_is_refused_in_one_line(bundle: Path, tmp_path: Path, change, words: str):
    root = shutil.copytree(bundle / "vae", tmp_path / "vae")
    value = json.loads((root / "config.json").read_text())
    (root / "config.json").write_text(json.dumps(value | change))
    for load in (load_autoencoder, downsample_of, abstract_autoencoder):
        with pytest.raises(UsageError, match=words) as error:
            load(str(root))
        assert str(error.value).startswith(f"{root / 'config.json'}: ")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[1]", "5", "null", '{"scaling_factor": ', "\x00\x01"])
def test_a_config_that_is_no_object_is_refused(bundle: Path, tmp_path: Path, text: str):
    root = shutil.copytree(bundle / "vae", tmp_path / "vae")
    (root / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config\.json"):
        load_autoencoder(str(root))


def test_a_scale_in_whole_numbers_is_a_number():
    assert AutoencoderKLConfig.from_json({"scaling_factor": 1}).scaling_factor == 1.0
    assert AutoencoderKLConfig.from_json({"sample_size": [64, 32]}).sample_size == 64


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"text_config": [1]}, r"text_config is \[1\]; it must be an object"),
        ({"text_config_dict": "big"}, "text_config_dict is 'big'; it must be an object"),
        ({"vision_config": 5}, "vision_config is 5; it must be an object"),
        ({"projection_dim": "512"}, "projection_dim is '512'; it must be a whole number or null"),
        ({"projection_dim": 0}, "projection_dim is 0; it must be at least 1"),
        ({"logit_scale_init_value": "2"}, "logit_scale_init_value is '2'; it must be a number"),
        ({"text_config": {"hidden_size": "8"}}, "hidden_size is '8'; it must be a whole number"),
        ({"text_config": {"layer_norm_eps": 0}}, "layer_norm_eps is 0.0; it must be more than 0"),
        ({"text_config": {"eos_token_id": -1}}, "eos_token_id is -1; it must be at least 0"),
    ],
)
def test_a_clip_is_refused_in_one_line(value: dict, words: str):
    with pytest.raises(UsageError, match=words):
        ClipConfig.from_json(value)


def test_a_setting_of_the_user_is_not_blamed_on_a_file(tmp_path: Path):
    with pytest.raises(UsageError) as error, naming(tmp_path):
        raise UsageError("max_tokens", 600, problem="out of range")
    assert str(error.value) == "max_tokens: 600 is out of range"


def test_projections_are_read_as_before():
    assert ClipConfig.from_json({}).projection_dim == 512
    assert ClipConfig.from_json({"projection_dim": None}).projection_dim is None
    alone = ClipConfig.from_json({"model_type": "clip_text_model", "projection_dim": 64})
    assert alone.projection_dim == 64 and alone.vision is None


def test_the_file_of_a_text_encoder_is_named(bundle: Path, tmp_path: Path):
    root = shutil.copytree(bundle, tmp_path / "pipeline")
    path = root / "text_encoder" / "config.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"hidden_size": "16"}))
    for load in (load_text_encoder, abstract_text_encoder):
        with pytest.raises(UsageError, match="hidden_size is '16'; it must be a whole") as error:
            load(str(root))
        assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("tokenizer_config.json", '{"model_max_length": "77"}', "model_max_length is '77'"),
        ("tokenizer_config.json", '{"model_max_length": 1}', "model_max_length is 1"),
        ("tokenizer_config.json", '{"model_max_length": -5}', "model_max_length is -5"),
        ("tokenizer_config.json", '{"model_max_length": NaN}', "model_max_length is nan"),
        ("tokenizer_config.json", '{"pad_token": {}}', "pad_token is {}; it must be text"),
        ("tokenizer_config.json", '{"bos_token": 5}', "bos_token is 5; it must be text"),
        ("tokenizer_config.json", '["a"]', "holds a list"),
        ("vocab.json", '{"a": "0"}', "the id of 'a' is '0'; it must be at least 0"),
        ("vocab.json", '{"a": -1}', "the id of 'a' is -1; it must be at least 0"),
        ("vocab.json", '{"a": 0, "b": 0}', "'a' and 'b' have the same id 0"),
        ("vocab.json", '{"a": 0}', "merges.txt line"),
        ("merges.txt", b"\xff\xfe\x00", "is not text in UTF-8"),
    ],
)
def test_a_clip_tokenizer_is_refused_in_one_line(
    bundle: Path, tmp_path: Path, name: str, text: str | bytes, words: str
):
    root = shutil.copytree(bundle / "tokenizer", tmp_path / "tokenizer")
    (root / "special_tokens_map.json").unlink()
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=words) as error:
        load_clip_tokenizer(root)
    assert str(root) in str(error.value) and "\n" not in str(error.value)


def test_tokens_and_lengths_that_are_null_have_their_defaults(bundle: Path, tmp_path: Path):
    root = shutil.copytree(bundle / "tokenizer", tmp_path / "tokenizer")
    (root / "special_tokens_map.json").unlink()
    (root / "tokenizer_config.json").write_text('{"pad_token": null, "model_max_length": null}')
    assert load_clip_tokenizer(root)[1] == 77
    (root / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')
    assert load_clip_tokenizer(root)[1] == 2**31


@pytest.mark.parametrize("text", ['{"model": {"type": "BPE"}}', '{"model": 5}', "{}"])
def test_a_tokenizer_json_that_is_none_is_refused(tmp_path: Path, text: str):
    (tmp_path / "tokenizer.json").write_text(text)
    for load in (load_clip_tokenizer, load_t5_tokenizer):
        with pytest.raises(UsageError, match=r"tokenizer\.json") as error:
            load(tmp_path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["100", -1, 2.5, None])
def test_extra_ids_are_a_whole_number(tmp_path: Path, value: object):
    (tmp_path / "spiece.model").write_bytes(b"")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"extra_ids": value}))
    with pytest.raises(UsageError, match=f"extra_ids is {value!r}; it must be at least 0"):
        load_t5_tokenizer(tmp_path)


def test_ids_beyond_the_embedding_are_refused(bundle: Path, tmp_path: Path):
    root = shutil.copytree(bundle / "tokenizer", tmp_path / "tokenizer")
    vocabulary = weights.read_config(root / "vocab.json")
    size = len(vocabulary)
    check_fit(load_clip_tokenizer(root)[0], size, max_tokens=16, longest=16)
    sparse = {token: number * 2 for token, number in vocabulary.items()}
    (root / "vocab.json").write_text(json.dumps(sparse))
    with pytest.raises(UsageError, match=f"has the id {2 * (size - 1)}, but the text tower's"):
        check_fit(load_clip_tokenizer(root)[0], size, max_tokens=16, longest=16)
