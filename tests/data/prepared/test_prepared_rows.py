"""Prepared rows: the same order for all readers, nothing from a damaged shard."""

import dataclasses
import json

import numpy as np
import prepared_toys as toys  # pyrefly: ignore
import pytest

from pinxit.config import UsageError
from pinxit.data.loader import Loader, Rows
from pinxit.data.prepared.manifest import Manifest, Unfinished
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.data.prepared.shards import DamagedShard

SIZES = (7, 5, 8, 1, 9)
COUNT = sum(SIZES)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return toys.latent_dataset(tmp_path_factory.mktemp("made"), SIZES, text=True)


@pytest.fixture
def root(tmp_path):
    """A dataset to damage."""
    return toys.latent_dataset(tmp_path, SIZES)


def rows(root, **more) -> PreparedRows:
    return PreparedRows(root, columns=toys.numbers, **more)


def flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_every_row_is_the_picture_of_its_number(made):
    found = rows(made)
    assert isinstance(found, Rows) and len(found) == COUNT
    order = np.random.default_rng(0).permutation(COUNT)
    batch = found.take(order)
    np.testing.assert_array_equal(batch["number"], order)
    assert batch["latents"].shape == (COUNT, 2, 2, 3) and batch["latents"].dtype == np.float32
    images = np.stack([toys.image(int(number)) for number in order])
    np.testing.assert_allclose(batch["latents"], toys.encode(images), atol=3 / 127.5)
    assert rows(made, dtype=np.float16).take(order[:2])["latents"].dtype == np.float16
    assert found.captions(order[:2]) == [f"toy {number}" for number in order[:2]]
    assert found.meta(order[:1])[0]["crop"] == [5, 0, 15, 10]
    with pytest.raises(IndexError):
        found.take(np.array([COUNT]))
    found.close()


def test_images_are_read_as_well(made):
    batch = rows(made, kind="images").take(np.arange(9, 12))
    np.testing.assert_array_equal(batch["number"], [9, 10, 11])
    wanted = np.stack([toys.image(number) for number in (9, 10, 11)])
    assert batch["images"].dtype == np.uint8 and np.ptp(batch["images"].astype(int) - wanted) <= 6


def test_text_comes_back_as_it_was_encoded(made):
    found = rows(made, text=True, suffix="_1")
    batch = found.take(np.array([3, 20, 29]))
    wanted = toys.encode_text(["toy 3", "toy 20", "toy 29"])
    # "toy 20" has six letters: padded to eight tokens, of twelve.
    np.testing.assert_array_equal(batch["text_tokens_1"], np.asarray(wanted.tokens)[:, :8])
    np.testing.assert_array_equal(batch["text_mask_1"], np.asarray(wanted.mask)[:, :8])
    np.testing.assert_array_equal(batch["text_pooled_1"], wanted.pooled)
    assert batch["text_tokens_1"].dtype == np.float16


def test_the_loader_resumes_at_every_step_of_an_epoch(made):
    def loader() -> Loader:
        return Loader(rows(made), batch_size=4, seed=3)

    full = list(loader().batches(0, 8))  # 30 rows, 32 samples: beyond the first epoch
    for start in range(8):
        resumed = list(loader().batches(start, 8))
        for one, other in zip(resumed, full[start:], strict=True):
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_hosts_read_disjoint_parts_of_the_same_batches(made, hosts):
    whole = Loader(rows(made), batch_size=8, seed=5)
    parts = [
        Loader(rows(made), batch_size=8, seed=5, part=np.arange(host, 8, hosts))
        for host in range(hosts)
    ]
    for step in range(6):
        batch = whole.batch(step)
        for host, part in enumerate(parts):
            mine = part.batch(step)
            for name in batch:
                np.testing.assert_array_equal(mine[name], batch[name][host::hosts])


def test_three_epochs_across_ten_kills_have_each_row_once_an_epoch(made):
    stops = np.sort(np.random.default_rng(2).choice(np.arange(1, 18), 10, replace=False))
    seen: list[int] = []
    for start, stop in zip([0, *stops], [*stops, 18], strict=True):
        # A new process knows the step and nothing else; it had read ahead when it was killed.
        loader = Loader(rows(made), batch_size=5, seed=7)
        batches = loader.batches(int(start), 18)
        for _ in range(start, stop):
            seen += next(batches)["number"].tolist()
        batches.close()
    epochs = np.reshape(seen, (3, COUNT))
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs.tolist())
    assert (epochs[0] != epochs[1]).any()


def test_a_damaged_shard_is_named_left_in_place_and_never_used(root):
    victim = root / "latents" / "00002-000.array_record"  # rows 12 to 19
    flip(victim)
    files = sorted(path.name for path in victim.parent.iterdir())
    said: list[str] = []
    found = rows(root, say=said.append)
    batches = [Loader(found, batch_size=6, seed=1).batch(step) for step in range(10)]
    used = np.concatenate([batch["number"] for batch in batches])
    assert not set(used) & set(range(12, 20)) and set(used) == {*range(12), *range(20, 30)}
    assert list(found.damaged) == ["latents/00002-000.array_record"]
    assert "SHA-256" in found.damaged["latents/00002-000.array_record"]
    assert len(said) == 1 and "SHA-256" in said[0]
    assert sorted(path.name for path in victim.parent.iterdir()) == files
    # Two epochs of 30 rows: 16 of the 60 samples were others in the damaged shard's place.
    assert found.replaced == 16
    # All other samples are where they always were, and the next process does the same.
    order = Loader(found, batch_size=6, seed=1)
    for step, batch in enumerate(batches):
        planned = order.row_numbers(step)
        kept = (planned < 12) | (planned >= 20)
        np.testing.assert_array_equal(batch["number"][kept], planned[kept])
        again = Loader(rows(root), batch_size=6, seed=1).batch(step)
        np.testing.assert_array_equal(again["number"], batch["number"])


def test_a_missing_shard_counts_as_damaged(root):
    (root / "latents" / "00000-000.array_record").unlink()
    found = rows(root)
    assert set(found.take(np.arange(COUNT))["number"]) == set(range(7, COUNT))
    assert "missing" in found.damaged["latents/00000-000.array_record"]


def test_a_record_that_rots_after_verification_is_noticed(root):
    found = rows(root, open_shards=1)
    found.take(np.arange(COUNT))
    flip(root / "latents" / "00004-000.array_record")
    batch = found.take(np.arange(COUNT))
    assert set(batch["number"]) == set(range(21)) and len(found.damaged) == 1


def test_too_much_damage_is_an_error_again_and_again(root):
    for name in ("00000", "00002"):
        flip(root / "latents" / f"{name}-000.array_record")
    found = rows(root)
    for _ in range(2):
        with pytest.raises(DamagedShard, match=r"2 of 5 shards .*--verify 1"):
            found.take(np.arange(COUNT))


def test_the_only_shard_must_be_good(tmp_path):
    toys.latent_dataset(tmp_path, [3])
    flip(tmp_path / "latents" / "00000-000.array_record")
    with pytest.raises(DamagedShard, match="1 of 1"):
        rows(tmp_path).take(np.arange(3))


def test_everything_can_be_verified_at_once(root):
    flip(root / "latents" / "00003-000.array_record")
    found = rows(root)
    assert list(found.verify_all(workers=2)) == ["latents/00003-000.array_record"]
    # Verified shards are not read again before use.
    assert set(found.take(np.arange(COUNT))["number"]) == set(range(COUNT)) - {20}


def test_damaged_text_takes_its_latents_with_it(tmp_path):
    toys.latent_dataset(tmp_path, SIZES, text=True)
    flip(tmp_path / "text" / "00001-000.array_record")
    found = rows(tmp_path, text=True)
    assert not set(found.take(np.arange(COUNT))["number"]) & set(range(7, 12))
    assert list(found.damaged) == ["text/00001-000.array_record"]
    assert (tmp_path / "latents" / "00001-000.array_record").exists()


def test_rows_of_a_shape_follow_one_another(tmp_path):
    toys.latent_dataset(tmp_path, (4, 3, 2), wide=(1, 2, 5, 8))
    both = rows(tmp_path)
    assert [(b.shape, b.start, b.stop) for b in both.buckets] == [
        ((2, 2, 3), 0, 5),
        ((2, 4, 3), 5, 9),
    ]
    assert both.take(np.arange(5))["number"].tolist() == [0, 3, 4, 6, 7]
    assert both.take(np.arange(5, 9))["number"].tolist() == [1, 2, 5, 8]
    with pytest.raises(ValueError, match=r"several shapes \(2x2x3, 2x4x3\)"):
        both.take(np.array([4, 5]))
    wide = rows(tmp_path, shape=(2, 4, 3))
    assert wide.take(np.arange(4))["number"].tolist() == [1, 2, 5, 8]
    assert wide.take(np.arange(4))["latents"].shape == (4, 2, 4, 3)
    with pytest.raises(UsageError, match=r"shape: '4x4x3' .*2x2x3 \(5\), 2x4x3 \(4\)"):
        rows(tmp_path, shape=(4, 4, 3))


def test_rows_are_found_by_key(made):
    found = rows(made, kind="images")
    keys = ["00000-000/00000003", "00002-000/00000000", "00004-000/00000008", "00002-000/00000099"]
    assert found.find(keys) == {keys[0]: 3, keys[1]: 12, keys[2]: 29}


def test_held_out_rows_are_the_last_of_each_bucket(tmp_path):
    toys.latent_dataset(tmp_path, (12, 12), wide=range(0, 24, 3))  # 16 square, 8 wide
    found = rows(tmp_path)
    apart = found.hold_out(6)
    assert apart.tolist() == [12, 13, 14, 15, 22, 23]
    assert [(b.start, b.stop) for b in found.buckets] == [(0, 12), (16, 22)]
    assert rows(tmp_path).hold_out(0).tolist() == []


def test_held_out_rows_never_stand_in_for_others(root):
    """All rows but the last unit's and a few are in the damaged shard: half of what could replace
    them is held out, and is not taken."""
    flip(root / "latents" / "00002-000.array_record")  # rows 12 to 19
    found = rows(root)
    apart = found.hold_out(9)
    assert apart.tolist() == list(range(21, 30))
    used = np.concatenate([found.take(np.arange(12, 20))["number"] for _ in range(2)])
    assert set(used) <= {*range(12), 20}
    # and a held-out row that is damaged is left out, not replaced
    other = rows(root)
    apart = other.hold_out(15)
    assert other.sound(apart).tolist() == [15 + 5, *range(21, 30)]


def test_a_bucket_that_is_all_damaged_is_an_error(tmp_path):
    toys.latent_dataset(tmp_path, SIZES, wide=(13, 14))
    flip(tmp_path / "latents" / "00002-000.array_record")
    found = rows(tmp_path)
    found.take(np.arange(20))
    with pytest.raises(DamagedShard, match="all rows that could replace row 28 are unusable"):
        found.take(np.array([28]))


def test_what_is_not_there_is_named(made, tmp_path):
    with pytest.raises(Unfinished, match="not a prepared dataset"):
        rows(tmp_path)
    (tmp_path / "images.json").write_text("{}")
    with pytest.raises(Unfinished, match="not finished: run the same"):
        rows(tmp_path)
    toys.image_dataset(tmp_path / "images")
    with pytest.raises(Unfinished, match="second stage"):
        rows(tmp_path / "images")
    toys.latent_dataset(tmp_path / "no text")
    with pytest.raises(ValueError, match="holds no text; it holds: images, latents"):
        rows(tmp_path / "no text", text=True)
    with pytest.raises(UsageError, match="kind: 'pixels' is unknown"):
        rows(made, kind="pixels")


def test_a_damaged_manifest_is_refused(root):
    path = root / "manifest.json"
    raw = json.loads(path.read_text())
    raw["files"]["latents"][0]["count"] = 6
    raw["files"]["latents"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="fingerprint"):
        rows(root)
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="cannot be read"):
        rows(root)
    other = dataclasses.replace(
        Manifest.read(toys.image_dataset(root / "x")), identity={"format": 9}
    )
    other.write(root)
    with pytest.raises(ValueError, match="format 9 is unknown; valid: 2"):
        rows(root)
