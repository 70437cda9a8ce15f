"""Commit records and their sum: one rename makes a unit done, and nothing else does."""

import dataclasses
import json

import prepared_toys as toys  # pyrefly: ignore
import pytest

from pinxit.data.prepared.manifest import Manifest, Unfinished
from pinxit.prepare.gather import gather
from pinxit.prepare.ledger import Ledger, safe, unit_of

IDENTITY = {"source": {"name": "toy", "revision": "1"}, "filters": {"min_side": 256}}


def test_a_commit_is_read_as_it_was_written(tmp_path):
    ledger = Ledger(tmp_path, "images")
    assert ledger.read("a") is None and ledger.done("a") is None
    record = toys.record_of(ledger, "a")
    assert ledger.done("a") is None  # the shard alone is nothing
    ledger.commit(record)
    assert ledger.read("a") == ledger.done("a") == record
    assert ledger.done("a", source="other") is None


@pytest.mark.parametrize("damage", ["gone", "short", "record"])
def test_a_unit_is_done_only_while_its_files_are_there(tmp_path, damage):
    ledger = Ledger(tmp_path, "images")
    ledger.commit(toys.record_of(ledger, "a"))
    path = ledger.path("images", "a")
    if damage == "gone":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        toys.rewrite_records(tmp_path, lambda record: json.dumps(record)[:-1])
    assert ledger.done("a") is None


def test_a_second_generation_takes_the_place_of_the_first(tmp_path):
    ledger = Ledger(tmp_path, "images")
    ledger.commit(toys.record_of(ledger, "a"))
    second = toys.record_of(ledger, "a", generation=1, text="more")
    assert ledger.path("images", "a").exists() and second.files["images"].name == "a~1.array_record"
    ledger.commit(second)
    assert ledger.done("a") == second and not ledger.path("images", "a").exists()


def test_another_identity_is_refused_and_every_difference_named(tmp_path):
    ledger = Ledger(tmp_path, "images")
    assert ledger.identity() is None and ledger.notes() == {}
    ledger.begin(IDENTITY, notes={"contact": "a"})
    ledger.begin(IDENTITY, notes={"contact": "b"})  # notes may change
    assert ledger.notes() == {"contact": "b"} and ledger.identity()["format"] == 2
    other = {"source": {"name": "toy", "revision": "2"}, "filters": {}, "image": {"size": (1, 2)}}
    with pytest.raises(ValueError) as error:
        ledger.begin(other)
    for part in (
        "revision (was '1', is '2')",
        "min_side (was 256, is none)",
        "image.size (was none",
    ):
        assert part in str(error.value)
    fresh = Ledger(tmp_path / "fresh", "images")
    fresh.begin(other)
    fresh.begin(other)  # a tuple comes back as a list, and is still the same


def test_names_belong_to_units():
    assert unit_of("00012-003~2.array_record") == unit_of("00012-003.parquet") == "00012-003"
    assert unit_of("a.json") == "a" and unit_of("a.array_record.corrupt") is None
    for bad in ("", "../a", "a/b", ".a", "a~1", "a b", "a" * 300):
        with pytest.raises(ValueError, match="not a valid id"):
            safe(bad)


def test_the_manifest_is_the_sum_of_the_commits(tmp_path):
    ledger = Ledger(tmp_path, "images")
    ledger.begin(IDENTITY)
    for unit in ("b", "a"):
        ledger.commit(toys.record_of(ledger, unit))
    with pytest.raises(Unfinished, match=r"1 of 3 units are not done .*the first: c"):
        gather(tmp_path, ["b", "a", "c"], "images")
    manifest = gather(tmp_path, ["b", "a"], "images")
    assert manifest.units == ("b", "a") and manifest.counts == {"ok": 2, "timeout": 4}
    assert [info.name for info in manifest.files["images"]] == ["b.array_record", "a.array_record"]
    assert (manifest.rows, manifest.kept, manifest.latents) == (6, 2, None)
    assert manifest.bytes("images") == sum(info.bytes for info in manifest.files["images"])
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    assert list(manifest.summary()["counts"]) == ["timeout", "ok"]


def test_units_left_out_are_named_until_they_are_done(tmp_path):
    ledger = Ledger(tmp_path, "images")
    ledger.begin(IDENTITY)
    ledger.commit(toys.record_of(ledger, "a"))
    ledger.skip("b", "ValueError: damaged")
    manifest = gather(tmp_path, ["b", "a"], "images")
    assert manifest.units == ("a",) and manifest.skipped == {"b": "ValueError: damaged"}
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest and manifest.summary()["skipped"] == 1
    ledger.commit(toys.record_of(ledger, "b"))
    assert gather(tmp_path, ["b", "a"], "images").units == ("b", "a")
    toys.rewrite_records(
        tmp_path, lambda record: json.dumps(record) if record["unit"] == "a" else ""
    )
    ledger.unskip("b")
    with pytest.raises(Unfinished):
        gather(tmp_path, ["b", "a"], "images")


def test_latents_of_other_images_are_no_part_of_it(tmp_path):
    toys.latent_dataset(tmp_path, (3, 2))
    units = Manifest.read(tmp_path).units
    assert gather(tmp_path, units, "images").latents["count"] == 5
    ledger = Ledger(tmp_path, "latents")
    other = dataclasses.replace(ledger.read(units[0]), source="0" * 64)
    ledger.commit(other)
    assert gather(tmp_path, units, "images").latents is None
    with pytest.raises(Unfinished, match="1 of 2 units are not done in the stage 'latents'"):
        gather(tmp_path, units, "latents")
