"""When a run saves a checkpoint, and which of its checkpoints are permanent.

A checkpoint is due every save_interval steps, every keep_every steps, and where the decay of the
schedule wsd starts. The last two kinds are permanent. During a streak of non-finite steps nothing
is saved: a run that has diverged would otherwise replace its good checkpoints by bad ones. What is
due then is saved at the first finite step.
"""

from __future__ import annotations

from pinxit.train.optimizer import decay_start
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState


class SaveSchedule:
    """Decides at each step whether to save. All processes decide alike."""

    def __init__(self, config: TrainConfig) -> None:
        self.save_interval = config.save_interval
        self.keep_every = config.keep_every
        self.decay_start = decay_start(config.optimizer, config.max_steps)
        self._due = False
        self._lasting = False
        self._permanent: set[int] = set()

    def due(self, step: int, state: TrainState) -> bool:
        """Returns whether to save after this step. Must be called at every step.

        Waits for the device only if a checkpoint is due, which has to fetch the state anyway.
        """
        lasting = bool(self.keep_every) and step % self.keep_every == 0
        self._lasting |= lasting or step == self.decay_start
        self._due |= self._lasting or step % self.save_interval == 0
        if not self._due or streak(state):
            return False
        if self._lasting:
            self._permanent.add(step)
        self._due = self._lasting = False
        return True

    def permanent(self, step: int) -> bool:
        """Returns whether the checkpoint of this step is to be kept for good."""
        return step in self._permanent


def streak(state: TrainState) -> int:
    """Returns the number of non-finite steps up to now. Waits for the device."""
    return int(state.consecutive)
