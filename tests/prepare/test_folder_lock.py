"""Locks of a prepared folder: which commands may share it."""

import pytest

from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.engines.ranks import RankEngine
from pinxit.prepare.folder_lock import is_locked, locked


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


def test_another_command_may_encode_while_one_prepares_images(tmp_path):
    assert is_locked(tmp_path, "images") is False
    with locked(tmp_path, InlineEngine()):
        assert is_locked(tmp_path, "images") and is_locked(tmp_path, "latents") is False
        with locked(tmp_path, InlineEngine(), "latents"):
            assert is_locked(tmp_path, "latents")
            with (
                pytest.raises(ValueError, match="another preparation"),
                locked(tmp_path, RankEngine(0, 2), "latents"),
            ):
                pass
    assert is_locked(tmp_path, "images") is False and is_locked(tmp_path, "latents") is False
