"""The optional extras of the package: how one is installed, and what happens without it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from pinxit.config import UsageError

DATA = ("aiohttp", "array_record", "fsspec", "multidict", "pyarrow", "yarl")
"""The modules of the extra ``data``."""

STUDIO = ("fastapi", "multipart", "prometheus_client", "pydantic", "uvicorn")
"""The modules of the extra ``studio``."""


def extra_command(extra: str) -> str:
    """Returns the command that installs an extra: from the source tree that runs, or by name."""
    root = Path(__file__).parents[1]
    source = (root / "pyproject.toml").is_file()
    return f"pip install -e '{root}[{extra}]'" if source else f"pip install 'pinxit[{extra}]'"


def check_data_extra(work: str) -> None:
    """Raises `UsageError` unless the extra ``data`` is installed. `work` is what needs it."""
    _check_extra("data", DATA, work)


def check_studio_extra(work: str = "pinxit studio") -> None:
    """Raises `UsageError` unless the extra ``studio`` is installed. `work` is what needs it."""
    _check_extra("studio", STUDIO, work)


def _check_extra(extra: str, modules: Sequence[str], work: str) -> None:
    if missing := [name for name in modules if find_spec(name) is None]:
        raise UsageError(
            f"{work} needs packages that are not installed ({', '.join(missing)}): "
            f"{extra_command(extra)}"
        )
