"""Ranks of one preparation: who waits for whom, and until when."""

import threading
import time

import prepared_toys as toys  # pyrefly: ignore
import pytest

from pinxit.data.prepared.manifest import Manifest
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.engines.ranks import RankEngine
from pinxit.prepare.folder_lock import locked
from pinxit.prepare.gather import gather
from pinxit.prepare.rank_signals import await_units, begin, give_up, given_up


def test_a_manifest_of_fewer_units_is_not_enough(tmp_path):
    """That of a former, smaller limit lies there when the first rank is done."""
    toys.image_dataset(tmp_path, (3, 2))
    old = Manifest.read(tmp_path).units
    wanted = [*old, "00002-000"]
    assert await_units(tmp_path, old, poll=0.01) == ""
    ended: list[str] = []
    waiter = threading.Thread(
        target=lambda: ended.append(await_units(tmp_path, wanted, poll=0.01)), daemon=True
    )
    waiter.start()
    time.sleep(0.2)
    assert waiter.is_alive() and not ended
    toys.add_images(tmp_path, "00002-000", range(4))
    gather(tmp_path, wanted, "images").write(tmp_path)
    waiter.join(10)
    assert ended == [""]


def test_a_rank_that_gave_up_ends_the_waiting(tmp_path):
    begin(tmp_path, RankEngine(1, 2))
    give_up(tmp_path, RankEngine(1, 2), "1 units failed")
    said = await_units(tmp_path, ["00000-000"], poll=0.01)
    assert said == "other ranks have ended without finishing their units (rank 1: 1 units failed)"
    begin(tmp_path, RankEngine(0, 2))
    assert given_up(tmp_path) == {1: "1 units failed"}
    begin(tmp_path, RankEngine(1, 2))
    assert given_up(tmp_path) == {}
    give_up(tmp_path, InlineEngine(), "nobody waits for it")
    assert given_up(tmp_path) == {}


def test_what_was_said_before_the_last_start_does_not_count(tmp_path, monkeypatch):
    """The other rank starts between two looks, and takes back what it said."""
    toys.image_dataset(tmp_path, (3,))
    give_up(tmp_path, RankEngine(1, 2), "yesterday")
    looks = []

    def pause(seconds):
        looks.append(seconds)
        begin(tmp_path, RankEngine(1, 2))
        if len(looks) == 3:
            toys.add_images(tmp_path, "00001-000", range(4))
            gather(tmp_path, ["00000-000", "00001-000"], "images").write(tmp_path)

    monkeypatch.setattr(time, "sleep", pause)
    assert await_units(tmp_path, ["00000-000", "00001-000"]) == "" and len(looks) == 3


def test_ranks_of_one_world_share_the_folder_and_nobody_else(tmp_path):
    with locked(tmp_path, RankEngine(0, 2)), locked(tmp_path, RankEngine(1, 2)):
        for engine in (RankEngine(1, 2), InlineEngine()):
            with pytest.raises(ValueError, match="another preparation"), locked(tmp_path, engine):
                pass
        other = RankEngine(2, 3)
        with (
            pytest.raises(ValueError, match="in use by ranks of a world of 2"),
            locked(tmp_path, other),
        ):
            pass
    with (
        locked(tmp_path, InlineEngine()),
        pytest.raises(ValueError, match="another preparation"),
        locked(tmp_path, RankEngine(0, 2)),
    ):
        pass
    with locked(tmp_path, RankEngine(2, 3)):
        pass
