"""Models on the Hub: what is fetched, when, and what works without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from fake_hub import COMMIT, MOVED, Hub, serve
from prx_folders import LATENT, WEIGHTS, awake, change_json, write_prx

from pinxit.cli.main import main
from pinxit.config import UsageError, to_json
from pinxit.hub_model import repository_of
from pinxit.model_loading import load_checkpoint
from pinxit.stored_model import Stored, read_model, write_release

PROMPT = "red light from the left"
PINNED = f"owner/net@{COMMIT}"


def files_of(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def pipeline(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prx(tmp_path_factory.mktemp("prx") / "net", bundle)


@pytest.fixture
def hub(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the pipeline, an empty cache, and an empty working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    hub = Hub(files_of(pipeline), kind="model")
    with serve(hub) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        yield hub


def fetched(hub: Hub) -> set[str]:
    """Returns the files that were asked for since the last call."""
    marks = [path.partition(f"/resolve/{COMMIT}/")[2] for path in hub.asked]
    hub.asked.clear()
    return {name for name in marks if name}


def test_a_pipeline_is_read_at_one_commit_and_only_what_is_needed(hub: Hub, pipeline: Path):
    hub.files["README.md"] = hub.files["text_encoder/pytorch_model.bin"] = b"not needed"
    settings = read_model("owner/net", weights=False)
    assert (settings.text_encoder, settings.vae, settings.name) == (PINNED, PINNED, "net")
    names = {
        *("model_index.json", "transformer/config.json", "scheduler/scheduler_config.json"),
        *("text_encoder/config.json", "tokenizer/tokenizer_config.json", "vae/config.json"),
    }
    assert fetched(hub) == names
    stored = read_model("owner/net")
    assert fetched(hub) == {f"transformer/{WEIGHTS}"}
    local = read_model(pipeline)
    assert stored == replace(local, text_encoder=PINNED, vae=PINNED, params=stored.params)
    jax.tree.map(np.testing.assert_array_equal, stored.params, local.params)
    picture = load_checkpoint("owner/net").generate(PROMPT, steps=2)
    assert {"text_encoder/model.safetensors", f"vae/{WEIGHTS}"} <= fetched(hub)
    assert picture.tobytes() == load_checkpoint(pipeline).generate(PROMPT, steps=2).tobytes()


def test_nothing_large_is_fetched_of_a_model_that_is_refused(hub: Hub):
    index = json.loads(hub.files["model_index.json"])
    hub.files["model_index.json"] = json.dumps({**index, "_class_name": "SanaPipeline"}).encode()
    with pytest.raises(UsageError, match="describes a 'SanaPipeline'; readable: PRXPipeline"):
        read_model("owner/net")
    assert not [name for name in fetched(hub) if name.endswith(".safetensors")]
    del hub.files["model_index.json"]
    hub.branches["main"] = MOVED
    with pytest.raises(UsageError, match="checkpoint: 'owner/net' is neither a Pinxit release nor"):
        read_model("owner/net")


def test_a_revision_is_read(hub: Hub):
    hub.branches["old"] = COMMIT
    hub.branches["main"] = MOVED
    assert read_model("owner/net@old", weights=False).vae == PINNED
    assert read_model(PINNED, weights=False).vae == PINNED
    with pytest.raises(UsageError, match="'owner/net' at revision 'lost' cannot be fetched from"):
        read_model("owner/net@lost")


def test_a_filled_cache_is_enough_without_a_network(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    first = load_checkpoint("owner/net").generate(PROMPT, steps=2)
    fetched(hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_checkpoint("owner/net").generate(PROMPT, steps=2).tobytes() == first.tobytes()
    assert hub.asked == []


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_one_line_says_what_to_do(
    offline: bool, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    assert main(["generate", "a", "--checkpoint", "owner/net"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("pinxit: error: 'owner/net' cannot be fetched from the Hub. On a mach")
    assert "hf download owner/net --local-dir DIR" in line and "tiny" not in line
    assert not Path("outputs").exists()


def test_a_path_here_wins_over_the_hub(hub: Hub, pipeline: Path, tmp_path: Path):
    shutil.copytree(pipeline, "owner/net")
    change_json(Path("owner/net/model_index.json"), default_sample_size=32)
    stored = read_model("owner/net")
    assert (stored.image_size, stored.vae, hub.asked) == (32, "owner/net", [])
    with pytest.raises(UsageError, match="checkpoint: 'owner/typo' is missing"):
        read_model("owner/typo")
    assert hub.asked == []
    assert repository_of("owner/typo@main") == "owner/typo@main"
    assert repository_of("other/net") == "other/net"
    assert repository_of("net") is repository_of("/a/b") is repository_of("a/b/c") is None


def test_a_release_on_the_hub(hub: Hub, bundle: Path, tmp_path: Path):
    stored = Stored(awake(LATENT), to_json(LATENT), str(bundle), str(bundle), 16, "landscapes")
    hub.files = files_of(write_release(tmp_path / "release", stored)) | {"vae/config.json": b"{}"}
    assert read_model("owner/net", weights=False) == replace(stored, params={})
    assert "model.safetensors" not in fetched(hub)
    again = read_model("owner/net")
    assert fetched(hub) == {"model.safetensors"}
    jax.tree.map(np.testing.assert_array_equal, again.params, stored.params)
    with pytest.raises(UsageError, match=r"ema: '0\.1' is not in a model of the Hub"):
        read_model("owner/net", ema="0.1")
