"""The second stage: latents of the very images, what is not finite left out, statistics."""

import dataclasses
import json
from functools import partial

import numpy as np
import prepare_work as work  # pyrefly: ignore
import prepared_toys as toys  # pyrefly: ignore
import pytest

from pinxit.data.prepared.manifest import Manifest, Unfinished
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.data.prepared.shards import DamagedShard
from pinxit.prepare.both_stages import run_latents
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.latents import Encoders, LatentStage, prepare_latents
from pinxit.prepare.stages import run_images

IDENTITY = {"autoencoder": "means"}


def test_latents_are_those_of_the_images_with_their_captions(tmp_path):
    toys.image_dataset(tmp_path, [5])
    record = prepare_latents("00000-000", tmp_path, encoders=toys.toy_encoders(), batch_size=2)
    images = toys.records(tmp_path / "images" / "00000-000.array_record")
    stored = toys.records(tmp_path / "latents" / "00000-000.array_record")
    assert [meta for _, meta in stored] == [meta for _, meta in images]
    assert all(arrays["latents"].dtype == np.float16 for arrays, _ in stored)
    values = np.stack([arrays["latents"] for arrays, _ in stored]).astype(np.float64)
    count, sums = record.measured["cells"], record.measured["sum"]
    np.testing.assert_allclose(np.divide(sums, count), values.mean(axis=(0, 1, 2)), rtol=1e-12)
    assert record.measured["shapes"] == {"2x2x3": 5} and record.counts == {"ok": 5}


def test_batches_have_one_size_and_no_influence(tmp_path):
    seen = set()

    def encode(images):
        seen.add(images.shape)
        return toys.encode(images)

    files = []
    for size in (2, 3, 64):
        out = tmp_path / str(size)
        toys.image_dataset(out, [7], wide=(2, 3, 6))
        record = prepare_latents("00000-000", out, encoders=Encoders(encode), batch_size=size)
        files.append(record.files)
    assert files[0] == files[1] == files[2]
    assert seen == {(n, 16, w, 3) for n in (2, 3, 64) for w in (16, 32)}


def test_the_manifest_has_the_latents_mean_and_deviation(tmp_path):
    toys.latent_dataset(tmp_path, (4, 9))
    manifest = Manifest.read(tmp_path)
    values = PreparedRows(tmp_path).take(np.arange(13))["latents"].astype(np.float64)
    np.testing.assert_allclose(manifest.latents["mean"], values.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(manifest.latents["std"], values.std(axis=(0, 1, 2)), rtol=1e-9)
    assert manifest.identity["encoders"] == IDENTITY and manifest.latents["count"] == 13
    summary = manifest.summary()
    assert (summary["kept"], summary["units"]) == (13, 2) and json.dumps(summary)


def test_what_is_not_finite_is_left_out_and_counted(tmp_path):
    toys.image_dataset(tmp_path, [6])

    def encode(images):
        latents = toys.encode(images).astype(np.float32)
        latents[1] = 1e9  # beyond float16
        return latents

    record = prepare_latents("00000-000", tmp_path, encoders=Encoders(encode), batch_size=3)
    assert record.counts == {"not_finite": 2, "ok": 4} and len(record.measured["not_finite"]) == 2

    def nowhere(images):
        return np.full_like(toys.encode(images), np.nan)

    out = tmp_path / "none"
    toys.image_dataset(out, [6])
    record = prepare_latents("00000-000", out, encoders=Encoders(nowhere))
    assert record.counts == {"not_finite": 6} and record.files == {}


def test_text_beyond_float16_is_kept_in_bfloat16(tmp_path):
    toys.image_dataset(tmp_path, [6])

    def encode_text(captions):
        plain = toys.encode_text(captions)
        tokens = np.array(plain.tokens)
        tokens[np.array([caption.endswith("3") for caption in captions]), 0, 0] = 1e5
        return dataclasses.replace(plain, tokens=tokens, pooled=None)

    make = partial(Encoders, toys.encode, encode_text)
    run_latents(LatentStage(tmp_path, make), InlineEngine(), identity=IDENTITY)
    found = PreparedRows(tmp_path, text=True).take(np.arange(6))
    assert found["text_tokens"].dtype == np.float32
    assert found["text_tokens"][3, 0, 0] == pytest.approx(1e5, rel=0.01)
    np.testing.assert_array_equal(found["text_tokens"][2, 1], [ord("o"), 1, 0.5, -1])
    assert Manifest.read(tmp_path).text["wide"] == 1


def test_a_damaged_image_shard_is_set_aside_and_made_again(tmp_path):
    engine, latents = InlineEngine(), LatentStage(tmp_path, toys.toy_encoders)
    run_images(work.stage(tmp_path), engine)
    good = toys.content(tmp_path)
    path = tmp_path / "images" / "00001-000.array_record"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    ended = run_latents(latents, engine, identity=IDENTITY)
    assert [failed.kind for failed in ended.failed] == [DamagedShard.__name__]
    assert ended.exit_code == 1 and ended.manifest is None and "1 of 3" in ended.waiting
    assert run_images(work.stage(tmp_path), engine).exit_code == 0
    assert run_latents(latents, engine, identity=IDENTITY).exit_code == 0
    assert (
        toys.content(tmp_path)["images/00001-000.array_record"]
        == good["images/00001-000.array_record"]
    )


def test_latents_follow_their_images(tmp_path):
    engine, latents = InlineEngine(), LatentStage(tmp_path, toys.toy_encoders)
    run_images(work.stage(tmp_path), engine)
    run_latents(latents, engine, identity=IDENTITY)
    count = len(PreparedRows(tmp_path))
    # Nothing to do: the manifest keeps its latents.
    assert run_images(work.stage(tmp_path), engine).manifest == Manifest.read(tmp_path)
    assert Manifest.read(tmp_path).latents is not None
    healed = work.stage(tmp_path, retry=True, web=work.ToyWeb(healed=True))
    assert run_images(healed, engine).manifest.latents is None
    with pytest.raises(Unfinished, match="second stage"):
        PreparedRows(tmp_path)
    ended = run_latents(latents, engine, identity=IDENTITY)
    assert ended.manifest.latents["count"] == ended.manifest.kept > count
    assert len(PreparedRows(tmp_path)) == ended.manifest.kept


def test_stages_come_in_order_and_encoders_do_not_mix(tmp_path):
    stage = LatentStage(tmp_path, toys.toy_encoders)
    with pytest.raises(Unfinished):
        run_latents(stage, InlineEngine(), identity=IDENTITY)
    with pytest.raises(Unfinished, match="not prepared"):
        prepare_latents("00000-000", tmp_path, encoders=toys.toy_encoders())
    toys.latent_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"encoders\.autoencoder \(was 'means', is 'sd'\)"):
        run_latents(stage, InlineEngine(), identity={"autoencoder": "sd"})
