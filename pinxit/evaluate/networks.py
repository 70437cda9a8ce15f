"""Loads the networks that pictures are measured with: the bundle's, or those of given files."""

from __future__ import annotations

import functools
from pathlib import Path

from pinxit.config import UsageError
from pinxit.encoders.clip import ClipConfig, load_clip, open_clip
from pinxit.encoders.clip_text_encoder import ClipTextEncoder
from pinxit.encoders.text_encoder_catalogue import load_text_encoder
from pinxit.encoders.weights import bundled, resolve
from pinxit.evaluate.extractors.base import Extractor
from pinxit.evaluate.extractors.clip_features import (
    BUNDLED,
    CMMD,
    PROCESSOR,
    ClipImages,
    bundled_clip_images,
    clip_name,
)
from pinxit.evaluate.extractors.clip_pairs import ClipPairs
from pinxit.evaluate.extractors.clip_resize import PROCESSOR_FILES, check_processor
from pinxit.evaluate.extractors.inception import InceptionFeatures, load_inception
from pinxit.evaluate.extractors.judge_features import JudgeFeatures
from pinxit.evaluate.judge import load_judge

VALID_CLIP = (
    f"{BUNDLED} (the bundle's), or a directory or Hub repository of a whole CLIPModel with its "
    "tokenizer, such as openai/clip-vit-large-patch14-336"
)


def feature_networks(
    *, inception: str | None = None, clip: str | None = None
) -> tuple[list[Extractor], ClipPairs | None]:
    """Returns the networks for distances between sets, and the network for the CLIP score.

    `inception` is a file with the weights of FID's Inception v3, as `scripts/convert_inception.py`
    writes it. `clip` is a directory or repository of a CLIPModel with its tokenizer. Without either
    of them, distances have the bundle's judge and CLIP. Without `clip` there is no network for the
    CLIP score; on scenes, the evaluator `clip_score` then takes the bundle's CLIP.

    Raises `UsageError` that names the option, its value and what is valid.
    """
    networks: list[Extractor] = []
    if inception is not None:
        networks.append(InceptionFeatures(load_inception(inception)))
    pairs = None
    if clip is not None:
        images, pairs = load_clip_networks(clip)
        networks.append(images)
    if not networks:
        networks = [JudgeFeatures(load_judge()), bundled_clip()[0]]
    return networks, pairs


@functools.cache
def bundled_clip() -> tuple[ClipImages, ClipPairs]:
    """Returns the bundled CLIP, which was trained on scenes alone."""
    images = bundled_clip_images()
    return images, ClipPairs(images, _text_encoder(bundled(BUNDLED)))


def load_clip_networks(source: str, *, name: str | None = None) -> tuple[ClipImages, ClipPairs]:
    """Returns the image embeddings for CMMD and the pairs for the CLIP score of one CLIP.

    The embeddings have CMMD's preprocessing, and the pairs that of transformers' CLIPProcessor. The
    two differ for pictures that are not square. `name` names both; by default it follows from the
    shape of the vision tower. The source "tiny" is the bundled CLIP.
    """
    if source == BUNDLED:
        return bundled_clip()
    try:
        config, _ = open_clip(source)
        _check_towers(source, config)
        directory = resolve(source, allow=PROCESSOR_FILES)
        text = _text_encoder(source)
        params, vision = load_clip(source, only="vision")
        name = name or clip_name(vision)
        images, cropped = (
            ClipImages(params, vision, name=name, resize=resize) for resize in (CMMD, PROCESSOR)
        )
        check_processor(Path(directory), images.size)
    except UsageError as error:
        if str(error).startswith("clip: "):
            raise
        raise UsageError(f"clip: {source!r}: {error}") from error
    return images, ClipPairs(cropped, text)


def _check_towers(source: str, config: ClipConfig) -> None:
    missing = [f"no {name} tower" for name in ("text", "vision") if getattr(config, name) is None]
    if not missing and config.projection_dim is None:
        missing = ["no projections"]
    if config.vision is not None and config.vision.num_channels != 3:
        missing = [f"a vision tower of {config.vision.num_channels} channels"]
    if missing:
        problem = f"a CLIP with {' and '.join(missing)}"
        raise UsageError("clip", source, problem=problem, valid=VALID_CLIP)


def _text_encoder(source: str | Path) -> ClipTextEncoder:
    encoder = load_text_encoder(source)
    if not isinstance(encoder, ClipTextEncoder):
        problem = f"of the kind {encoder.kind}"
        raise UsageError("clip", str(source), problem=problem, valid=VALID_CLIP)
    return encoder
