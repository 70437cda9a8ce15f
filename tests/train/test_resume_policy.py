"""Settings that may change when a run is resumed: which, and what is said of the others."""

import re
from pathlib import Path

import pytest

from pinxit.config import UsageError, leaves, replace
from pinxit.train.ema import EmaConfig
from pinxit.train.resume_policy import (
    CHANGEABLE,
    FREE_FIELDS,
    changes_between,
    changes_from_json,
    changes_to_json,
    check_config,
)
from pinxit.train.settings import Sampling, TrainConfig

RUN = TrainConfig(batch_size=8, max_steps=10)


def test_free_settings_may_change():
    check_config(RUN, TrainConfig(batch_size=8, max_steps=99, sampling=Sampling(steps=3)))


def test_fixed_settings_are_all_named():
    new = TrainConfig(batch_size=16, seed=1, ema=EmaConfig(lengths=(0.1,)))
    for change in (False, True):
        with pytest.raises(UsageError) as error:
            check_config(RUN, new, change=change)
        assert str(error.value) == (
            "resume: the settings differ from the run's: --batch_size (was 8, is 16); --seed (was "
            "0, is 1); --ema.lengths (was 0.05 0.1 0.2, is 0.1). Use the run's settings "
            "(--batch_size 8 --seed 0 --ema.lengths 0.05 0.1 0.2), or start a new run with --name"
        )


CHANGED = {"optimizer.learning_rate": 5e-05, "optimizer.clip_norm": None, "use_amp": True}


def test_changeable_settings_need_to_be_asked_for():
    new = replace(RUN, CHANGED)
    check_config(RUN, new, change=True)
    with pytest.raises(UsageError) as error:
        check_config(RUN, new)
    assert str(error.value) == (
        "resume: the settings differ from the run's, in settings that may change if you add "
        "--change 1: --use_amp (was 0, is 1); --optimizer.learning_rate (was 0.001, is 5e-05); "
        "--optimizer.clip_norm (was 1.0, is none). To go on without the change: --use_amp 0 "
        "--optimizer.learning_rate 0.001 --optimizer.clip_norm 1.0"
    )
    with pytest.raises(UsageError, match=r"batch_size .*with --name. These may change .*--change"):
        check_config(RUN, replace(new, {"batch_size": 16}))


def test_every_changeable_and_free_setting_exists():
    names = {*leaves(TrainConfig), *(name.partition(".")[0] for name in leaves(TrainConfig))}
    assert set(CHANGEABLE) | set(FREE_FIELDS) <= names
    assert not set(CHANGEABLE) & set(FREE_FIELDS)


def test_the_page_on_training_lists_the_classes():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (free|allowed)[^|]* \|(.*) \|$", page, re.MULTILINE))
    assert tuple(re.findall("`([^`]+)`", rows["free"])) == FREE_FIELDS
    assert tuple(re.findall("`([^`]+)`", rows["allowed"])) == CHANGEABLE


def test_changes_are_recorded_with_their_step():
    new = replace(RUN, {"optimizer.learning_rate": 5e-05, "max_steps": 20, "name": "other"})
    changes = changes_between(RUN, new, step=9, updates=8)
    assert [(c.step, c.updates, c.setting, c.old, c.new) for c in changes] == [
        (9, 8, "max_steps", 10, 20),
        (9, 8, "optimizer.learning_rate", 0.001, 5e-05),
    ]
    assert changes_from_json(changes_to_json(changes)) == changes
    assert str(changes[1]) == "optimizer.learning_rate 0.001 -> 5e-05 from step 9"
    later = changes_between(new, new, step=12, updates=11, before=changes)
    assert later == changes
