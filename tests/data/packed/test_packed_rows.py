"""Packed rows: the rows, numbers and order of the unpacked dataset, and what damage costs."""

import errno
import json
import shutil

import numpy as np
import packed_toys  # pyrefly: ignore
import prepared_toys as toys  # pyrefly: ignore
import pytest
from memory_store import MemoryStore  # pyrefly: ignore

from pinxit.config import UsageError
from pinxit.data.bucketed_loader import BucketedLoader
from pinxit.data.loader import Loader
from pinxit.data.packed import pack_reader, packed_manifest
from pinxit.data.packed.pack_index import PackIndex, index_name
from pinxit.data.packed.pack_reader import verify_pack
from pinxit.data.packed.packed_manifest import PackedManifest, is_packed, read_packed
from pinxit.data.prepared import prepared_rows
from pinxit.data.prepared.dataset import is_dataset, read_manifest
from pinxit.data.prepared.manifest import Manifest, is_prepared
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.data.prepared.shards import DamagedShard
from pinxit.data.stores.byte_store import LocalStore

SIZES = (7, 5, 8, 1, 9)
COUNT = sum(SIZES)
WIDE = (1, 2, 5, 8, 12, 13, 20, 25, 26, 28)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Two shapes, 20 square and 10 wide rows, with text."""
    return toys.latent_dataset(tmp_path_factory.mktemp("unpacked"), SIZES, text=True, wide=WIDE)


@pytest.fixture(scope="module")
def packed(unpacked, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed")
    packed_toys.packed(unpacked, out)
    return out


@pytest.fixture
def root(packed, tmp_path):
    """A packed dataset to damage."""
    return shutil.copytree(packed, tmp_path / "set")


def rows(root, **more) -> PreparedRows:
    return PreparedRows(root, columns=toys.numbers, **more)


def equal(one, other) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])


def pack_of(root, row: int, kind: str = "latents"):
    """The pack of a row, and the range of its record."""
    manifest = read_packed(str(root))
    start = 0
    for shape in manifest.kinds[kind]:
        for pack in shape.packs:
            if row < start + pack.rows:
                index = PackIndex.from_bytes((root / index_name(pack.name)).read_bytes(), "x")
                return root / pack.name, index.place(row - start)
            start += pack.rows
    raise AssertionError


def test_every_row_has_its_number_and_its_bytes(unpacked, packed):
    old, new = rows(unpacked, text=True), rows(packed, text=True)
    assert len(new) == len(old) == COUNT and new.buckets == old.buckets
    assert len(read_packed(str(packed)).packs("latents")) > 4
    random = np.random.default_rng(0)
    for bucket in old.buckets:
        order = random.permutation(np.arange(bucket.start, bucket.stop))
        equal(new.take(order), old.take(order))
        assert new.meta(order) == old.meta(order) and new.captions(order) == old.captions(order)
    one = rows(packed, shape=(2, 4, 3))
    equal(one.take(np.arange(10)), rows(unpacked, shape=(2, 4, 3)).take(np.arange(10)))
    with pytest.raises(UsageError, match=r"shape: '4x4x3' .*2x2x3 \(20\), 2x4x3 \(10\)"):
        rows(packed, shape=(4, 4, 3))
    with pytest.raises(IndexError):
        new.take(np.array([COUNT]))
    assert new.damaged == {} and new.verify_all() == {}
    new.close()


@pytest.mark.parametrize("held_out", [0, 1, 5, 8])
def test_batches_and_held_out_rows_are_those_of_the_unpacked_dataset(unpacked, packed, held_out):
    loaders = []
    for root in (unpacked, packed):
        found = rows(root)
        loaders.append((found, found.hold_out(held_out)))
    np.testing.assert_array_equal(loaders[0][1], loaders[1][1])
    assert loaders[0][0].buckets == loaders[1][0].buckets
    one, other = (
        BucketedLoader(found, buckets=found.buckets, batch_size=3, seed=4) for found, _ in loaders
    )
    for step in range(20):
        equal(one.batch(step), other.batch(step))


@pytest.mark.parametrize("count", range(9))
def test_the_images_of_held_out_rows_are_packed(unpacked, packed, count):
    """Up to the eight that were asked for, in whatever way they are divided among the shapes."""
    found = rows(packed)
    keys = [meta["key"] for meta in found.meta(found.hold_out(count))]
    old = rows(unpacked, kind="images")
    new = rows(packed, kind="images", only_held_out=True)
    assert new.buckets == old.buckets and new.find(keys) == old.find(keys)
    assert new.find(keys).keys() == set(keys)
    for number in new.find(keys).values():
        equal(new.take(np.array([number])), old.take(np.array([number])))
    np.testing.assert_array_equal(new.hold_out(count), old.hold_out(count))


def test_images_that_are_not_packed_are_refused(packed, unpacked, tmp_path):
    with pytest.raises(UsageError, match="only the images of 8 held-out rows; pack it with a"):
        rows(packed, kind="images")
    with pytest.raises(IndexError, match="row 0 is not stored"):
        rows(packed, kind="images", only_held_out=True).take(np.arange(1))
    packed_toys.packed(unpacked, tmp_path, held_out_images=0)
    with pytest.raises(UsageError, match="holds no images; it holds: latents, text"):
        rows(tmp_path, kind="images", only_held_out=True)


def test_a_dataset_without_latents_is_packed_with_all_images(tmp_path):
    toys.image_dataset(tmp_path / "set", SIZES)
    manifest = packed_toys.packed(tmp_path / "set", tmp_path / "packed", held_out_images=0)
    assert manifest.contents == ("images",) and manifest.held_out_images is None
    old, new = (rows(tmp_path / name, kind="images") for name in ("set", "packed"))
    equal(new.take(np.arange(COUNT)), old.take(np.arange(COUNT)))


def test_the_fingerprint_and_statistics_carry_over(unpacked, packed):
    old, new = read_manifest(unpacked), read_manifest(packed)
    assert isinstance(old, Manifest) and isinstance(new, PackedManifest)
    assert new.fingerprint() == old.fingerprint() and new.identity == old.identity
    assert (new.rows, new.kept, new.counts) == (old.rows, old.kept, old.counts)
    assert new.text == old.text
    for name in ("mean", "std", "count"):
        assert new.latents[name] == old.latents[name]
    assert new.latents["shapes"] == [{"2x2x3": 20, "2x4x3": 10}]
    assert is_packed(str(packed)) and is_dataset(str(packed)) and is_dataset(str(unpacked))
    assert not is_packed(str(unpacked)) and not is_prepared(str(packed))
    text = (packed / "packed.json").read_text()
    assert "00003-000" not in text, "no line for a unit"


def test_a_batch_reads_exactly_its_rows(packed, monkeypatch):
    """One range for each record, one index for each pack, and nothing else."""
    store = MemoryStore()
    store.fill(packed)
    monkeypatch.setattr(prepared_rows, "open_store", lambda root: store)
    found = rows(packed)
    packs = {pack_of(packed, row)[0].name for row in range(8)}
    found.take(np.arange(8))
    lengths = [stop - start for _, (start, stop) in (pack_of(packed, row) for row in range(8))]
    assert store.counts == {"read": len(packs), "range": 8, "bytes": sum(lengths)}
    found.take(np.arange(8))
    assert store.counts["read"] == len(packs) and store.counts["range"] == 16


def test_the_caller_may_wrap_the_store(packed):
    store = MemoryStore()
    store.fill(packed)
    wrapped: list[str] = []

    def patient(inner) -> MemoryStore:
        wrapped.append(inner.root)
        return store

    found = rows(packed, patience=patient)
    found.take(np.arange(5))
    assert wrapped == [str(packed)] and store.counts["range"] == 5


def test_a_damaged_record_costs_one_row(root):
    path, (start, _) = pack_of(root, 3)
    packed_toys.flip(path, start + 200)
    said: list[str] = []
    found = rows(root, say=said.append)
    reference = rows(root)
    batches = [found.take(np.arange(20)) for _ in range(2)]
    assert found.replaced == 2 and len(said) == 1
    name = f"packs/{path.name}"
    assert f"{name}: 1 record does not match the stored CRC-32" in said[0]
    assert list(found.damaged) == [name]
    numbers = rows(root).take(np.arange(20))["number"]
    np.testing.assert_array_equal(batches[0]["number"], batches[1]["number"])
    np.testing.assert_array_equal(batches[0]["number"], numbers)
    # every other row is where it was, and the replacement is another row of the same shape
    expected = [reference.take(np.array([row]))["number"][0] for row in range(20) if row != 3]
    assert np.delete(batches[0]["number"], 3).tolist() == expected
    assert batches[0]["number"][3] in expected


def test_replacements_are_never_held_out_and_held_out_rows_are_not_replaced(root):
    found = rows(root)
    found.too_damaged = lambda reason: None  # two of 30 rows are more than 5 %
    apart = found.hold_out(8)
    victim = int(apart[0])
    for row in (2, victim):
        path, (start, _) = pack_of(root, row)
        packed_toys.flip(path, start + 200)
    held = set(rows(root).meta(apart)[i]["key"] for i in range(1, len(apart)))
    for _ in range(3):
        assert found.meta(np.array([2]))[0]["key"] not in held
    assert found.sound(apart).tolist() == apart.tolist()[1:]


def test_damaged_text_costs_one_row(root):
    path, (start, _) = pack_of(root, 5, "text")
    packed_toys.flip(path, start + 200)
    assert rows(root).take(np.arange(20))["number"].size == 20
    found = rows(root, text=True)
    found.take(np.arange(20))
    assert found.replaced == 1 and list(found.damaged) == [f"packs/{path.name}"]


@pytest.mark.parametrize("damage", ["missing", "cut", "no index", "flipped index", "other index"])
def test_a_lost_pack_ends_reading_beyond_five_percent(root, damage):
    manifest = read_packed(str(root))
    pack, other = manifest.packs("latents")[:2]
    path, index = root / pack.name, root / index_name(pack.name)
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(b"")
    elif damage == "no index":
        index.unlink()
    elif damage == "flipped index":
        packed_toys.flip(index)
    else:
        shutil.copy(root / index_name(other.name), index)
    found = rows(root)
    with pytest.raises(DamagedShard, match=rf"{pack.rows} of 30 rows .*pinxit pack … --out"):
        found.take(np.arange(20))
    said: list[str] = []
    found.too_damaged = said.append
    numbers = found.take(np.arange(20))["number"]
    assert said and found.replaced == pack.rows and len(set(numbers)) == 20 - pack.rows
    assert verify_pack(LocalStore(root), pack)
    assert not verify_pack(LocalStore(root), other)


def test_errors_of_the_network_are_retried_and_then_blame_no_file(packed, monkeypatch):
    monkeypatch.setattr(pack_reader, "PAUSES", (0.0, 0.0))
    store = MemoryStore()
    store.fill(packed)
    monkeypatch.setattr(prepared_rows, "open_store", lambda root: store)
    name = read_packed(str(packed)).packs("latents")[0].name
    error = OSError(errno.ETIMEDOUT, "Connection timed out")
    store.failures = {index_name(name): [error], name: [error, error]}
    equal(rows(packed).take(np.arange(20)), rows(packed).take(np.arange(20)))
    store.failures = {name: [error] * 9}
    found = rows(packed)
    with pytest.raises(DamagedShard, match="is unreadable: ETIMEDOUT") as caught:
        found.take(np.arange(20))
    assert "pinxit pack" not in str(caught.value)


def test_a_bit_that_was_flipped_on_the_way_is_read_again(packed, monkeypatch):
    store = MemoryStore()
    store.fill(packed)
    real, broken = store.ranges, []

    def once(ranges):
        contents = real(ranges)
        if not broken:
            broken.append(contents[0])
            contents[0] = contents[0][:-1] + bytes([contents[0][-1] ^ 1])
        return contents

    monkeypatch.setattr(store, "ranges", once)
    monkeypatch.setattr(prepared_rows, "open_store", lambda root: store)
    found = rows(packed)
    found.take(np.arange(20))
    assert broken and found.replaced == 0 and found.damaged == {}


def test_verifying_everything_finds_each_damaged_record(root):
    for row in (1, 24):
        path, (start, _) = pack_of(root, row)
        packed_toys.flip(path, start + 200)
    found = rows(root)
    found.too_damaged = lambda reason: None
    assert len(found.verify_all()) == 2


def test_hosts_read_disjoint_parts_of_the_same_batches(packed, unpacked):
    whole = Loader(rows(unpacked), batch_size=8, seed=5, count=20)
    parts = [
        Loader(rows(packed), batch_size=8, seed=5, count=20, part=np.arange(h, 8, 4))
        for h in range(4)
    ]
    for step in range(5):
        batch = whole.batch(step)
        for host, part in enumerate(parts):
            mine = part.batch(step)
            for name in batch:
                np.testing.assert_array_equal(mine[name], batch[name][host::4])


def test_a_damaged_manifest_is_refused(root):
    path = root / "packed.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"format": 9}))
    with pytest.raises(UsageError, match="format 9 is unknown; valid: 1"):
        rows(root)
    raw["counts"]["ok"] += 1
    path.write_text(json.dumps(raw))
    with pytest.raises(UsageError, match="its hash differs"):
        rows(root)
    path.write_text(path.read_text()[:100])
    with pytest.raises(UsageError, match="cannot be read"):
        rows(root)


def test_a_url_names_a_packed_dataset(packed, monkeypatch):
    store = MemoryStore("s3://bucket/set")
    monkeypatch.setattr(packed_manifest, "open_store", lambda root: store)
    monkeypatch.setattr(prepared_rows, "open_store", lambda root: store)
    monkeypatch.setattr(packed_manifest, "_MANIFESTS", {})
    assert not is_dataset("s3://bucket/set")
    with pytest.raises(UsageError, match=r"only packed datasets .*pinxit pack DIR --out s3://buck"):
        read_manifest("s3://bucket/set")
    store.fill(packed)
    assert is_dataset("s3://bucket/set")
    equal(rows("s3://bucket/set").take(np.arange(9)), rows(packed).take(np.arange(9)))
    asked = store.counts["exists"]
    assert is_dataset("s3://bucket/set") and store.counts["exists"] == asked, "asked once"
    for url in ("s3://bucket/a/t.parquet", "gs://bucket/*", "s3://bucket/x.tar"):
        assert not is_dataset(url) and store.counts["exists"] == asked, "a file is no dataset"
    assert not is_dataset("https://host/table.parquet") and not is_dataset("hf://datasets/x")
