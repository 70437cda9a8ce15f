"""The finished run that the tests of the doctor copy and break."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import run_to_examine, train_here


@pytest.fixture(scope="session")
def finished_run(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, which no test changes."""
    result, output = train_here(run_to_examine(bundle, tmp_path_factory.mktemp("runs")))
    assert result.status == "finished", output
    return result.folder
