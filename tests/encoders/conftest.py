"""For tests of the encoders: a minute T5 with the files that Hugging Face's have."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest
from tiny_t5 import SIZES, sentencepiece_model, t5_pieces

from pinxit.encoders import t5
from pinxit.encoders.t5 import T5Config


@pytest.fixture(scope="session")
def t5_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat directory: config, weights and ``spiece.model`` of a T5 of version 1.1."""
    root = tmp_path_factory.mktemp("t5")
    config = T5Config(**SIZES, feed_forward_proj="gated-gelu")
    t5.save_t5(root, t5.init_t5(config, jax.random.key(3)), config)
    (root / "spiece.model").write_bytes(sentencepiece_model(t5_pieces()))
    return root
