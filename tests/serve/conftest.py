"""For the tests of the studio: a server with the shipped model, and Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from studio import (
    CHROMIUM,
    RunningStudio,
    WatchedPage,
    chromium,
    folders_in,
    opened,
    running_studio,
)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio with the shipped model and empty folders."""
    with running_studio(**folders_in(tmp_path_factory.mktemp("studio"))) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, once for a module."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, studio: RunningStudio) -> Iterator[WatchedPage]:
    """The studio's page, which must not have errors or ask other servers."""
    with opened(browser, studio.url) as watched:
        yield watched
