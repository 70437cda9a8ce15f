"""docs/encoders.md says what the code does: names, sources, sizes, settings, examples."""

from __future__ import annotations

import math
import re
from pathlib import Path

from pinxit.config import leaves
from pinxit.encoders import t5, t5gemma, weights
from pinxit.encoders.abstract_autoencoder import abstract_autoencoder
from pinxit.encoders.autoencoder import (
    AUTOENCODERS,
    DC_LARGEST_WHOLE,
    DC_TILE,
    LARGEST_WHOLE,
    TILE,
)
from pinxit.encoders.t5_text_encoder import T5_LONGEST, T5_MAX_TOKENS
from pinxit.encoders.t5gemma_text_encoder import T5GEMMA_2B, T5GEMMA_MAX_TOKENS
from pinxit.encoders.text_encoder_catalogue import TEXT_ENCODERS

PAGE = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text(encoding="utf-8")
XXL = t5.T5Config(
    d_model=4096, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
)


def table(start: str) -> dict[str, str]:
    """Name to source, of the table after the line that begins with `start`."""
    body = PAGE[PAGE.index(start) :].split("\n\n")[1]
    cells = [line.strip("| ").split(" | ") for line in body.splitlines()[2:]]
    return {row[0].strip("`"): row[-1].strip("`") for row in cells}


def test_every_text_encoder_is_named_with_its_source():
    named = table("`--text_encoder` is one of")
    assert list(named) == list(TEXT_ENCODERS)
    for name in ("clip", "t5", "t5gemma"):
        assert named[name] == TEXT_ENCODERS[name]


def test_every_autoencoder_is_named_with_its_source():
    named = table("`--vae` likewise")
    assert list(named) == list(AUTOENCODERS)
    assert [named[name] for name in ("sd", "sdxl", "dc_ae")] == [
        AUTOENCODERS[name].args[0]  # pyrefly: ignore[missing-attribute]
        for name in ("sd", "sdxl", "dc_ae")
    ]


def test_the_settings_exist():
    from pinxit.train.settings import TrainConfig

    named = set(re.findall(r"`--([\w.]+)", PAGE))
    assert len(named) >= 6
    assert named <= leaves(TrainConfig, TrainConfig()).keys()


def test_the_numbers_are_the_codes():
    parameters = sum(math.prod(s) for s in weights.flatten(t5.t5_shapes(XXL)).values())
    assert f"{parameters / 1e9:.1f} billion parameters" in PAGE
    assert f"{4 * parameters / 1e9:.0f} GB, or {2 * parameters / 1e9:.1f} GB in bfloat16" in PAGE
    own = t5gemma.t5gemma_shapes(T5GEMMA_2B)
    gemma = sum(math.prod(s) for s in weights.flatten(own).values())
    said = (
        f"has {gemma / 1e9:.1f} billion: {4 * gemma / 1e9:.1f} GB, or {2 * gemma / 1e9:.1f} GB in"
    )
    assert said in PAGE
    most = f"up to {T5GEMMA_2B.max_position_embeddings:,}, and is {T5GEMMA_MAX_TOKENS} by default"
    assert most in " ".join(PAGE.split())
    assert f"is 2 to {T5_LONGEST}, by default the {T5_MAX_TOKENS} of CLIP" in " ".join(PAGE.split())
    assert f"more than {LARGEST_WHOLE} latent cells" in PAGE
    assert f"{TILE} cells a side, neighbours sharing at least {TILE // 4}" in PAGE


def test_the_numbers_of_deep_compression_are_the_codes():
    page = " ".join(PAGE.split())
    planned = abstract_autoencoder("dc_ae")
    parameters = sum(leaf.size for leaf in weights.flatten(planned.params).values())
    assert f"`dc_ae` has {parameters / 1e6:.0f} million parameters" in page
    assert f"parameters: {4 * parameters / 1e9:.2f} GB" in page
    side, channels = 256 // planned.stats.downsample, planned.stats.channels
    assert "\N{MULTIPLICATION SIGN}".join(map(str, (side, side, channels))) in PAGE
    assert f"up to {DC_LARGEST_WHOLE:,} pixels a side is processed whole" in page
    assert f"tiles of {DC_TILE} pixels that share at least {DC_TILE // 4}" in page


def test_the_examples_run():
    names: dict = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)), names)
    shapes = (names["conditioning"].tokens.shape, names["conditioning"].mask.shape)
    assert f"# tokens {shapes[0]}, mask {shapes[1]}" in PAGE
