"""Our tokenizers against those of transformers, on hundreds of captions and every kind of file."""

from __future__ import annotations

import gzip
import io
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from strange_captions import ODD, PLAIN, strange_captions
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import Unigram

from pinxit.encoders.clip_tokenizer import load_clip_tokenizer, train_clip_tokenizer
from pinxit.encoders.t5_tokenizer import load_t5_tokenizer, read_sentencepiece
from pinxit.encoders.token_rows import TokenRows

pytestmark = pytest.mark.parity
CAPTIONS = strange_captions()
LENGTH = 77
SPACE = "\u2581"


@pytest.fixture(scope="module")
def clip_directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("clip")
    train_clip_tokenizer([*PLAIN * 3, *ODD], 700, root)
    return root


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    """With a ``spiece.model`` that SentencePiece trained as T5's was."""
    sentencepiece = pytest.importorskip("sentencepiece")
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*PLAIN * 20, *(caption[:200] for caption in ODD if caption)]),
        model_writer=file,
        model_type="unigram",
        vocab_size=400,
        hard_vocab_limit=False,
        character_coverage=0.99,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        num_threads=1,
    )
    root = tmp_path_factory.mktemp("model")
    (root / "spiece.model").write_bytes(file.getvalue())
    return root


@pytest.fixture(scope="module")
def json_directory(model_directory, tmp_path_factory):
    """With a ``tokenizer.json`` trained by the tokenizers library, in the form that T5's has."""
    charsmap = read_sentencepiece(model_directory / "spiece.model").charsmap
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(SPACE)]
    )
    extra = [f"<extra_id_{i}>" for i in reversed(range(100))]
    trainer = trainers.UnigramTrainer(
        vocab_size=500,
        special_tokens=["<pad>", "</s>", "<unk>", *extra],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([*PLAIN * 20, *ODD], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        "$A </s>", special_tokens=[("</s>", 1)]
    )
    root = tmp_path_factory.mktemp("json")
    written = json.loads(tokenizer.to_str())
    # transformers changes the last digit of long scores, which decides ties between pieces
    written["model"]["vocab"] = [
        [piece, round(score, 6)] for piece, score in written["model"]["vocab"]
    ]
    (root / "tokenizer.json").write_text(json.dumps(written), "utf-8")
    (root / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    return root


@pytest.fixture(scope="module")
def released_directory(tmp_path_factory):
    """OpenAI's own vocabulary of 49,408 tokens, from the package that ships it."""
    package = find_spec("open_clip")
    if package is None or package.origin is None:
        pytest.skip("needs CLIP's vocabulary: pip install --no-deps open_clip_torch")
    packed = Path(package.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    symbols = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(rest))]
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    tokens += [merge.replace(" ", "") for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    assert len(tokens) == 49408
    root = tmp_path_factory.mktemp("released")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (root / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    (root / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    return root


def theirs(kind: str, directory):
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, kind).from_pretrained(directory)


def rows(tokenizer, tokens) -> np.ndarray:
    """Of our tokenizer, by the way that the encoders go."""
    padding = tokenizer.padding
    return TokenRows(tokenizer, LENGTH, padding=padding, clean=None).ids(tokens)


def agree(ours, other) -> None:
    out = other(CAPTIONS, padding="max_length", truncation=True, max_length=LENGTH)
    for caption, row, expected in zip(
        CAPTIONS, rows(ours, CAPTIONS), out["input_ids"], strict=True
    ):
        assert row.tolist() == expected, repr(caption)


def test_the_captions_are_many_and_strange():
    assert len(set(CAPTIONS)) >= 500
    assert max(len(caption.split()) for caption in CAPTIONS) == 300


def test_clip_from_vocabulary_and_merges(clip_directory):
    tokenizer, longest = load_clip_tokenizer(clip_directory)
    assert longest == LENGTH
    agree(tokenizer, theirs("CLIPTokenizer", clip_directory))


def test_clip_with_the_vocabulary_that_was_released(released_directory):
    tokenizer, longest = load_clip_tokenizer(released_directory)
    assert longest == LENGTH
    assert tokenizer.encode("a photo of a cat").ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    agree(tokenizer, theirs("CLIPTokenizer", released_directory))


def test_clip_from_tokenizer_json(clip_directory, tmp_path):
    other = theirs("CLIPTokenizer", clip_directory)
    other.save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    agree(load_clip_tokenizer(tmp_path)[0], other)


def test_t5_from_sentencepiece(model_directory):
    ours, other = load_t5_tokenizer(model_directory), theirs("T5Tokenizer", model_directory)
    assert ours.get_vocab() == other.get_vocab()
    agree(ours, other)


def test_the_normalisation_table_matters(model_directory):
    ours = load_t5_tokenizer(model_directory)
    assert ours.encode("\uff21 \ufb01").ids == ours.encode("A fi").ids
    ours.normalizer = normalizers.NFC()
    assert ours.encode("\uff21 \ufb01").ids != ours.encode("A fi").ids


def test_t5_from_tokenizer_json(json_directory):
    agree(load_t5_tokenizer(json_directory), theirs("T5Tokenizer", json_directory))


def test_t5_from_what_transformers_saves(model_directory, tmp_path):
    other = theirs("T5Tokenizer", model_directory)
    other.save_pretrained(tmp_path)
    (tmp_path / "spiece.model").unlink(missing_ok=True)
    agree(load_t5_tokenizer(tmp_path), other)


def test_t5_agrees_with_sentencepiece_itself(model_directory):
    sentencepiece = pytest.importorskip("sentencepiece")
    processor = sentencepiece.SentencePieceProcessor(str(model_directory / "spiece.model"))
    ours = load_t5_tokenizer(model_directory)
    for caption in PLAIN:
        assert ours.encode(caption).ids == [*processor.encode(caption), 1]
