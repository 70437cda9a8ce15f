"""CLIP's embeddings and the CLIP score against transformers and torchmetrics."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pinxit.encoders.clip_tokenizer import train_clip_tokenizer
from pinxit.evaluate.clip_score import scores
from pinxit.evaluate.networks import feature_networks

pytestmark = pytest.mark.parity
CAPTIONS = ["a red house at night", "Two small boats!", "blue " * 40]
NETWORK = "clip_16x2_8_32"


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Pictures that are square, wide and high, larger and smaller than the tower's input."""
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (*sides, 3), np.uint8) for sides in ((9, 9), (10, 23), (31, 7))]
    sizes = [(64, 64), (101, 45), (33, 147)]
    return [
        np.asarray(Image.fromarray(picture).resize(size))
        for picture, size in zip(small, sizes, strict=True)
    ]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> SimpleNamespace:
    """A random CLIPModel that transformers wrote in float16, and its processor."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    root = tmp_path_factory.mktemp("clip")
    size = train_clip_tokenizer(CAPTIONS * 3, 560, root, max_tokens=20)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = transformers.CLIPConfig(
        text_config=sizes
        | {"vocab_size": size, "max_position_embeddings": 20}
        | {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1},
        vision_config=sizes | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.half().save_pretrained(root)
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    images.save_pretrained(root)
    processor = transformers.CLIPProcessor(
        image_processor=images, tokenizer=transformers.CLIPTokenizer.from_pretrained(root)
    )
    return SimpleNamespace(root=root, model=model.float().eval(), processor=processor, torch=torch)


def outputs(theirs: SimpleNamespace, pictures: list[np.ndarray], captions: list[str]):
    images = [Image.fromarray(picture) for picture in pictures]
    inputs = theirs.processor(
        text=captions, images=images, padding=True, truncation=True, return_tensors="pt"
    )
    with theirs.torch.no_grad():
        return theirs.model(**inputs)


def test_embeddings_and_cosines_agree(theirs, pictures):
    pairs = feature_networks(clip=str(theirs.root))[1]
    rows = pairs(pictures, CAPTIONS)
    out = outputs(theirs, pictures, CAPTIONS)
    np.testing.assert_allclose(rows[:, :12], out.image_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(rows[:, 12:], out.text_embeds.numpy(), atol=1e-5)
    all_cosines = (out.logits_per_image / theirs.model.logit_scale.exp()).detach().numpy()
    np.testing.assert_allclose(pairs.cosines(rows), np.diag(all_cosines), atol=1e-5)
    shuffled = pairs.cosines(rows, np.roll(rows, -1, axis=0))
    np.testing.assert_allclose(shuffled, [all_cosines[i, (i + 1) % 3] for i in range(3)], atol=1e-5)
    assert list(pairs.cut(CAPTIONS)) == [False, False, True]


def test_cmmd_crops_before_it_resizes(theirs, pictures):
    (images,) = feature_networks(clip=str(theirs.root))[0]
    assert images.name == NETWORK
    squares = []
    for picture in pictures:
        high, wide, _ = picture.shape
        side = min(high, wide)
        top, left = (high - side) // 2, (wide - side) // 2
        square = Image.fromarray(picture[top : top + side, left : left + side])
        squares.append(np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC)))
    rows = images(pictures, CAPTIONS)
    embeddings = outputs(theirs, squares, CAPTIONS).image_embeds.numpy()
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(rows / lengths, embeddings, atol=1e-5)


def test_the_score_is_that_of_torchmetrics(theirs, pictures):
    pytest.importorskip("torchmetrics")
    from torchmetrics.multimodal.clip_score import CLIPScore

    pairs = feature_networks(clip=str(theirs.root))[1]
    short = [CAPTIONS[0], CAPTIONS[1], "red"]

    class Model(theirs.torch.nn.Module):
        """Returns vectors, as transformers 4 does and torchmetrics 1.9 expects."""

        config = theirs.model.config

        def get_image_features(self, values):
            return theirs.model.get_image_features(values).pooler_output

        def get_text_features(self, ids, mask):
            return theirs.model.get_text_features(ids, mask).pooler_output

    metric = CLIPScore(lambda: (Model(), theirs.processor))
    for picture, caption in zip(pictures, short, strict=True):
        metric.update(theirs.torch.from_numpy(picture.transpose(2, 0, 1).copy()), caption)
    values = dict(scores("drawn", pairs.cosines(pairs(pictures, short)), network=NETWORK))
    assert values[f"clip_score/drawn/{NETWORK}"] == pytest.approx(float(metric.compute()), rel=1e-5)


def test_the_processor_that_transformers_writes_is_understood(theirs: SimpleNamespace):
    files = [theirs.root / name for name in ("preprocessor_config.json", "processor_config.json")]
    (written,) = [Path(file) for file in files if file.is_file()]
    assert json.loads(written.read_text())["crop_size"] == {"height": 32, "width": 32}
