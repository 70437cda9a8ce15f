"""The prepared datasets that the studio shows, with what is remembered of each."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from pinxit.serve.datasets.folders import DatasetFolder, find_datasets
from pinxit.serve.datasets.shard_pictures import ShardPictures
from pinxit.serve.datasets.unit_totals import UnitTotals

FRESH = 2.0
"""Seconds for which the list of folders is used again."""
REMEMBERED = 50
"""The maximum number of datasets whose totals are remembered."""


class DatasetCatalogue:
    """Looks up datasets by name. It may be used by several threads."""

    def __init__(self, data: Sequence[str], runs: Path | None) -> None:
        """Takes the data folders, and the folder of runs."""
        self.data = tuple(data)
        self.runs = runs
        self.pictures = ShardPictures()
        self.searching = threading.BoundedSemaphore(2)
        """Held by a search, so that few of them read the disk at a time."""
        self._folders: dict[str, DatasetFolder] = {}
        self._listed = -FRESH
        self._totals: OrderedDict[Path, UnitTotals] = OrderedDict()
        self._lock = threading.Lock()

    def folders(self) -> dict[str, DatasetFolder]:
        """Returns the datasets by name, as they are on the disk now."""
        with self._lock:
            if time.monotonic() - self._listed > FRESH:
                self._folders = find_datasets(self.data, self.runs)
                self._listed = time.monotonic()
            return self._folders

    def totals(self, folder: DatasetFolder) -> UnitTotals:
        """Returns the totals of a dataset, which are made at the first request."""
        with self._lock:
            totals = self._totals.setdefault(folder.root, UnitTotals(folder.root))
            self._totals.move_to_end(folder.root)
            while len(self._totals) > REMEMBERED:
                self._totals.popitem(last=False)
            return totals
