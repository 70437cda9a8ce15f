"""When checkpoints are saved: at their steps, but never while steps are not finite."""

from dataclasses import replace

import pytest
from toys import FROZEN, loader, make, poisoned

from pinxit.train.optimizer import OptimizerConfig
from pinxit.train.save_schedule import SaveSchedule
from pinxit.train.settings import TrainConfig


def saved(config: TrainConfig, *bad: int) -> tuple[list[int], list[int]]:
    """The steps that are saved, and those of them that are permanent, if some steps are NaN."""
    schedule = SaveSchedule(config)
    step_of, state = make(objective=poisoned(*(step - 1 for step in bad)))
    steps = []
    for step, raw in enumerate(loader().batches(0, config.max_steps), start=1):
        state, _ = step_of(state, FROZEN, raw)
        if schedule.due(step, state):
            steps.append(step)
    return steps, [step for step in steps if schedule.permanent(step)]


def test_saved_at_its_steps():
    config = TrainConfig(max_steps=5, save_interval=2)
    assert saved(config) == ([2, 4], [])
    assert saved(TrainConfig(max_steps=5, save_interval=9, keep_every=2)) == ([2, 4], [2, 4])
    wsd = OptimizerConfig(schedule="wsd", decay_steps=2)
    assert saved(TrainConfig(max_steps=5, save_interval=2, optimizer=wsd)) == ([2, 3, 4], [3])


def test_not_saved_during_a_streak_but_at_the_first_finite_step():
    config = TrainConfig(max_steps=5, save_interval=2, keep_every=4)
    assert saved(config, 2) == ([3, 4], [4])
    assert saved(config, 1, 2, 3) == ([4], [4])
    assert saved(config, 4) == ([2, 5], [5]), "a postponed checkpoint is permanent as well"
    assert saved(config, 1) == ([2, 4], [4])


def test_nothing_waits_for_the_device_in_between():
    schedule = SaveSchedule(TrainConfig(save_interval=2))

    class Unreadable:
        def __int__(self) -> int:
            raise AssertionError("read")

    state = replace(make()[1], consecutive=Unreadable())
    assert not schedule.due(1, state)
    with pytest.raises(AssertionError, match="read"):
        schedule.due(2, state)
