"""CLIP's towers: shapes, files, and agreement with transformers."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pinxit.encoders import clip, weights
from pinxit.encoders.clip import ClipConfig, ClipTextConfig, ClipVisionConfig

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
TINY = ClipConfig(
    text=ClipTextConfig(
        **SIZES, vocab_size=40, max_position_embeddings=9, bos_token_id=38, eos_token_id=39
    ),
    vision=ClipVisionConfig(**SIZES, image_size=8, patch_size=4),
    projection_dim=12,
)
text_forward = jax.jit(clip.text_forward, static_argnums=1)
image_forward = jax.jit(clip.image_forward, static_argnums=1)
IDS = np.array([[38, 3, 4, 5, 39, 39, 39, 39, 39], [38, 7, 39, 39, 39, 39, 39, 39, 39]], np.int32)
PIXELS = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)


def test_shapes():
    params = clip.init_clip(TINY, jax.random.key(0))
    text = text_forward(params, TINY, IDS)
    image = image_forward(params, TINY, PIXELS)
    assert text.hidden.shape == (2, 9, 16)
    assert image.hidden.shape == (2, 5, 16)
    assert text.pooled.shape == image.pooled.shape == (2, 16)
    assert text.projected.shape == image.projected.shape == (2, 12)
    np.testing.assert_array_equal(text.pooled, text.hidden[[0, 1], [4, 2]])
    loss = clip.contrastive_loss(text.projected, image.projected, params["logit_scale"])
    assert np.isfinite(loss)


def test_text_before_the_end_does_not_see_what_follows():
    params = clip.init_clip(TINY, jax.random.key(0))
    changed = IDS.copy()
    changed[:, 5:] = 1
    ours, other = (text_forward(params, TINY, ids).hidden for ids in (IDS, changed))
    np.testing.assert_array_equal(ours[:, :5], other[:, :5])
    assert np.abs(ours[:, 5:] - other[:, 5:]).max() > 0


def test_end_of_text():
    assert clip.end_of_text(TINY.text, IDS).tolist() == [4, 2]
    legacy = replace(TINY.text, eos_token_id=clip.LEGACY_EOS)
    assert clip.end_of_text(legacy, IDS).tolist() == [4, 2]


def test_normalise_resizes_and_centres():
    grey = 2 * np.broadcast_to(np.array(clip.IMAGE_MEAN, np.float32), (1, 16, 16, 3)) - 1
    pixels = clip.normalise(grey, size=8)
    assert pixels.shape == (1, 8, 8, 3)
    assert np.abs(pixels).max() < 1e-5


@pytest.mark.parametrize("only", [None, "text", "vision"])
def test_save_then_load(only, tmp_path):
    params = clip.init_clip(TINY, jax.random.key(1))
    clip.save_clip(tmp_path, params, TINY)
    loaded, config = clip.load_clip(tmp_path, only=only)
    if only is None:
        assert config == TINY
        jax.tree.map(np.testing.assert_array_equal, loaded, params)
    else:
        jax.tree.map(np.testing.assert_array_equal, loaded, {name: params[name] for name in loaded})
        clip.save_clip(tmp_path / "one", loaded, config)
        again, again_config = clip.load_clip(tmp_path / "one")
        assert again_config == config
        jax.tree.map(np.testing.assert_array_equal, again, loaded)


def test_old_files_load(tmp_path):
    params = clip.init_clip(TINY, jax.random.key(1))
    clip.save_clip(tmp_path, params, TINY)
    value = weights.read_config(tmp_path / "config.json")
    value |= {"text_config_dict": value.pop("text_config"), "text_config": {"hidden_size": 1}}
    (tmp_path / "config.json").write_text(json.dumps(value))
    tensors = load_file(tmp_path / clip.WEIGHTS)
    tensors["text_model.embeddings.position_ids"] = np.arange(9)[None]
    save_file(tensors, tmp_path / clip.WEIGHTS)
    loaded, config = clip.load_clip(tmp_path)
    assert config == TINY
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_a_config_silent_on_one_tower_has_the_other():
    value = TINY.to_json()
    del value["vision_config"]
    config = ClipConfig.from_json(value)
    assert config.vision is None
    assert config.text == TINY.text
    both = ClipConfig.from_json({"model_type": "clip"})
    assert both == ClipConfig(text=ClipTextConfig(), vision=ClipVisionConfig())


def test_bfloat16_parameters_give_bfloat16_activations(tmp_path):
    """The largest error is at most 4 % of the largest value (measured: 0.5 to 1.8 %)."""
    clip.save_clip(tmp_path, clip.init_clip(TINY, jax.random.key(1)), TINY)
    wide, config = clip.load_clip(tmp_path)
    narrow, _ = clip.load_clip(tmp_path, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == {jnp.dtype("bfloat16")}
    for forward, given in ((text_forward, IDS), (image_forward, PIXELS)):
        exact, rough = forward(wide, config, given), forward(narrow, config, given)
        for ours, other in zip(jax.tree.leaves(rough), jax.tree.leaves(exact), strict=True):
            assert ours.dtype == jnp.bfloat16
            difference = np.abs(ours.astype(jnp.float32) - other).max() / np.abs(other).max()
            assert 1e-4 < difference < 0.04


def test_missing_tower_is_named(tmp_path):
    config = replace(TINY, vision=None)
    clip.save_clip(tmp_path, clip.init_clip(config, jax.random.key(0)), config)
    with pytest.raises(ValueError, match=r"only: .* has no tower 'vision'; it has text"):
        clip.load_clip(tmp_path, only="vision")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: replace(TINY.text, hidden_act="relu"), "hidden_act is 'relu'; known: quick_gelu"),
        (lambda: replace(TINY.text, num_attention_heads=3), "is not divisible by num_attention"),
        (lambda: replace(TINY.vision, patch_size=3), "is not divisible by patch_size 3"),
        (lambda: replace(TINY.text, num_hidden_layers=0), "num_hidden_layers is 0"),
        (lambda: ClipConfig(), "needs a text tower"),
        (lambda: ClipConfig.from_json({"model_type": "t5"}), "model_type is 't5'"),
    ],
)
def test_bad_configs_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_bad_inputs_are_refused():
    params = clip.init_clip(TINY, jax.random.key(0))
    with pytest.raises(ValueError, match="10 tokens; this text tower reads at most 9"):
        text_forward(params, TINY, np.zeros((1, 10), np.int32))
    with pytest.raises(ValueError, match="this vision tower reads 8x8x3"):
        image_forward(params, TINY, np.zeros((1, 9, 9, 3), np.float32))


@pytest.mark.parity
@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_both_towers_agree_with_transformers(act, tmp_path):
    torch = pytest.importorskip("torch")
    theirs = their_model("CLIPModel", act, tmp_path)
    params, config = clip.load_clip(tmp_path)
    with torch.no_grad():
        out = theirs(
            input_ids=torch.from_numpy(IDS).long(),
            pixel_values=torch.from_numpy(PIXELS.transpose(0, 3, 1, 2)),
            return_loss=True,
        )
    text, image = text_forward(params, config, IDS), image_forward(params, config, PIXELS)
    close(text.hidden, out.text_model_output.last_hidden_state)
    close(image.hidden, out.vision_model_output.last_hidden_state)
    for ours, embeds in ((text.projected, out.text_embeds), (image.projected, out.image_embeds)):
        close(ours / np.linalg.norm(ours, axis=-1, keepdims=True), embeds)
    close(
        clip.contrastive_loss(text.projected, image.projected, params["logit_scale"]),
        out.loss,
    )


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["CLIPTextModel", "CLIPTextModelWithProjection"])
def test_a_text_tower_alone_agrees(kind, tmp_path):
    torch = pytest.importorskip("torch")
    theirs = their_model(kind, "quick_gelu", tmp_path)
    params, config = clip.load_clip(tmp_path)
    assert config.vision is None
    with torch.no_grad():
        out = theirs(torch.from_numpy(IDS).long())
    ours = text_forward(params, config, IDS)
    close(ours.hidden, out.last_hidden_state)
    if kind == "CLIPTextModel":
        close(ours.pooled, out.pooler_output)
        assert ours.projected is None
    else:
        close(ours.projected, out.text_embeds)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["CLIPVisionModel", "CLIPVisionModelWithProjection"])
def test_a_vision_tower_alone_agrees(kind, tmp_path):
    torch = pytest.importorskip("torch")
    theirs = their_model(kind, "gelu", tmp_path)
    params, config = clip.load_clip(tmp_path)
    with torch.no_grad():
        out = theirs(torch.from_numpy(PIXELS.transpose(0, 3, 1, 2)))
    ours = image_forward(params, config, PIXELS)
    close(ours.hidden, out.last_hidden_state)
    if kind == "CLIPVisionModel":
        close(ours.pooled, out.pooler_output)
    else:
        close(ours.projected, out.image_embeds)


LARGER = {
    "ViT-H": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
    "bigG": {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20},
}


@pytest.mark.parity
@pytest.mark.parametrize("name", LARGER)
def test_the_larger_text_towers_agree(name, tmp_path):
    """Their widths and GELU with one block and a small vocabulary; a legacy EOS, as in SDXL."""
    torch = pytest.importorskip("torch")
    sizes = LARGER[name] | {"num_hidden_layers": 1, "eos_token_id": clip.LEGACY_EOS}
    projection = {"projection_dim": sizes["hidden_size"]}
    theirs = their_model("CLIPTextModelWithProjection", "gelu", tmp_path, **sizes, **projection)
    params, config = clip.load_clip(tmp_path)
    assert config.projection_dim == sizes["hidden_size"]
    with torch.no_grad():
        out = theirs(torch.from_numpy(IDS).long())
    ours = text_forward(params, config, IDS)
    close(ours.hidden, out.last_hidden_state)
    close(ours.projected, out.text_embeds)


@pytest.mark.parity
def test_towers_of_different_width_agree(tmp_path):
    """The vision tower of bigG is wider than its text tower; each is loaded alone, too."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    text = SIZES | {"vocab_size": 40, "max_position_embeddings": 9, "eos_token_id": 39}
    vision = SIZES | {"hidden_size": 24, "num_hidden_layers": 3, "image_size": 8, "patch_size": 2}
    config = transformers.CLIPConfig(
        text_config=text | {"hidden_act": "gelu"},
        vision_config=vision | {"hidden_act": "gelu"},
        projection_dim=20,
    )
    torch.manual_seed(0)
    theirs = transformers.CLIPModel(config).eval()
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected_text = theirs.get_text_features(torch.from_numpy(IDS).long()).pooler_output
        pixels = torch.from_numpy(PIXELS.transpose(0, 3, 1, 2))
        expected_image = theirs.get_image_features(pixels).pooler_output
    for only in (None, "text", "vision"):
        params, config = clip.load_clip(tmp_path, only=only)
        if only != "vision":
            close(text_forward(params, config, IDS).projected, expected_text)
        if only != "text":
            close(image_forward(params, config, PIXELS).projected, expected_image)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["CLIPTextModelWithProjection", "CLIPVisionModelWithProjection"])
def test_bfloat16_agrees_with_float32_of_transformers(kind, tmp_path):
    """Of the largest value: at most 2 % in bfloat16 (measured: under 1 %)."""
    torch = pytest.importorskip("torch")
    theirs = their_model(kind, "gelu", tmp_path)
    params, config = clip.load_clip(tmp_path, dtype="bfloat16")
    with torch.no_grad():
        if "Text" in kind:
            out = theirs(torch.from_numpy(IDS).long())
            ours, expected = text_forward(params, config, IDS), out.text_embeds
        else:
            out = theirs(torch.from_numpy(PIXELS.transpose(0, 3, 1, 2)))
            ours, expected = image_forward(params, config, PIXELS), out.image_embeds
    close(ours.hidden.astype(jnp.float32), out.last_hidden_state, tolerance=0.02)
    close(ours.projected.astype(jnp.float32), expected, tolerance=0.02)


@pytest.mark.parity
def test_transformers_opens_what_we_write(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    params = clip.init_clip(TINY, jax.random.key(2))
    clip.save_clip(tmp_path, params, TINY)
    text_params = {"text_model": params["text_model"]}
    text_config = replace(TINY, vision=None, projection_dim=None)
    clip.save_clip(tmp_path / "text", text_params, text_config)
    both, report = transformers.CLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    alone, report = transformers.CLIPTextModel.from_pretrained(
        tmp_path / "text", output_loading_info=True
    )
    assert not any(report.values())
    ours = text_forward(params, TINY, IDS)
    with torch.no_grad():
        ids = torch.from_numpy(IDS).long()
        close(ours.hidden, alone(ids).last_hidden_state)
        close(ours.projected, both.get_text_features(ids).pooler_output)


def their_model(kind: str, act: str, directory, **changes):
    """A random tiny model of `transformers`, saved by it to `directory`."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sizes = SIZES | {"hidden_act": act, "projection_dim": 12}
    text = sizes | {"vocab_size": 40, "max_position_embeddings": 9, "eos_token_id": 39}
    text |= {"bos_token_id": 38}
    vision = sizes | {"image_size": 8, "patch_size": 4}
    if kind == "CLIPModel":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    elif "Text" in kind:
        config = transformers.CLIPTextConfig(**text | changes)
    else:
        config = transformers.CLIPVisionConfig(**vision | changes)
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.save_pretrained(directory)
    return model


def close(ours, theirs, tolerance: float = 1e-5) -> None:
    theirs = theirs.numpy()
    assert np.abs(np.asarray(ours) - theirs).max() <= tolerance * np.abs(theirs).max()


def test_shapes_are_the_files_shapes():
    tensors = weights.to_tensors(clip.init_clip(TINY, jax.random.key(0)))
    assert tensors["vision_model.embeddings.patch_embedding.weight"].shape == (16, 3, 4, 4)
    assert tensors["text_model.encoder.layers.0.mlp.fc1.weight"].shape == (24, 16)
    assert tensors["logit_scale"].shape == ()
