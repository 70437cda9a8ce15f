"""The CLIP score: its arithmetic, its columns, and the network it is measured with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from toy_pipeline import toy_model

from pinxit.arrays import Example
from pinxit.config import UsageError
from pinxit.data.scenes.dataset import Scenes
from pinxit.encoders import clip
from pinxit.encoders.clip_config import ClipConfig, ClipTextConfig, ClipVisionConfig
from pinxit.encoders.clip_tokenizer import train_clip_tokenizer
from pinxit.evaluate.clip_score import (
    clip_score,
    clip_score_in_words,
    clip_score_needs,
    cosines,
    scores,
)
from pinxit.evaluate.comparison.paired import picture_scores
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.extractors.clip_features import clip_name
from pinxit.evaluate.extractors.clip_pairs import ClipPairs
from pinxit.evaluate.extractors.clip_resize import centre_then_resize, resize_then_centre
from pinxit.evaluate.feature_store import BLOCK, FeatureStore
from pinxit.evaluate.judge import load_judge
from pinxit.evaluate.networks import bundled_clip, feature_networks
from pinxit.evaluate.picture_sets import DrawnPictures
from pinxit.pipeline import TextToImage

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def clip_directory(tmp_path_factory) -> Path:
    """A whole CLIPModel with a tokenizer, of a few weights, for pictures of 16 pixels."""
    root = tmp_path_factory.mktemp("clip")
    vocabulary = train_clip_tokenizer(["a red dog", "blue"] * 3, 530, root, max_tokens=8)
    text = ClipTextConfig(
        vocab_size=vocabulary, max_position_embeddings=8, num_hidden_layers=1, **SIZES
    )
    vision = ClipVisionConfig(image_size=16, patch_size=8, num_hidden_layers=1, **SIZES)
    config = ClipConfig(text=text, vision=vision, projection_dim=8)
    clip.save_clip(root, clip.init_clip(config, jax.random.key(0)), config)
    return root


@pytest.fixture(autouse=True)
def noise_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model draws noise, which takes no time."""

    def pictures(self: DrawnPictures, numbers: range) -> list[np.ndarray]:
        rng = np.random.default_rng(1)
        return [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in numbers]

    monkeypatch.setattr(DrawnPictures, "pictures", pictures)


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return toy_model()


def scenes_context(model: TextToImage) -> EvaluationContext:
    return EvaluationContext(model, judge=load_judge(), prompts=5)


def rows_context(model: TextToImage, captions: list[str], **settings: Any) -> EvaluationContext:
    rng = np.random.default_rng(0)
    rows = [Example(rng.integers(0, 256, (16, 16, 3), np.uint8), text) for text in captions]
    return EvaluationContext(model, rows, prompts=len(rows), **settings)


def test_the_arithmetic():
    values = dict(scores("drawn", np.array([0.3, -0.1, 0.2]), network="x"))
    assert values["clip_score/drawn/x"] == pytest.approx(100 * 0.4 / 3)
    assert values["clip_score/drawn/paper_x"] == pytest.approx(2.5 * 0.5 / 3)
    error = np.std([30, -10, 20], ddof=1) / np.sqrt(3)
    assert values["clip_score/drawn/standard_error_x"] == pytest.approx(error)
    below = dict(scores("real", np.array([-0.5]), network="x"))
    assert below == {"clip_score/real/x": 0, "clip_score/real/paper_x": 0}


def test_the_bundled_clip_knows_which_prompt_a_scene_has(model):
    values = dict(clip_score(scenes_context(model)))
    assert values["clip_score/real/scenes_clip"] > 20 + values["clip_score/shuffled/scenes_clip"]
    assert values["clip_score/real/scenes_clip"] > 20 + values["clip_score/drawn/scenes_clip"]
    assert set(values) == {
        f"clip_score/{column}/{kind}scenes_clip"
        for column in ("drawn", "real", "shuffled")
        for kind in ("", "standard_error_", "paper_")
    }
    line = clip_score_in_words(values)
    assert line.startswith("CLIP score (scenes_clip) ") and "shuffled prompts" in line


def test_a_comparison_has_the_same_score_and_reads_what_was_measured_alone(model):
    context = scenes_context(model)
    vars(context)["drawn"] = context.real
    values = dict(clip_score(context))
    found = picture_scores(context, ["clip_score"])
    assert list(found) == [name := "clip_score/drawn/scenes_clip"]
    assert found[name].resampled(np.ones((1, 5)))[0] == pytest.approx(values[name])
    other = scenes_context(model)
    assert picture_scores(other, ["distances"]) == {} and other.observations.used() == []


def test_cosines_by_hand(tmp_path: Path):
    pairs, prompts = bundled_clip()[1], ("a", "b", "c")
    width = pairs.width // 2
    rows = np.random.default_rng(0).normal(size=(BLOCK + 3, 2 * width)).astype(np.float32)
    store = FeatureStore(tmp_path, width=2 * width)
    store.append(rows, name="x")
    expected = [
        float(rows[i, :width] @ rows[(i + 1) % len(rows), width:]) for i in range(len(rows))
    ]
    np.testing.assert_allclose(cosines(pairs, store, shift=1), expected, rtol=1e-3, atol=1e-4)
    pictures = [Scenes(length=3, image_size=64)[i].image for i in range(3)]
    together = pairs(pictures, prompts)
    alone = np.concatenate([pairs(pictures[i : i + 1], prompts[i : i + 1]) for i in range(3)])
    assert together.tobytes() == alone.tobytes()
    halves = np.linalg.norm(together.reshape(3, 2, width), axis=2)
    np.testing.assert_allclose(halves, 1, rtol=1e-6)


def test_other_data_has_a_score_only_with_a_clip(model, clip_directory: Path):
    assert dict(clip_score(rows_context(model, ["a dog", "blue"]))) == {}
    assert list(clip_score_needs(rows_context(model, ["a dog", "blue"]))) == []
    networks, pairs = feature_networks(clip=str(clip_directory))
    assert [network.name for network in networks] == ["clip_16x1_8_16"]
    captions = ["a dog", "blue " * 20]
    context = rows_context(model, captions, clip=pairs)
    assert len(list(clip_score_needs(context))) == 2
    with pytest.warns(UserWarning, match=r"clip_score with clip_16x1_8_16: 1 of 2 prompts \('blue"):
        values = dict(clip_score(context))
    assert values["clip_score/drawn/cut_prompts_clip_16x1_8_16"] == 1
    assert "clip_score/shuffled/clip_16x1_8_16" in values
    with pytest.warns(UserWarning):
        values = dict(clip_score(rows_context(model, captions[1:], clip=pairs)))
    assert not any("shuffled" in name or "standard_error" in name for name in values)
    assert "real pictures" in clip_score_in_words(values)


def test_without_files_the_networks_are_the_bundles():
    networks, pairs = feature_networks()
    assert [network.name for network in networks] == ["scenes_judge", "scenes_clip"]
    assert pairs is None
    assert feature_networks(clip="tiny")[1] is bundled_clip()[1]


def test_the_name_follows_from_the_vision_tower():
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    for tower, name in (
        (ClipVisionConfig(**large, patch_size=14, image_size=336), "clip_l_336"),
        (ClipVisionConfig(**large, patch_size=14), "clip_l_224"),
        (ClipVisionConfig(), "clip_b32_224"),
    ):
        assert clip_name(ClipConfig(vision=tower)) == name


def test_cropping_and_resizing_agree_on_squares_alone():
    rng = np.random.default_rng(0)
    square, wide = (rng.integers(0, 256, (40, side, 3), np.uint8) for side in (40, 61))
    assert (centre_then_resize(square, 16) == resize_then_centre(square, 16)).all()
    a, b = centre_then_resize(wide, 16), resize_then_centre(wide, 16)
    assert a.shape == b.shape == (16, 16, 3) and (a != b).any()


def refused(options: dict[str, str]) -> str:
    with pytest.raises(UsageError) as caught:
        feature_networks(**options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_clips_that_lack_something_are_refused(clip_directory: Path, bundle: Path, tmp_path: Path):
    text_alone = str(bundle / "text_encoder")
    assert "is a CLIP with no vision tower; valid: tiny" in refused({"clip": text_alone})
    assert refused({"clip": str(tmp_path / "none")}).startswith("clip: ")
    assert refused({"clip": str(tmp_path)}).startswith(f"clip: '{tmp_path}': ")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((clip_directory / name).read_bytes())
    assert "has neither vocab.json" in refused({"clip": str(tmp_path)})
    whole = tmp_path / "whole"
    whole.mkdir()
    for file in clip_directory.iterdir():
        (whole / file.name).write_bytes(file.read_bytes())
    fitting = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    stored = whole / "preprocessor_config.json"
    stored.write_text(json.dumps({**fitting, "image_mean": list(clip.IMAGE_MEAN)}))
    assert isinstance(feature_networks(clip=str(whole))[1], ClipPairs)
    for changed in ({"image_mean": [0.5, 0.5, 0.5]}, {"size": 20}, {"resample": 2}):
        stored.write_text(json.dumps(fitting | changed))
        assert f"{stored.name}: {next(iter(changed))} is" in refused({"clip": str(whole)})
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    assert "model_type is 'siglip'" in refused({"clip": str(whole)})


def test_a_wrong_inception_file_names_the_option(tmp_path: Path):
    (tmp_path / "inception.pt").write_bytes(b"PK\3\4")
    message = refused({"inception": str(tmp_path / "inception.pt")})
    assert message.startswith("inception: ") and "scripts/convert_inception.py" in message
