"""Packing: the same bytes however often it was stopped, and nothing from a damaged shard."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import packed_toys  # pyrefly: ignore
import prepared_toys as toys  # pyrefly: ignore
import pytest
from memory_store import MemoryStore  # pyrefly: ignore

from pinxit.config import UsageError
from pinxit.data.packed.packed_manifest import PackedManifest
from pinxit.data.prepared.prepared_rows import PreparedRows
from pinxit.data.stores.byte_store import LocalStore
from pinxit.files import DiskFull
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.folder_lock import locked
from pinxit.prepare.packing.pack_dataset import PackSettings, pack_dataset
from pinxit.prepare.packing.pack_plan import plan_packs
from pinxit.prepare.packing.pack_series import PackOutput

ROOT = Path(__file__).parents[3]
SIZES = (7, 5, 0, 8, 1, 9)
WIDE = (1, 2, 5, 8, 12, 13, 20, 25, 26, 28)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    return toys.latent_dataset(tmp_path_factory.mktemp("unpacked"), SIZES, text=True, wide=WIDE)


@pytest.fixture(scope="module")
def whole(unpacked, tmp_path_factory):
    """What an uninterrupted command writes."""
    out = tmp_path_factory.mktemp("whole")
    packed_toys.packed(unpacked, out)
    return toys.content(out)


class Stopped(Exception):
    pass


def test_packs_hold_records_and_nothing_else(unpacked, whole):
    names = [name for name in whole if name.endswith(".pack")]
    assert {name.split("-")[0] for name in names} == {"packs/latents", "packs/text", "packs/images"}
    assert {name.rsplit("-", 1)[0] for name in names} == {
        *(f"packs/{kind}-{shape}" for kind in ("latents", "text") for shape in ("2x2x3", "2x4x3")),
        "packs/images-any",  # these toys record no shapes of images
    }
    assert all(len(whole[name]) <= 2000 for name in names if "images" not in name)
    of_square = sorted(name for name in names if name.startswith("packs/latents-2x2x3"))
    together = b"".join(whole[name] for name in of_square)
    rows = PreparedRows(unpacked)
    assert together == b"".join(row["latents"] for row in rows._read(np.arange(20)))
    assert not [name for name in whole if "partial" in name]


def test_packing_again_writes_nothing(unpacked, whole, tmp_path):
    packed_toys.packed(unpacked, tmp_path, workers=1)
    assert toys.content(tmp_path) == whole
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "packs").iterdir()}
    seen: list[tuple[str, int, int]] = []
    packed_toys.packed(unpacked, tmp_path, watch=lambda *progress: seen.append(progress))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "packs").iterdir()} == before
    assert [done for _, done, total in seen] == [total for _, done, total in seen]
    assert toys.content(tmp_path) == whole


@pytest.mark.parametrize("moment", [1, 5, 9, 14])
def test_a_command_that_was_stopped_continues(unpacked, whole, tmp_path, moment):
    """Stopped again and again; what was finished before is not touched."""
    for attempt in range(40):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("packs/*")}
        calls = 0

        def stop(kind: str, done: int, total: int) -> None:
            nonlocal calls
            calls += 1
            if calls > moment:
                raise Stopped

        try:
            packed_toys.packed(unpacked, tmp_path, pack_bytes=2000, watch=stop)
            break
        except Stopped:
            assert not (tmp_path / "packed.json").exists()
            assert not list(tmp_path.glob("packs/.*"))
            finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("packs/*")}
            assert finished.items() >= before.items()
            if finished == before and attempt:  # no further in so few calls
                packed_toys.packed(unpacked, tmp_path)
                break
    assert toys.content(tmp_path) == whole


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import packed_toys
from pinxit.prepare.packing import pack_series

left = int(sys.argv[4])
add = pack_series._OpenPack.add

def counted(self, record):
    global left
    left -= 1
    if left < 0:
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, record)

pack_series._OpenPack.add = counted
packed_toys.packed(Path(sys.argv[2]), Path(sys.argv[3]))
"""


def test_kill_9_leaves_a_folder_that_the_next_command_completes(unpacked, whole, tmp_path):
    stand_ins = ROOT / "tests" / "stand_ins"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    for records in (3, 11, 17):
        words = [sys.executable, "-c", KILLED, stand_ins, unpacked, tmp_path, records]
        ended = subprocess.run([str(word) for word in words], env=environment, timeout=120)
        assert ended.returncode == -signal.SIGKILL
        assert list(tmp_path.glob("packs/.*.partial")), "killed in the middle of a pack"
    packed_toys.packed(unpacked, tmp_path)
    assert toys.content(tmp_path) == whole


def test_a_full_disk_stops_it_and_room_continues_it(unpacked, whole, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(kind: str, done: int, total: int) -> None:
        if done > 6:  # no file may grow from now on
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))

    try:
        with pytest.raises(DiskFull, match="free some space and run the same"):
            packed_toys.packed(unpacked, tmp_path, watch=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("packs/.*"))
    packed_toys.packed(unpacked, tmp_path)
    assert toys.content(tmp_path) == whole


@pytest.mark.parametrize("folder", ["latents", "text", "images"])
def test_a_damaged_shard_is_named_and_not_packed(folder, tmp_path):
    root = toys.latent_dataset(tmp_path / "set", SIZES, text=True)
    shard = root / folder / "00005-000.array_record"
    good = shard.read_bytes()
    packed_toys.flip(shard)
    with pytest.raises(UsageError, match=r"00005-000.*its SHA-256 differs.*--verify 1"):
        packed_toys.packed(root, tmp_path / "out")
    assert not (tmp_path / "out" / "packed.json").exists()
    shard.write_bytes(good)
    packed_toys.packed(root, tmp_path / "out")
    other = toys.latent_dataset(tmp_path / "other", SIZES, text=True)
    packed_toys.packed(other, tmp_path / "other-out")
    assert toys.content(tmp_path / "out") == toys.content(tmp_path / "other-out")


def test_deleted_images_need_no_packing(tmp_path):
    root = toys.latent_dataset(tmp_path / "set", SIZES)
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match=r"held_out_images: 8 .*missing.*valid: 0 packs none"):
        packed_toys.packed(root, tmp_path / "out")
    manifest = packed_toys.packed(root, tmp_path / "other", held_out_images=0)
    assert manifest.contents == ("latents",)


def test_other_settings_and_other_datasets_are_refused(unpacked, tmp_path):
    packed_toys.packed(unpacked, tmp_path)
    with pytest.raises(UsageError, match="packs of another dataset or with other settings"):
        packed_toys.packed(unpacked, tmp_path, pack_bytes=3000)
    with pytest.raises(UsageError, match="packs of another dataset or with other settings"):
        packed_toys.packed(unpacked, tmp_path, held_out_images=4)
    other = toys.latent_dataset(tmp_path / "other", (3,))
    with pytest.raises(UsageError, match="packs of another dataset or with other settings"):
        packed_toys.packed(other, tmp_path)


def test_two_commands_do_not_write_to_one_folder(unpacked, tmp_path):
    with locked(tmp_path, InlineEngine()), pytest.raises(UsageError, match="in use by another"):
        packed_toys.packed(unpacked, tmp_path)


def test_an_object_store_gets_the_same_files(unpacked, whole, tmp_path):
    store = MemoryStore()
    store.failures = {"packs/text-2x2x3-00001.pack": [OSError(5, "the connection broke")]}
    with pytest.raises(OSError, match="the connection broke"):
        packed_toys.packed(unpacked, store, scratch=tmp_path)
    uploads = dict(store.files)
    assert "packed.json" not in uploads and not list(tmp_path.iterdir())
    store.counts.clear()
    packed_toys.packed(unpacked, store, scratch=tmp_path)
    assert store.files == whole and not list(tmp_path.iterdir())
    assert store.counts["upload"] == len(whole) - len(uploads), "finished packs stay"
    assert PackedManifest.read(store).to_bytes() == whole["packed.json"]


def test_a_record_larger_than_a_pack_gets_a_pack_of_its_own(unpacked, tmp_path):
    manifest = packed_toys.packed(unpacked, tmp_path, pack_bytes=1, held_out_images=0)
    assert [pack.rows for pack in manifest.packs("latents")] == [1] * 30
    assert len(PreparedRows(tmp_path).take(np.arange(20))["latents"]) == 20


def test_the_plan_says_how_large_the_packs_get(unpacked, tmp_path):
    from pinxit.data.prepared.manifest import Manifest

    plans = plan_packs(unpacked, Manifest.read(unpacked), 8)
    assert [plan.kind for plan in plans] == ["latents", "text", "images"]
    output = PackOutput(LocalStore(tmp_path), tmp_path)
    pack_dataset(unpacked, output, PackSettings(2000, 8), plans=plans)
    for plan in plans:
        files = [path for path in (tmp_path / "packs").iterdir() if plan.kind in path.name]
        size = sum(path.stat().st_size for path in files)
        assert size <= plan.bytes, "shards have a little around each record"
