"""Text encoders: rows, masks, what is found where, and two encoders in one."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.arrays import TextEncoder
from pinxit.encoders import clip, t5, weights
from pinxit.encoders.clip import ClipConfig, ClipTextConfig
from pinxit.encoders.clip_text_encoder import ClipTextEncoder
from pinxit.encoders.clip_tokenizer import BOS, EOS, load_clip_tokenizer, train_clip_tokenizer
from pinxit.encoders.joint_text_encoder import join
from pinxit.encoders.text_encoder_catalogue import TEXT_ENCODERS, load_text_encoder

CAPTIONS = [
    "a small red house on the left under a full moon",
    "A beautiful sunset over mountains",
    "two clouds, a sailing boat and the sun's last light",
    "a tiny house on a hill at dawn; don't look away",
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A diffusers-like directory with a small random text tower and a trained tokenizer."""
    root = tmp_path_factory.mktemp("bundle")
    size = train_clip_tokenizer(CAPTIONS * 3, 560, root / "tokenizer", max_tokens=16)
    tower = ClipTextConfig(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=size,
        max_position_embeddings=16,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
    )
    config = ClipConfig(text=tower, projection_dim=None)
    clip.save_clip(root / "text_encoder", clip.init_clip(config, jax.random.key(0)), config)
    return root


@pytest.fixture(scope="module")
def encoder(bundle):
    return load_text_encoder(bundle)


def test_the_vocabulary(bundle):
    vocab = weights.read_config(bundle / "tokenizer" / "vocab.json")
    assert len(vocab) == 560
    assert [vocab[BOS], vocab[EOS]] == [558, 559]
    assert sum(len(token.removesuffix("</w>")) == 1 for token in vocab) >= 512
    assert sorted(vocab.values()) == list(range(560))


def test_training_is_repeatable(bundle, tmp_path):
    for _ in range(5):
        train_clip_tokenizer(CAPTIONS * 3, 560, tmp_path, max_tokens=16)
        names = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
        for name in names:
            assert (tmp_path / name).read_bytes() == (bundle / "tokenizer" / name).read_bytes()


def test_few_captions_give_a_smaller_vocabulary(tmp_path):
    size = train_clip_tokenizer(["ab ab"], 1000, tmp_path)
    assert size == 515
    with pytest.raises(ValueError, match="vocab_size is 513; it must be at least 514"):
        train_clip_tokenizer(["ab ab"], 513, tmp_path)


def test_rows(encoder):
    assert isinstance(encoder, TextEncoder)
    ids = encoder.tokenize(["", "a house", "a house " * 40])
    assert ids.shape == (3, encoder.max_tokens) == (3, 16)
    assert ids.dtype == np.int32
    assert ids[0].tolist() == [558] + [559] * 15
    assert (ids[:, 0] == 558).all()
    assert (ids[:, -1] == 559).all()
    assert (ids[2] == 559).sum() == 1
    assert encoder.tokenize([]).shape == (0, 16)


def test_case_and_space_do_not_matter(encoder):
    ids = encoder.tokenize(["A  small\tHOUSE ", "a small house"])
    np.testing.assert_array_equal(ids[0], ids[1])


def test_a_string_is_not_a_list(encoder):
    with pytest.raises(ValueError, match="pass a list of strings"):
        encoder.tokenize("a house")


def test_conditioning(encoder):
    captions = ["", "a house", "a house " * 40]
    out = encoder(captions)
    ids = encoder.tokenize(captions)
    assert out.tokens.shape == (3, 16, encoder.width) == (3, 16, 8)
    assert out.mask.sum(1).tolist() == [2, int((ids[1] != 559).sum()) + 1, 16]
    lasts = np.asarray(out.mask.sum(1)) - 1
    np.testing.assert_array_equal(out.pooled, np.asarray(out.tokens)[range(3), lasts])
    alone = encoder(["a house"])
    np.testing.assert_allclose(alone.tokens[0], out.tokens[1], atol=1e-6)


def test_longest_row_is_the_shorter_of_the_two(bundle, tmp_path):
    for name in ("tokenizer", "text_encoder"):
        (tmp_path / name).symlink_to(bundle / name)
    (tmp_path / "tokenizer").unlink()
    train_clip_tokenizer(CAPTIONS * 3, 560, tmp_path / "tokenizer", max_tokens=5)
    assert load_text_encoder(tmp_path).max_tokens == 5


def test_a_pad_token_other_than_eos(bundle, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).symlink_to(bundle / "tokenizer" / name)
    settings = {"pad_token": {"content": "!", "__type": "AddedToken"}, "model_max_length": 8}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer, longest = load_clip_tokenizer(tmp_path)
    tower = ClipTextConfig(
        hidden_size=4,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        vocab_size=560,
        max_position_embeddings=16,
    )
    config = ClipConfig(text=tower, projection_dim=None)
    params = clip.init_clip(config, jax.random.key(0))
    encoder = ClipTextEncoder(tokenizer, config, params=params, max_tokens=longest)
    pad = weights.read_config(tmp_path / "vocab.json")["!"]
    assert encoder.tokenize([""])[0].tolist() == [558, 559] + [pad] * 6
    assert encoder([""]).mask[0].tolist() == [True] * 2 + [False] * 6


def test_wrong_files_are_named(bundle, tmp_path):
    with pytest.raises(ValueError, match=r"neither vocab.json with merges.txt nor tokenizer.json"):
        load_clip_tokenizer(tmp_path)
    (tmp_path / "vocab.json").symlink_to(bundle / "tokenizer" / "vocab.json")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nzq xj\n")
    with pytest.raises(ValueError, match=r"merges.txt line 2: 'zq xj' joins tokens that are not"):
        load_clip_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    with pytest.raises(ValueError, match="bos_token is '<s>'"):
        load_clip_tokenizer(tmp_path)


def test_a_tokenizer_larger_than_the_tower_is_refused(encoder, bundle):
    tokenizer, _ = load_clip_tokenizer(bundle / "tokenizer")
    small = ClipConfig(text=ClipTextConfig(vocab_size=100))
    with pytest.raises(ValueError, match="has 560 tokens, but the text tower only 100"):
        ClipTextEncoder(tokenizer, small, params={}, max_tokens=16)


def test_unknown_names_list_the_known():
    known = r"valid: tiny, clip, t5, t5gemma, clip\+t5, a directory"
    with pytest.raises(
        ValueError, match=f"'clpi' is neither a known name nor a directory; {known}"
    ):
        load_text_encoder("clpi")


@pytest.fixture(scope="module")
def t5_encoder(t5_directory):
    return load_text_encoder(t5_directory)


@pytest.fixture(scope="module")
def joint(bundle, t5_directory):
    return load_text_encoder(f"{bundle}+{t5_directory}", max_tokens=12)


@pytest.fixture(scope="module")
def pipeline(bundle, t5_directory, tmp_path_factory):
    """CLIP and T5 in the folders of one pipeline."""
    root = tmp_path_factory.mktemp("pipeline")
    for name in ("text_encoder", "tokenizer"):
        (root / name).symlink_to(bundle / name)
        (root / f"{name}_2").mkdir()
    for name in ("config.json", t5.WEIGHTS):
        (root / "text_encoder_2" / name).symlink_to(t5_directory / name)
    (root / "tokenizer_2" / "spiece.model").symlink_to(t5_directory / "spiece.model")
    return root


def test_what_kind_each_is(encoder, t5_encoder, joint):
    for one in (encoder, t5_encoder, joint):
        assert isinstance(one, TextEncoder)
    assert [one.kind for one in (encoder, t5_encoder, joint)] == ["clip", "t5", "clip+t5"]
    assert [one.cacheable for one in (encoder, t5_encoder, joint)] == [False, True, True]


def test_rows_of_t5(t5_encoder):
    captions = ["", "a red house", "a " * 80]
    ids = t5_encoder.tokenize(captions)
    assert (ids.shape, ids.dtype) == ((3, 77), np.int32)
    assert ids[0].tolist() == [1] + [0] * 76
    assert ids[1, :5].tolist() == [3, 5, 6, 1, 0]
    assert ids[2].tolist() == [3] * 76 + [1]
    out = t5_encoder(captions)
    assert out.mask.sum(1).tolist() == [1, 4, 77]
    np.testing.assert_array_equal(out.mask, t5_encoder.mask(ids))
    assert out.tokens.shape == (3, 77, t5_encoder.width) == (3, 77, 12)
    assert out.pooled is None
    trimmed = jax.jit(t5_encoder.apply)(t5_encoder.params, ids[:2, :8])
    np.testing.assert_allclose(trimmed.tokens[1, :4], out.tokens[1, :4], atol=1e-5)


def test_the_end_of_a_t5_row_is_its_last(t5_encoder):
    mask = t5_encoder(["a </s> red <pad> house"]).mask[0]
    assert mask.tolist() == [True] * 6 + [False] * 71


def test_truncation_is_told_exactly(encoder, t5_encoder, joint):
    words = ["", "a", " ".join("a" * 11), " ".join("a" * 12), " ".join("a" * 14), "a " * 15]
    assert encoder.truncated(words).tolist() == [False] * 5 + [True]
    assert joint.truncated(words).tolist() == [False] * 3 + [True] * 3
    assert t5_encoder.truncated(["a " * 76, "a " * 77]).tolist() == [False, True]
    assert encoder.truncated([]).shape == (0,)
    with pytest.raises(ValueError, match="pass a list of strings"):
        t5_encoder.truncated("a house")


def test_captions_are_cleaned_first(bundle, t5_directory):
    source = f"{bundle}+{t5_directory}"
    clean = load_text_encoder(source, clean=lambda caption: caption.replace("#", " house"))
    plain = load_text_encoder(source)
    np.testing.assert_array_equal(clean.tokenize(["a#"]), plain.tokenize(["a house"]))
    assert (clean.tokenize(["a#"]) != plain.tokenize(["a#"])).any()
    assert clean.truncated(["#" * 80]).tolist() == [True]


def test_the_same_captions_are_tokenised_once(bundle):
    cleaned = []

    def clean(caption):
        cleaned.append(caption)
        return caption

    encoder = load_text_encoder(str(bundle), clean=clean)
    rows = encoder.tokenize(CAPTIONS)
    assert encoder.truncated(list(CAPTIONS)).all()
    np.testing.assert_array_equal(encoder.tokenize(tuple(CAPTIONS)), rows)
    assert cleaned == CAPTIONS
    others = [*CAPTIONS[:-1], "a"]
    assert encoder.truncated(others).tolist() == [True] * 3 + [False]
    assert (encoder.tokenize(others)[-1] != rows[-1]).any()
    assert cleaned == CAPTIONS + others
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 0


def test_two_encoders_are_their_parts(encoder, t5_directory, joint):
    second = load_text_encoder(t5_directory, max_tokens=12)
    captions = ["", "a small house", "a red moon " * 9]
    ids, out = joint.tokenize(captions), joint(captions)
    assert (joint.max_tokens, joint.width) == (16 + 12, 8 + 12)
    a, b = encoder(captions), second(captions)
    np.testing.assert_array_equal(ids[:, :16], encoder.tokenize(captions))
    np.testing.assert_array_equal(ids[:, 16:], second.tokenize(captions))
    np.testing.assert_allclose(out.tokens[:, :16, :8], a.tokens, atol=1e-5)
    np.testing.assert_allclose(out.tokens[:, 16:, 8:], b.tokens, atol=1e-5)
    assert not out.tokens[:, :16, 8:].any()
    assert not out.tokens[:, 16:, :8].any()
    np.testing.assert_array_equal(out.mask, np.concatenate([a.mask, b.mask], axis=1))
    np.testing.assert_allclose(out.pooled, a.pooled, atol=1e-5)
    again = jax.jit(join)(a, b)
    np.testing.assert_allclose(again.tokens, out.tokens, atol=1e-5)


def test_one_projection_is_one_for_each(joint):
    out = joint(["a small house"])
    weight, bias = np.random.default_rng(0).standard_normal((21, 5)).astype(np.float32)[:20], 0.5
    a, b = out.tokens[:, :16, :8], out.tokens[:, 16:, 8:]
    apart = np.concatenate([a @ weight[:8] + bias, b @ weight[8:] + bias], axis=1)
    np.testing.assert_allclose(out.tokens @ weight + bias, apart, atol=1e-5)


def test_rows_of_two_may_be_cut_at_the_end(joint):
    captions = ["", "a small house"]
    ids, whole = joint.tokenize(captions), joint(captions)
    cut = jax.jit(joint.apply)(joint.params, ids[:, :21])
    assert cut.mask.shape == (2, 21)
    assert not np.asarray(whole.mask)[:, 21:].any()
    kept = np.asarray(cut.mask)
    np.testing.assert_allclose(
        np.asarray(cut.tokens)[kept], np.asarray(whole.tokens)[:, :21][kept], atol=1e-5
    )
    for length in (16, 29):
        with pytest.raises(ValueError, match=f"{length} tokens; this encoder reads 17 to 28"):
            joint.apply(joint.params, np.zeros((1, length), np.int32))


def test_bfloat16_from_end_to_end(bundle, t5_directory):
    both = load_text_encoder(f"{bundle}+{t5_directory}", dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(both.params)} == {jnp.dtype(jnp.bfloat16)}
    assert both(["a house"]).tokens.dtype == jnp.bfloat16


def test_a_pipeline_has_several(pipeline, tmp_path):
    assert load_text_encoder(pipeline).kind == "clip"
    assert load_text_encoder(pipeline / "text_encoder_2").kind == "t5"
    both = load_text_encoder(f"{pipeline}+{pipeline}", max_tokens=5)
    assert (both.kind, both.max_tokens) == ("clip+t5", 21)
    reverse = load_text_encoder(f"{pipeline / 'text_encoder_2'}+{pipeline}", max_tokens=5)
    assert (reverse.kind, reverse.max_tokens) == ("t5+clip", 21)
    assert reverse(["a"]).pooled.shape == (1, 8)
    for ours, theirs in (("text_encoder", "text_encoder_2"), ("tokenizer", "tokenizer_2")):
        (tmp_path / ours).symlink_to(pipeline / theirs)
    assert load_text_encoder(tmp_path).kind == "t5"


def test_names_stand_for_sources(bundle, t5_directory, monkeypatch):
    monkeypatch.setitem(TEXT_ENCODERS, "clip", bundle)
    monkeypatch.setitem(TEXT_ENCODERS, "t5", str(t5_directory))
    assert load_text_encoder("t5").kind == "t5"
    assert load_text_encoder("clip+t5").max_tokens == 16 + 77


def test_only_what_is_asked_for_is_fetched(pipeline, monkeypatch):
    asked = []

    def snapshot_download(repo_id, *, allow_patterns, **_):
        asked.append((repo_id, allow_patterns))
        return str(pipeline)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load_text_encoder("someone/pipeline").kind == "clip"
    first, second = (patterns for _, patterns in asked)
    assert {"text_encoder_3/config.json", "tokenizer_2/spiece.model", "vocab.json"} <= set(first)
    assert not any("safetensors" in name for name in first)
    assert "text_encoder/model.safetensors" in second
    assert not any("text_encoder_2" in name for name in second)


def test_placement_is_asked_for_every_parameter(bundle, t5_directory):
    paths = []

    def sharding(path, shape):
        paths.append(path)
        return jax.sharding.SingleDeviceSharding(jax.devices()[0])

    both = load_text_encoder(f"{bundle}+{t5_directory}", sharding=sharding)
    assert len(paths) == len(jax.tree.leaves(both.params))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_tokens": 1}, "max_tokens: 1 is out of range; valid: 2 to 512"),
        ({"max_tokens": 0}, "max_tokens: 0 is out of range"),
        ({"max_tokens": 513}, "max_tokens: 513 is out of range"),
        ({"dtype": "float16"}, "dtype: 'float16' is unknown; valid: float32, bfloat16"),
    ],
)
def test_impossible_settings_are_refused(t5_directory, options, words):
    with pytest.raises(ValueError, match=words):
        load_text_encoder(t5_directory, **options)


def test_the_length_of_clip_is_its_own(bundle):
    assert load_text_encoder(bundle, max_tokens=16).max_tokens == 16
    message = "max_tokens: 12 is not the number of positions of this CLIP; valid: 16"
    with pytest.raises(ValueError, match=message):
        load_text_encoder(bundle, max_tokens=12)


@pytest.mark.parametrize("source", ["clip+", "+t5", "clip+t5+t5"])
def test_more_or_less_than_two_are_refused(source):
    with pytest.raises(ValueError, match=r"is not a pair of encoders; valid: A\+B"):
        load_text_encoder(source)


def test_an_unknown_architecture_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "umt5"}')
    known = "valid: clip, clip_text_model, t5"
    with pytest.raises(ValueError, match=f"unknown architecture .model_type is 'umt5'.; {known}"):
        load_text_encoder(tmp_path)
    for i, suffix in enumerate(("", "_2")):
        (tmp_path / f"text_encoder{suffix}").mkdir()
        config = tmp_path / f"text_encoder{suffix}" / "config.json"
        config.write_text(json.dumps({"model_type": f"kind{i}"}))
    with pytest.raises(ValueError, match="model_type is 'kind0', 'kind1'"):
        load_text_encoder(tmp_path)


def test_missing_files_are_named(bundle, t5_directory, tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json; it has nothing"):
        load_text_encoder(tmp_path)
    (tmp_path / "config.json").symlink_to(t5_directory / "config.json")
    with pytest.raises(ValueError, match=r"has neither tokenizer\.json nor spiece\.model"):
        load_text_encoder(tmp_path)
    (tmp_path / "spiece.model").symlink_to(t5_directory / "spiece.model")
    with pytest.raises(ValueError, match=r"has none of model\.safetensors"):
        load_text_encoder(tmp_path)


def test_a_t5_tokenizer_larger_than_the_embedding_is_refused_unread(t5_directory, tmp_path):
    (tmp_path / "spiece.model").symlink_to(t5_directory / "spiece.model")
    value = weights.read_config(t5_directory / "config.json") | {"vocab_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match="has 140 tokens, but the text tower only 100"):
        load_text_encoder(tmp_path)


def test_a_caption_is_cleaned_once_for_its_row_and_its_length():
    cleaned: list[str] = []

    def clean(caption: str) -> str:
        cleaned.append(caption)
        return caption.lower()

    encoder = load_text_encoder("tiny", clean=clean)
    ids = encoder.tokenize(CAPTIONS)
    assert not encoder.truncated(CAPTIONS).any()
    assert cleaned == CAPTIONS
    np.testing.assert_array_equal(ids, encoder.tokenize([text.lower() for text in CAPTIONS]))
