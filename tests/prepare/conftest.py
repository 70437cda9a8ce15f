"""An engine on a Ray cluster of this machine, for the tests of engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pinxit.prepare.engines.base import Engine
from pinxit.prepare.engines.choose import get_engine


@pytest.fixture
def ray_engine() -> Iterator[Engine]:
    """The engine; its cluster is shut down afterwards."""
    ray = pytest.importorskip("ray")
    yield get_engine("ray")
    ray.shutdown()
