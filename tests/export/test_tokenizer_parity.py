"""Exported tokenizers in transformers: the same ids on hundreds of captions, for every source."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from exported import t5_folder
from strange_captions import ODD, PLAIN, strange_captions
from tiny_t5 import sentencepiece_model, t5_pieces

from pinxit.encoders import clip
from pinxit.encoders.clip_tokenizer import train_clip_tokenizer
from pinxit.encoders.text_encoder_catalogue import load_text_encoder
from pinxit.export.diffusers_folder import write_tokenizer
from pinxit.export.text_encoder_part import text_encoder_part

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
CAPTIONS = strange_captions()
LENGTH = 77


def clip_folder(root, **special: str):
    """Writes a minute CLIP with a vocabulary of 700 tokens; `special` replaces special tokens."""
    import jax

    size = train_clip_tokenizer([*PLAIN * 3, *ODD], 700, root)
    path = root / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | special))
    (root / "special_tokens_map.json").unlink()
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    text = clip.ClipTextConfig(vocab_size=size, num_attention_heads=1, **small)
    config = clip.ClipConfig(text=text, projection_dim=8)
    clip.save_clip(root, clip.init_clip(config, jax.random.key(0)), config)
    return root


def trained_model() -> bytes:
    """Returns a ``spiece.model`` that normalises, as T5's does."""
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
    return file.getvalue()


def source(kind: str, root):
    """Writes a text encoder of a kind, and returns its folder."""
    root.mkdir(parents=True)
    if kind == "clip":
        return clip_folder(root)
    if kind == "clip, padded with !":
        return clip_folder(root, pad_token="!")
    t5_folder(root, vocab_size=512)
    if kind == "t5, without extra ids":
        (root / "tokenizer_config.json").write_text('{"extra_ids": 0}')
    elif kind == "t5":
        (root / "spiece.model").write_bytes(sentencepiece_model(t5_pieces()))
    else:
        (root / "spiece.model").write_bytes(trained_model())
    return root


@pytest.mark.parametrize("original", [True, False], ids=["with original files", "json alone"])
@pytest.mark.parametrize(
    "kind", ["clip", "clip, padded with !", "t5", "t5, without extra ids", "t5, trained"]
)
def test_the_ids_are_the_same(tmp_path, kind, original):
    transformers = pytest.importorskip("transformers")
    folder = source(kind, tmp_path / "source")
    part = text_encoder_part(str(folder), None, instead="")
    out = tmp_path / "tokenizer"
    write_tokenizer(out, part)
    if not original:
        for path in part.tokenizer_files:
            (out / path.name).unlink()
    encoder = load_text_encoder(str(folder))
    theirs = getattr(transformers, part.tokenizer_class).from_pretrained(out)
    how = {"padding": "max_length", "max_length": LENGTH, "truncation": True}
    rows = theirs(CAPTIONS, **how)
    assert theirs.model_max_length == LENGTH == encoder.max_tokens
    ids, ours = np.array(rows["input_ids"]), encoder.tokenize(CAPTIONS)
    if kind == "clip, padded with !":
        # transformers takes a padding token for special within a caption too, so the export pads
        # with the end-of-text token. Padding has no effect on a causal encoder with a mask.
        ours = np.where(
            np.array(rows["attention_mask"], bool), ours, encoder.config.text.eos_token_id
        )
    np.testing.assert_array_equal(ids, ours)


def test_our_loaders_read_the_folder_back(tmp_path):
    for kind in ("clip, padded with !", "t5, without extra ids"):
        root = tmp_path / kind.partition(",")[0]
        folder = source(kind, root / "source")
        part = text_encoder_part(str(folder), None, instead="")
        copy = shutil.copytree(folder, root / "again")
        for name in ("spiece.model", "vocab.json", "merges.txt", "tokenizer_config.json"):
            (copy / name).unlink(missing_ok=True)
        write_tokenizer(copy / "tokenizer", part)
        one, two = load_text_encoder(str(folder)), load_text_encoder(str(copy))
        ours, again = one(CAPTIONS), two(CAPTIONS)
        mask = np.asarray(ours.mask)
        np.testing.assert_array_equal(mask, np.asarray(again.mask))
        np.testing.assert_array_equal(np.asarray(ours.tokens)[mask], np.asarray(again.tokens)[mask])
