"""The encoders of `pinxit prepare`: seen to before anything is fetched, loaded once, in one process
where they take the devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from pinxit.cli.main import main
from pinxit.config import UsageError
from pinxit.data.prepared.manifest import Manifest
from pinxit.devices.hardware import check_encoder_dtype
from pinxit.encoders import autoencoder
from pinxit.encoders.autoencoder import downsample_of, load_autoencoder
from pinxit.prepare.encoders import check_devices, encodes_here
from pinxit.prepare.engines.choose import in_this_process
from pinxit.prepare.engines.local import InlineEngine, LocalEngine
from pinxit.prepare.engines.ranks import RankEngine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of captioned PNG files."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(6):
        rng = np.random.default_rng(i)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"red light from the left, number {i}")
    return folder


def words(pictures: Path, out: Path, bundle: Path, *more: object) -> list[str]:
    given = ["prepare", "folder", "--dataset_path", pictures, "--out", out, "--vae", bundle]
    given += ["--image_size", 16, "--unit_rows", 2, "--encode_batch", 4, "--images.workers", 1]
    return [str(word) for word in [*given, "--workers", 1, *more]]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--image_size", 17], "image_size: 17 is not divisible by the autoencoder's factor"),
        (["--images.buckets", "16", "16", "18", "15"], "images.buckets: "),
        (["--image_size", 15, "--images.bucket_step", 5], "images.bucket_step: 5 is not divisible"),
        (["--vae", "nowhere/"], "'nowhere/' is neither a known name nor a directory"),
        (["--vae", "EMPTY"], "config.json"),
        (["--vae", "BARE"], "diffusion_pytorch_model.safetensors"),
        (["--store_text", 1, "--text_encoder", "nowhere/"], "'nowhere/' is neither a known name"),
    ],
)
def test_what_would_fail_after_all_fetching_fails_before(
    pictures: Path, bundle: Path, tmp_path: Path, more: list[object], message: str, capsys
):
    bare = tmp_path / "bare"  # a config, and no weights
    bare.mkdir()
    (bare / "config.json").write_text((bundle / "vae" / "config.json").read_text())
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": tmp_path / "empty", "BARE": bare}
    given = [places.get(str(word), word) for word in more]
    out = tmp_path / "set"
    assert main(words(pictures, out, bundle, "--engine", "inline", *given)) == 2
    assert message in capsys.readouterr().err and not out.exists()
    # Images alone need no autoencoder.
    if "--vae" in more:
        given = words(pictures, out, bundle, "--engine", "inline", *given, "--stage", "images")
        assert main(given) == 0


def test_the_images_that_are_there_are_looked_at_for_the_second_stage(
    pictures: Path, bundle: Path, tmp_path: Path, capsys
):
    given = words(pictures, tmp_path / "set", bundle, "--engine", "inline", "--image_size", 17)
    assert main([*given, "--stage", "images"]) == 0
    assert main([*given, "--stage", "latents"]) == 2
    assert "the autoencoder's factor (17 x 17); valid: multiples of 2" in capsys.readouterr().err


def test_the_factor_is_that_of_the_loaded_autoencoder(bundle: Path):
    for source in ("tiny", "none", str(bundle), bundle / "vae"):
        assert downsample_of(source) == load_autoencoder(source).stats.downsample


def test_an_accelerator_is_for_one_process(monkeypatch):
    ray = InlineEngine()
    ray.name = "ray"
    cases = [(InlineEngine(), 2, True), (LocalEngine(), 1, True), (LocalEngine(), 2, False)]
    cases += [(RankEngine(0, 2), 1, True), (RankEngine(0, 2), 2, False), (ray, 1, False)]
    for engine, workers, here in cases:
        assert encodes_here(engine, workers) == here
        check_devices(engine, workers)  # on a CPU all is well
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for engine, workers, here in cases:
        if here:
            check_devices(engine, workers)
            continue
        with pytest.raises(
            UsageError, match=r"on a gpu|for a gpu, because one process takes all devices"
        ):
            check_devices(engine, workers)


def test_bfloat16_is_not_for_old_cards(monkeypatch):
    check_encoder_dtype("bfloat16")

    class Card:
        platform, device_kind, compute_capability = "gpu", "Tesla V100", "7.0"

    monkeypatch.setattr(jax, "local_devices", lambda: [Card()])
    check_encoder_dtype("float32")
    with pytest.raises(
        UsageError, match=r"encoder_dtype.*not supported on a Tesla V100; valid: float32"
    ):
        check_encoder_dtype("bfloat16")
    Card.compute_capability = "8.0"
    check_encoder_dtype("bfloat16")


def test_a_share_may_be_done_in_this_process():
    units = list(range(5))
    for engine in (LocalEngine(), RankEngine(1, 2)):
        here = in_this_process(engine)
        assert here.share(units) == engine.share(units) and here.name in (engine.name, "inline")
        results = list(here.map(lambda unit: os.getpid(), here.share(units), workers=1))
        assert {result.value for result in results} == {os.getpid()}


@pytest.mark.parametrize("engine", [["inline"], ["rank", "--rank", "0", "--world", "1"]])
def test_weights_are_read_once_and_by_this_process(
    pictures: Path, bundle: Path, tmp_path: Path, monkeypatch, engine: list[str]
):
    from pinxit.encoders import text_encoder_catalogue as text

    read: list[str] = []

    def counted(name, real):
        def load(*given, **more):
            read.append(name)
            return real(*given, **more)

        return load

    monkeypatch.setattr(autoencoder, "load_autoencoder", counted("vae", load_autoencoder))
    monkeypatch.setattr(text, "load_text_encoder", counted("text", text.load_text_encoder))
    given = words(pictures, tmp_path / "set", bundle, "--store_text", 1, "--text_encoder", bundle)
    assert main([*given, "--engine", *engine]) == 0
    assert sorted(read) == ["text", "vae"]
    assert Manifest.read(tmp_path / "set").latents["count"] == 6


SHARDED = """
import json, sys
import jax
from pinxit.prepare.encoders import MakeEncoders
from pinxit.devices import partition_rules as sharding
sharding.MINIMUM = 64  # the toy's arrays are small
where = sys.argv[1]
loaded = MakeEncoders(where, "float32", where, None, "stock").load()
part = loaded.text[1]
cut = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(part.params)}
whole = max(leaf.addressable_shards[0].data.size / leaf.size
            for leaf in jax.tree.leaves(part.params) if leaf.ndim == 2)
tokens = loaded.ready().encode_text(["red light", "blue light from the right"]).tokens
print(json.dumps([sorted(cut), whole, float(abs(tokens).sum())]))
"""


def test_a_text_encoder_is_cut_over_the_devices_and_says_the_same(bundle: Path):
    found = []
    for count in (1, 2):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        }
        command = [sys.executable, "-c", SHARDED, str(bundle)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert found[0][:2] == [[1], 1.0] and found[1][:2] == [[2], 0.5]
    assert found[0][2] == pytest.approx(found[1][2], rel=1e-5)
