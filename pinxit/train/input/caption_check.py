"""Batches on their way to the devices: the first ones are looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pinxit.train.watch.data_advice import CaptionCheck

Place = Callable[[dict[str, Any]], dict[str, Any]]


class Intake:
    """Places batches; says so when the captions of the first ones say nothing."""

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        self.place = place
        self.say = say
        self.captions = CaptionCheck()

    def __call__(self, columns: dict[str, Any]) -> dict[str, Any]:
        """The batch on its devices."""
        if not self.captions.done and (said := self.captions.look(columns)):
            self.say(f"warning: {said}")
        return self.place(columns)
