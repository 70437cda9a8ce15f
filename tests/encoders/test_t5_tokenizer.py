"""T5's tokenizer: pieces, rows, its two kinds of file, and what is refused."""

from __future__ import annotations

import json

import pytest
from tiny_t5 import field, sentencepiece_model, t5_pieces
from tokenizers import Tokenizer

from pinxit.encoders.t5_tokenizer import load_t5_tokenizer, read_sentencepiece


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "spiece.model").write_bytes(sentencepiece_model(t5_pieces()))
    return tmp_path


@pytest.fixture
def tokenizer(directory):
    return load_t5_tokenizer(directory)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("   \n", []),
        ("a small  red\thouse", ["\u2581a", "\u2581small", "\u2581red", "\u2581house"]),
        ("ahouse", ["\u2581a", *"house"]),
        ("moon!", ["\u2581moon", "!"]),
        ("so", ["\u2581", "s", "o"]),
        ("red \u732b\u732b", ["\u2581red", "\u2581", "\u732b\u732b"]),
    ],
)
def test_pieces(tokenizer, text, pieces):
    encoding = tokenizer.encode(text)
    assert encoding.tokens == [*pieces, "</s>"]
    names = [entry[0] for entry in t5_pieces()]
    expected = [names.index(piece) if piece in names else 2 for piece in pieces]
    assert encoding.ids == [*expected, 1]


def test_extra_ids_follow_in_falling_order(directory, tokenizer):
    count = len(t5_pieces())
    assert tokenizer.get_vocab_size() == count + 100
    assert tokenizer.token_to_id("<extra_id_99>") == count
    assert tokenizer.token_to_id("<extra_id_0>") == count + 99
    assert tokenizer.encode("a<extra_id_1>").ids == [3, count + 98, 1]
    (directory / "tokenizer_config.json").write_text('{"extra_ids": 3}')
    assert load_t5_tokenizer(directory).get_vocab_size() == count + 3


def test_a_control_word_in_a_caption_is_one_token(tokenizer):
    assert tokenizer.encode("a </s> <pad>").ids[:3] == [3, 1, 0]


def test_a_symbol_of_the_user_is_one_token(tmp_path):
    pieces = [*t5_pieces(), ("<hill>", 0.0, 4)]
    (tmp_path / "spiece.model").write_bytes(sentencepiece_model(pieces))
    tokenizer = load_t5_tokenizer(tmp_path)
    assert tokenizer.encode("a<hill>").ids == [3, len(pieces) - 1, 1]


def test_the_scores_of_the_file_are_kept(directory):
    model = read_sentencepiece(directory / "spiece.model")
    assert [(piece.text, piece.score, piece.kind) for piece in model.pieces] == t5_pieces()
    assert (model.algorithm, model.charsmap) == (1, b"")


def test_tokenizer_json_says_the_same(directory, tokenizer, tmp_path):
    tokenizer.enable_truncation(3)
    other = tmp_path / "other"
    other.mkdir()
    tokenizer.save(str(other / "tokenizer.json"))
    again = load_t5_tokenizer(other)
    text = "under the small red moon, ahouse"
    assert again.encode(text).ids == load_t5_tokenizer(directory).encode(text).ids
    assert len(again.encode(text).ids) > 3


def test_tokenizer_json_comes_first(directory, tokenizer):
    tokenizer.add_tokens(["extra"])
    tokenizer.save(str(directory / "tokenizer.json"))
    assert load_t5_tokenizer(directory).token_to_id("extra") is not None


def test_no_files(tmp_path):
    with pytest.raises(ValueError, match=r"has neither tokenizer\.json nor spiece\.model"):
        load_t5_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda whole: whole[:-3], "not a complete SentencePiece model: a field of .* cut short"),
        (lambda whole: whole[:1], "the file ends in the middle of a number"),
        (lambda whole: b"", "it has no pieces"),
        (lambda whole: b"\x0f" + whole, "is of unknown kind 7"),
        (lambda whole: b"\xff" * 11 + whole, "the number before byte 10 is too long"),
        (lambda whole: field(1, 5) + whole, "a field that must be bytes is a number"),
        (lambda whole: field(1, field(2, b"ab")) + whole, "not a complete SentencePiece model"),
        (lambda whole: field(1, field(1, b"\xff")) + whole, "not a complete SentencePiece model"),
    ],
)
def test_a_damaged_model_is_refused(directory, change, words):
    path = directory / "spiece.model"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=words):
        load_t5_tokenizer(directory)


def test_models_that_are_not_t5s_are_refused(tmp_path):
    path = tmp_path / "spiece.model"
    path.write_bytes(sentencepiece_model(t5_pieces(), algorithm=2))
    with pytest.raises(ValueError, match="algorithm is 'bpe'; T5 requires 'unigram'"):
        load_t5_tokenizer(tmp_path)
    path.write_bytes(sentencepiece_model(t5_pieces()[1:]))
    with pytest.raises(ValueError, match=r"the vocabulary lacks <pad>$"):
        load_t5_tokenizer(tmp_path)
    path.write_bytes(sentencepiece_model([entry for entry in t5_pieces() if entry[2] != 2]))
    with pytest.raises(ValueError, match="has 0 unknown-token pieces"):
        load_t5_tokenizer(tmp_path)


def test_a_tokenizer_json_of_another_kind_is_refused(tokenizer, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    value = json.loads(tokenizer.to_str())
    (other / "tokenizer.json").write_text(json.dumps(value | {"post_processor": None}))
    with pytest.raises(ValueError, match="does not append '</s>' to a caption's tokens"):
        load_t5_tokenizer(other)
    Tokenizer.from_str('{"model": {"type": "BPE", "vocab": {}, "merges": []}}').save(
        str(other / "tokenizer.json")
    )
    with pytest.raises(ValueError, match="the model's type is 'BPE'; T5 requires 'Unigram'"):
        load_t5_tokenizer(other)
