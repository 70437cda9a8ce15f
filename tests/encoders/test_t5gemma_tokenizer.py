"""T5Gemma's tokenizer: rows on either side, masks, stored columns, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_t5gemma import GEMMA_SETTINGS, gemma_tokenizer, template, write_t5gemma, write_tokenizer

from pinxit.config import UsageError
from pinxit.encoders.t5gemma_tokenizer import load_gemma_tokenizer
from pinxit.encoders.text_columns import TextColumns
from pinxit.encoders.text_encoder_catalogue import load_text_encoder

CAPTIONS = ["a small red house", "", "under the moon, a cat"]


def encoder(directory: Path, *ends: str, **settings):
    """A tiny encoder whose rows begin and end with the tokens `ends` around ``$A``."""
    write_t5gemma(directory)
    write_tokenizer(directory, GEMMA_SETTINGS | settings, post_processor=template(*ends))
    return load_text_encoder(directory, max_tokens=24)


def pieces(text_encoder, caption: str, directory: Path) -> list[str]:
    ids = text_encoder.tokenize([caption])[0]
    return [load_gemma_tokenizer(directory).tokenizer.id_to_token(number) for number in ids]


def test_spaces_and_bytes(tmp_path):
    ours = encoder(tmp_path, "<bos>", "$A")
    row = pieces(ours, "a red  cat\u4e2d<eos>", tmp_path)
    expected = [
        "<bos>",
        "a",
        "\u2581red",
        "\u2581",
        "\u2581cat",
        "<0xE4>",
        "<0xB8>",
        "<0xAD>",
        "<eos>",
    ]
    assert row == expected + ["<pad>"] * (24 - len(expected))


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_and_masks_of_each_side(side, tmp_path):
    ours = encoder(tmp_path, "<bos>", "$A", padding_side=side)
    ids, mask = ours.tokenize(CAPTIONS), np.asarray(ours(CAPTIONS).mask)
    lengths = [len(load_gemma_tokenizer(tmp_path).tokenizer.encode(c).ids) for c in CAPTIONS]
    assert mask.sum(axis=1).tolist() == lengths and lengths[1] == 1
    places = np.arange(24)[:: 1 if side == "right" else -1]
    np.testing.assert_array_equal(mask, places[None] < np.array(lengths)[:, None])
    assert not ids[~mask].any() and ids[mask].all()
    assert ours.truncated(["a " * 9, "a " * 40]).tolist() == [False, True]
    full = ours.tokenize(["a " * 40])[0]
    assert full[0] == 2 and full.all()  # the tail is lost, on either side


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_empty_prompt_may_have_no_token(side, tmp_path):
    ours = encoder(tmp_path, "$A", padding_side=side)
    out = ours(["", "a cat"])
    mask = np.asarray(out.mask)
    assert not mask[0].any() and mask[1].sum() == 2
    assert np.isfinite(out.tokens).all()


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("ends", [("<bos>", "$A"), ("$A",)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_columns_keep_every_token(side, ends, cache, tmp_path):
    ours = encoder(tmp_path / "encoder", *ends, padding_side=side)
    text = TextColumns(ours, cache=cache)
    columns = text.columns(CAPTIONS, folder=tmp_path / "text", track=lambda items, *_: iter(items))
    frozen = text.frozen(columns)
    stored, whole = text.conditioning(frozen, columns), ours(CAPTIONS)
    assert stored.tokens.shape[1] == 16 < 24
    for row in range(3):
        mine, theirs = np.asarray(stored.mask)[row], np.asarray(whole.mask)[row]
        assert mine.sum() == theirs.sum()
        np.testing.assert_allclose(
            np.asarray(stored.tokens)[row, mine], np.asarray(whole.tokens)[row, theirs], atol=5e-3
        )
    assert frozen["null"].mask.sum() == len(ends) - 1
    empty = np.asarray(whole.tokens)[1, np.asarray(whole.mask)[1]]
    null = np.asarray(frozen["null"].tokens)[np.asarray(frozen["null"].mask)]
    np.testing.assert_allclose(null, empty, atol=5e-3)


def test_columns_of_captions_without_tokens(tmp_path):
    ours = encoder(tmp_path / "encoder", "$A")
    text = TextColumns(ours, cache=True)
    columns = text.columns(["", ""], folder=tmp_path, track=lambda items, *_: iter(items))
    assert columns["text_tokens"].shape == (2, 8, 32) and not columns["text_mask"].any()


def test_it_joins_a_clip(bundle, tmp_path):
    second = encoder(tmp_path, "$A", padding_side="left")
    joint = load_text_encoder(f"{bundle}+{tmp_path}", max_tokens=24)
    assert joint.kind == "clip+t5gemma" and joint.max_tokens == 16 + 24
    ours, alone = joint(CAPTIONS), second(CAPTIONS)
    np.testing.assert_array_equal(np.asarray(ours.mask)[:, 16:], alone.mask)
    np.testing.assert_allclose(np.asarray(ours.tokens)[:, 16:, -32:], alone.tokens, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "changes", "words"),
    [
        ({"padding_side": "both"}, {}, "padding_side is 'both'; known: left, right"),
        ({"truncation_side": "left"}, {}, "truncation_side is 'left'; known: right"),
        ({"tokenizer_class": "T5Tokenizer"}, {}, "tokenizer_class is 'T5Tokenizer'; T5Gemma has"),
        ({"pad_token": "<nothing>"}, {}, "lacks '<nothing>', the padding token"),
        ({"pad_token": 5}, {}, "pad_token is 5; it must be text"),
        ({}, {"normalizer": None}, r"normalizer \(None\) is not the one"),
        ({}, {"normalizer": {"type": "NFKC"}}, r"normalizer \('NFKC'\) is not the one"),
        ({}, {"pre_tokenizer": {"type": "ByteLevel"}}, "pre_tokenizer is 'ByteLevel'"),
        ({}, {"model": {"type": "Unigram"}}, "type is 'Unigram'; T5Gemma requires 'BPE'"),
        ({}, {"model": 5}, "type is None; T5Gemma requires 'BPE'"),
        (
            {},
            {"model": gemma_tokenizer()["model"] | {"byte_fallback": False}},
            "byte_fallback is False; T5Gemma requires True",
        ),
        (
            {},
            {"model": gemma_tokenizer()["model"] | {"dropout": 0.1}},
            "dropout is 0.1; T5Gemma requires None",
        ),
        (
            {},
            {"model": gemma_tokenizer()["model"] | {"vocab": [], "merges": 5}},
            "is not a tokenizer",
        ),
    ],
)
def test_a_tokenizer_is_refused_in_one_line(settings, changes, words, tmp_path):
    write_tokenizer(tmp_path, GEMMA_SETTINGS | settings, **changes)
    with pytest.raises(UsageError, match=words) as error:
        load_gemma_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_truncated_tokenizer_is_refused(tmp_path):
    path = write_tokenizer(tmp_path) / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UsageError, match=r"tokenizer\.json"):
        load_gemma_tokenizer(tmp_path)


@pytest.mark.parametrize("length", [1, 65])
def test_rows_have_the_length_of_the_positions_at_most(length, tmp_path):
    write_t5gemma(tmp_path)
    with pytest.raises(UsageError, match=f"max_tokens: {length} is out of range; valid: 2 to 64"):
        load_text_encoder(tmp_path, max_tokens=length)


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path):
    write_t5gemma(tmp_path, vocab_size=100)
    with pytest.raises(
        UsageError, match=r"the tokenizer has \d+ tokens, but the text tower only 100"
    ):
        load_text_encoder(tmp_path, max_tokens=8)
