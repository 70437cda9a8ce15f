"""For all tests: strict JAX on the CPU, and tiny encoders with random weights."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import tempfile
from pathlib import Path

import checked_types
import pytest

checked_types.install()
# Before JAX is imported.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("PINXIT_NO_REEXEC", "1")
NUMBERS = itertools.count()
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
CACHE = Path(tempfile.gettempdir()) / f"pinxit-tests-{os.getuid()}-{WORKER}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ["PINXIT_FEATURES"] = str(CACHE.with_name(f"{CACHE.name}-features"))
os.environ["PINXIT_HOST_LIMITS"] = str(CACHE.with_name(f"{CACHE.name}-limits"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import huggingface_hub.constants  # noqa: E402, F401 - reads HF_HUB_OFFLINE once, before a test sets it
import jax  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def heeded_interrupts():
    """SIGINT has its effect here and in the processes that tests start. A shell starts commands in
    the background with SIGINT ignored, which they would inherit."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def kept_tables(tmp_path_factory: pytest.TempPathFactory):
    """Parts of remote tables are kept for this session only."""
    os.environ["PINXIT_TABLES"] = str(tmp_path_factory.mktemp("tables"))


@pytest.fixture(autouse=True)
def rank_promotion():
    """Arrays of different rank never combine silently."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(autouse=True)
def host_limits(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Tests do not keep the pauses that hosts of other tests asked for."""
    folder = tmp_path_factory.getbasetemp() / "limits" / str(next(NUMBERS))
    monkeypatch.setenv("PINXIT_HOST_LIMITS", str(folder))


MAPPINGS = 30_000
"""Number of memory mappings above which a test process drops its compiled programs. Linux allows
65,530, each program takes three, and the compiler crashes when there are no more."""


def mappings() -> int:
    """Returns the number of memory mappings of this process; 0 where no file tells."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 0


def drop_many_programs() -> None:
    """Drops the compiled programs if there are many."""
    if mappings() > MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True, scope="module")
def little_left():
    """Many compiled programs are dropped at the end of a module. Objects that live on are not
    looked at in each later collection of garbage, which takes seconds in a process that has run
    thousands of tests."""
    yield
    drop_many_programs()
    gc.freeze()


@pytest.fixture(autouse=True)
def few_programs(request: pytest.FixtureRequest):
    """Slow tests of one module compile so many programs that they are also dropped in between."""
    yield
    if request.node.get_closest_marker("slow"):
        drop_many_programs()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory with a minute CLIP text tower, tokenizer and autoencoder."""
    from pinxit.data.mock import COLOURS, WHERE
    from pinxit.encoders import clip, vae
    from pinxit.encoders.clip_tokenizer import train_clip_tokenizer

    root = tmp_path_factory.mktemp("bundle")
    captions = [f"{colour} light from the {side}" for colour in COLOURS for side in WHERE]
    size = train_clip_tokenizer(captions, 540, root / "tokenizer", max_tokens=16)
    text = clip.ClipTextConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    config = clip.ClipConfig(text=text, projection_dim=8)
    clip.save_clip(root / "text_encoder", clip.init_clip(config, jax.random.key(0)), config)
    shape = vae.AutoencoderKLConfig(
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=2, norm_num_groups=2
    )
    vae.save_vae(root / "vae", vae.init_vae(shape, jax.random.key(1)), shape)
    return root
