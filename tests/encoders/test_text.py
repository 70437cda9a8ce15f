"""CLIP's tokenizer and text encoder: rows, masks, files, and agreement with transformers."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from pinxit.arrays import TextEncoder
from pinxit.encoders import clip, text, weights
from pinxit.encoders.clip import ClipConfig, ClipTextConfig

CAPTIONS = [
    "a small red house on the left under a full moon",
    "A beautiful sunset over mountains",
    "two clouds, a sailing boat and the sun's last light",
    "a tiny house on a hill at dawn; don't look away",
]
ODD = [
    "",
    " ",
    "  Many   spaces\tand\nlines ",
    "UPPER lower MiXeD 1234 5.6",
    "it's we're I'll they've I'd I'm can't",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m \u0130stanbul",
    "\u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0639\u0631\u0628\u064a",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 emoji!!! ...---...",
    "a <|endoftext|> b <|startoftext|> c",
    "hyphen-ated under_score @at #12 http://x.y/z?q=1",
    "\u2019s curly 's straight \u00bd \u2163 \u0663",
    "word " * 50,
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A diffusers-like directory with a small random text tower and a trained tokenizer."""
    root = tmp_path_factory.mktemp("bundle")
    size = text.train_clip_tokenizer(CAPTIONS * 3, 560, root / "tokenizer", max_tokens=16)
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
    return text.load_text_encoder(bundle)


def test_the_vocabulary(bundle):
    vocab = weights.read_json(bundle / "tokenizer" / "vocab.json")
    assert len(vocab) == 560
    assert [vocab[text.BOS], vocab[text.EOS]] == [558, 559]
    assert sum(len(token.removesuffix("</w>")) == 1 for token in vocab) >= 512
    assert sorted(vocab.values()) == list(range(560))


def test_training_is_repeatable(bundle, tmp_path):
    for _ in range(5):
        text.train_clip_tokenizer(CAPTIONS * 3, 560, tmp_path, max_tokens=16)
        names = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
        for name in names:
            assert (tmp_path / name).read_bytes() == (bundle / "tokenizer" / name).read_bytes()


def test_few_captions_give_a_smaller_vocabulary(tmp_path):
    size = text.train_clip_tokenizer(["ab ab"], 1000, tmp_path)
    assert size == 515
    with pytest.raises(ValueError, match="vocab_size is 513; it must be at least 514"):
        text.train_clip_tokenizer(["ab ab"], 513, tmp_path)


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
    text.train_clip_tokenizer(CAPTIONS * 3, 560, tmp_path / "tokenizer", max_tokens=5)
    assert text.load_text_encoder(tmp_path).max_tokens == 5


def test_a_pad_token_other_than_eos(bundle, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).symlink_to(bundle / "tokenizer" / name)
    settings = {"pad_token": {"content": "!", "__type": "AddedToken"}, "model_max_length": 8}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer, longest = text.load_clip_tokenizer(tmp_path)
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
    encoder = text.ClipTextEncoder(tokenizer, config, params=params, max_tokens=longest)
    pad = weights.read_json(tmp_path / "vocab.json")["!"]
    assert encoder.tokenize([""])[0].tolist() == [558, 559] + [pad] * 6
    assert encoder([""]).mask[0].tolist() == [True] * 2 + [False] * 6


def test_wrong_files_are_named(bundle, tmp_path):
    with pytest.raises(ValueError, match=r"neither vocab.json with merges.txt nor tokenizer.json"):
        text.load_clip_tokenizer(tmp_path)
    (tmp_path / "vocab.json").symlink_to(bundle / "tokenizer" / "vocab.json")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nzq xj\n")
    with pytest.raises(ValueError, match=r"merges.txt line 2: 'zq xj' joins what"):
        text.load_clip_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    with pytest.raises(ValueError, match="bos_token is '<s>'"):
        text.load_clip_tokenizer(tmp_path)


def test_a_tokenizer_larger_than_the_tower_is_refused(encoder, bundle):
    tokenizer, _ = text.load_clip_tokenizer(bundle / "tokenizer")
    small = ClipConfig(text=ClipTextConfig(vocab_size=100))
    with pytest.raises(ValueError, match="has 560 tokens, the text tower knows 100"):
        text.ClipTextEncoder(tokenizer, small, params={}, max_tokens=16)


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="'clpi' to load; known: tiny, clip, a directory"):
        text.load_text_encoder("clpi")


@pytest.mark.parity
def test_agrees_with_transformers_tokenizer(encoder, bundle, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTokenizer.from_pretrained(bundle / "tokenizer")
    captions = CAPTIONS + ODD + random_captions(300)
    ids = theirs(captions, padding="max_length", truncation=True)["input_ids"]
    assert theirs.model_max_length == 16
    for caption, ours, expected in zip(captions, encoder.tokenize(captions), ids, strict=True):
        assert ours.tolist() == expected, caption
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    tokenizer, longest = text.load_clip_tokenizer(tmp_path)
    assert longest == 16
    params, config = clip.load_clip(bundle / "text_encoder")
    again = text.ClipTextEncoder(tokenizer, config, params=params, max_tokens=16)
    np.testing.assert_array_equal(again.tokenize(captions), ids)


@pytest.mark.parity
def test_agrees_with_transformers_from_caption_to_states(encoder, bundle):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTextModel.from_pretrained(bundle / "text_encoder").eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(bundle / "tokenizer")
    inputs = tokenizer(CAPTIONS + ODD, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**inputs).last_hidden_state.numpy()
        unmasked = theirs(inputs["input_ids"]).last_hidden_state.numpy()
    out = encoder(CAPTIONS + ODD)
    plain = [i for i, caption in enumerate(CAPTIONS + ODD) if text.EOS not in caption]
    mask = np.asarray(out.mask)
    np.testing.assert_array_equal(mask[plain], inputs["attention_mask"].numpy()[plain] == 1)
    real = np.abs((np.asarray(out.tokens) - expected)[mask]).max()
    assert real <= 1e-5 * np.abs(expected).max()
    assert np.abs(np.asarray(out.tokens) - unmasked).max() <= 1e-5 * np.abs(unmasked).max()


def random_captions(count: int) -> list[str]:
    """Random characters of several scripts, punctuation and spaces."""
    rng = np.random.default_rng(0)
    pool = [
        *map(chr, range(32, 127)),
        *"\u00e9\u00fc\u00df\u0131\u0130\u0301\u4e2d\u0416\u06f5\u20ac\u2028\u00a0\t",
    ]
    return ["".join(rng.choice(pool, rng.integers(1, 40))) for _ in range(count)]
