"""From caption to states against transformers: CLIP, T5, and both in one encoder."""

from __future__ import annotations

import numpy as np
import pytest
from strange_captions import ODD, PLAIN
from tiny_t5 import SIZES

from pinxit.encoders.clip_tokenizer import EOS, train_clip_tokenizer
from pinxit.encoders.text_encoder_catalogue import load_text_encoder

pytestmark = pytest.mark.parity
CAPTIONS = [caption for caption in PLAIN + ODD if EOS not in caption]


@pytest.fixture(scope="module")
def clip_directory(tmp_path_factory):
    """A pipeline's folders: a random text tower that transformers wrote, a trained tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("clip")
    size = train_clip_tokenizer([*PLAIN * 3, *ODD], 700, root / "tokenizer")
    config = transformers.CLIPTextConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
    )
    torch.manual_seed(0)
    model = transformers.CLIPTextModel(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.save_pretrained(root / "text_encoder")
    return root


@pytest.fixture(scope="module")
def random_t5_directory(t5_directory, tmp_path_factory):
    """The tests' vocabulary with random weights that transformers wrote."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    config = transformers.T5Config(**SIZES, feed_forward_proj="gated-gelu")
    transformers.T5EncoderModel(config).save_pretrained(root)
    (root / "spiece.model").write_bytes((t5_directory / "spiece.model").read_bytes())
    return root


def their_states(model: str, tokenizer: str, *, weights, files, length: int):
    """States and mask of `CAPTIONS`, by transformers alone."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    cut = getattr(transformers, tokenizer).from_pretrained(files)
    inputs = cut(
        CAPTIONS, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    with torch.no_grad():
        out = (
            getattr(transformers, model)
            .from_pretrained(weights)
            .eval()(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        )
    mask = inputs["attention_mask"].numpy() == 1
    return out.last_hidden_state.numpy(), mask, out.get("pooler_output")


def close(ours, theirs) -> None:
    assert np.abs(np.asarray(ours) - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_clip_and_t5_agree_alone_and_joined(clip_directory, random_t5_directory):
    joint = load_text_encoder(f"{clip_directory}+{random_t5_directory}", max_tokens=60)
    out = joint(CAPTIONS)
    tokens, mask = np.asarray(out.tokens), np.asarray(out.mask)
    folders = {"weights": clip_directory / "text_encoder", "files": clip_directory / "tokenizer"}
    states, kept, pooled = their_states("CLIPTextModel", "CLIPTokenizer", **folders, length=77)
    np.testing.assert_array_equal(mask[:, :77], kept)
    close(tokens[:, :77, :16][kept], states[kept])
    close(out.pooled, pooled.numpy())
    folders = {"weights": random_t5_directory, "files": random_t5_directory}
    states, kept, _ = their_states("T5EncoderModel", "T5Tokenizer", **folders, length=60)
    np.testing.assert_array_equal(mask[:, 77:], kept)
    close(tokens[:, 77:, 16:], states)
    for part, source in zip(joint.parts, (clip_directory, random_t5_directory), strict=True):
        length = 60 if part.kind == "t5" else None
        alone = load_text_encoder(source, max_tokens=length)(CAPTIONS)
        there = slice(0, 77) if part.kind == "clip" else slice(77, None)
        width = slice(0, 16) if part.kind == "clip" else slice(16, None)
        close(tokens[:, there, width], np.asarray(alone.tokens))
