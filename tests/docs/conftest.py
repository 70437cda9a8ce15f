"""The folder in which the documentation's commands run, and the world without a network."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from PIL import Image

from pinxit.cli.main import main
from pinxit.data.packed.packed_manifest import PACKED, PackedManifest
from pinxit.data.prepared.manifest import FORMAT, Manifest
from pinxit.picture_files import save_picture


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/scenes`, a run of two steps on pictures of 64 pixels."""
    folder = tmp_path_factory.mktemp("documentation")
    words = "train --recipe mock --name scenes --image_size 64 --max_steps 2 --dataset_size 16"
    more = "--model.depth 1 --save_interval 1 --evaluation.images 0 --sampling.steps 1"
    with contextlib.chdir(folder):
        assert main([*words.split(), *more.split()]) == 0
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, no package index, no weights in a cache, no vendor's compiler."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    empty = tmp_path.with_name(f"{tmp_path.name}-caches")
    monkeypatch.setenv("PINXIT_COMPILERS", str(empty / "compilers"))
    monkeypatch.setenv("PINXIT_PLANS", str(empty / "plans"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(empty / "hub"))


@pytest.fixture(scope="session")
def named_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the datasets and runs that the documentation's commands name, all but empty."""
    folder = tmp_path_factory.mktemp("named")
    about = {"format": FORMAT, "source": {"name": "coyo"}, "image": {"size": 256}}
    encoders = {"vae": {"name": "sd", "fingerprint": "0"}}
    manifest = Manifest({**about, "encoders": encoders}, (), {}, {}, {"count": 0, "shapes": []})
    for dataset in ("data/coyo", "DIR"):
        (folder / dataset).mkdir(parents=True)
        (folder / dataset / "images.json").write_text(json.dumps({"identity": about, "notes": {}}))
        manifest.write(folder / dataset)
    packed = PackedManifest("0", {**about, "encoders": encoders}, {}, {}, {"shapes": []})
    (folder / "data" / "coyo_packed").mkdir()
    (folder / "data" / "coyo_packed" / PACKED).write_bytes(packed.to_bytes())
    for run in ("runs/scenes", "RUN"):
        (folder / run).mkdir(parents=True)
    (folder / "prompts.txt").write_text("a red house")
    recipe = {"prompt": "a small red house", "seed": 7, "size": [8, 8], "steps": 1}
    recipe |= {"solver": "euler", "guidance_scale": 1.0, "model_hash": "", "model": ""}
    for where, prompt, seed in (
        ("pictures", "a small red house", 7),
        ("houses", "a small red house on the left, a forest at night", 3),
    ):
        changes = {"prompt": prompt, "seed": seed, "version": "0"}
        save_picture(folder / where, Image.new("RGB", (8, 8)), recipe | changes)
    return folder
